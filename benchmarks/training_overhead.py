"""What journal, grids, evaluations and checkpoints cost a training on MNIST with its own settings.

Two ways, in the same runs. Pairs of runs of the same length, one with the pipeline's settings and
one with all of that switched off, take turns at going first: the difference of their times is the
cost. And in the runs with the pipeline's settings, the time spent in each of the activities is
taken. Every run is a process of its own with two threads; the time is that from the first step to
the return of the training, so the last grid, the last checkpoint and the release are in it (these
have no switch, and are in both runs). The target is at most 5 %.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import (
    PROJECT,
    arguments,
    make_job,
    prepared_images,
    prepared_network,
    report,
    shipped_settings,
    spread,
    tell,
    with_training,
)
from gan_core.training.job import TrainingJob

PIPELINE = "mnist"
ACTIVITIES = ("write_line", "write_grid", "evaluate", "save", "finish")
NEVER = 1e6


def silent(job: TrainingJob) -> TrainingJob:
    """The same training with nothing written or measured on its way."""
    quiet = with_training(
        job,
        logging_interval_kimg=NEVER,
        grid_interval_kimg=NEVER,
        checkpoint_interval_seconds=NEVER,
    )
    return quiet.model_copy(update={"feature_network": None, "feature_network_sha256": None})


def train_timed(folder: Path) -> None:
    """Run the folder's job, and print the seconds of the whole and of each activity."""
    from gan_core.training.course import Course
    from gan_core.training.loop import train

    spent = dict.fromkeys(ACTIVITIES, 0.0)
    nested = 0

    def timed(name: str, method: Callable[..., str | None]) -> Callable[..., str | None]:
        def call(course: Course, *arguments: Any) -> str | None:
            nonlocal nested
            nested += 1
            start = time.perf_counter()
            result = method(course, *arguments)
            nested -= 1
            if not nested:  # `finish` saves; that is its own time
                spent[name] += time.perf_counter() - start
            return result

        return call

    for name in ACTIVITIES:
        setattr(Course, name, timed(name, getattr(Course, name)))
    begun: list[float] = []

    def note_begin() -> None:
        if not begun:
            spent.update(
                dict.fromkeys(ACTIVITIES, 0.0)
            )  # the first grid comes before the first step
            begun.append(time.perf_counter())

    train(TrainingJob.read(folder), folder, note_begin)
    print(json.dumps({"seconds": time.perf_counter() - begun[0], "spent": spent}))


def run(job: TrainingJob) -> dict[str, Any]:
    """A timed training in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        job.write(Path(folder))
        printed = subprocess.run(
            [sys.executable, "-m", "benchmarks.training_overhead", "--folder", folder],
            cwd=PROJECT,
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    return json.loads(printed)


def measure(kimg: float, pairs: int) -> dict[str, Any]:
    """Pairs of runs with the activities and without."""
    settings = shipped_settings(PIPELINE, training__kimg=kimg)
    images = prepared_images(settings.data)
    shipped = make_job(PIPELINE, settings, images, prepared_network(images, settings))
    jobs = {"shipped": shipped, "silent": silent(shipped)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for index in range(pairs):
        for name in sorted(jobs, reverse=index % 2 == 0):
            runs[name].append(run(jobs[name]))
            tell(f"{name}: {runs[name][-1]['seconds']:.1f} s")
    shares = {
        name: spread([row["spent"][name] / row["seconds"] for row in runs["shipped"]])
        for name in ACTIVITIES
    }
    return {
        "pipeline": PIPELINE,
        "kimg": kimg,
        "seconds": {name: spread([row["seconds"] for row in rows]) for name, rows in runs.items()},
        "share_by_difference": spread(
            [
                1.0 - without["seconds"] / whole["seconds"]
                for whole, without in zip(runs["shipped"], runs["silent"], strict=True)
            ]
        ),
        "share_by_timing": spread(
            [sum(row["spent"].values()) / row["seconds"] for row in runs["shipped"]]
        ),
        "share_of_activity": shares,
    }


def main() -> None:
    """Measure and write the result, or be one of the runs."""
    parser = arguments(__doc__)
    parser.add_argument("--kimg", type=float, default=200.0, help="length of a run")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="be the run of this folder (internal)")
    options = parser.parse_args()
    if options.folder:
        train_timed(options.folder)
        return
    result = measure(4.0, 1) if options.quick else measure(options.kimg, options.pairs)
    report("training_overhead", result, quick=options.quick)


if __name__ == "__main__":
    main()
