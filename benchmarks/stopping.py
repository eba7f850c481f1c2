"""How long the shipped pipelines take from SIGTERM to the end, with a checkpoint.

Each training is stopped several times at random instants, an evaluation or a checkpoint among them,
and continued. The target is at most 5 s on 2 cores.
"""

import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import common
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import CHECKPOINT_FILE, EXIT_INTERRUPTED, JOURNAL_FILE

PIPELINES = ("digits", "mnist", "fashion_mnist", "cifar10_20pct")
STOPS = 6
# Evaluations and checkpoints take most of the time here, so that stops meet them.
OFTEN = {"training__monitoring__interval_kimg": 1, "training__checkpoint_interval_seconds": 1}


def stop_seconds(pipeline: str, stops: int) -> list[float]:
    """Seconds from the signal to the process's end, for each stop."""
    settings = common.shipped_settings(pipeline, **OFTEN, training__kimg=100_000)
    images = common.prepared_images(settings.data)
    job = common.make_job(pipeline, settings, images, common.prepared_network(images, settings))
    stream, found = random.Random(0), []  # noqa: S311
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job.write(folder)
        for _ in range(stops):
            journal = folder / JOURNAL_FILE
            before = journal.stat().st_size if journal.exists() else 0
            process = subprocess.Popen(common.training_command(folder))
            while not journal.exists() or journal.stat().st_size <= before:
                if process.poll() is not None:
                    raise SystemExit(f"{pipeline} ended with status {process.returncode}")
                time.sleep(0.01)
            time.sleep(stream.uniform(0, 5))
            process.send_signal(signal.SIGTERM)
            start = time.perf_counter()
            if process.wait() != EXIT_INTERRUPTED or not read_progress(folder / CHECKPOINT_FILE):
                raise SystemExit(f"{pipeline} did not end with a checkpoint")
            found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Measure and write the result."""
    options = common.arguments(__doc__).parse_args()
    stops = 1 if options.quick else STOPS
    seconds = {pipeline: stop_seconds(pipeline, stops) for pipeline in PIPELINES}
    result = {
        "most_seconds": max(max(times) for times in seconds.values()),
        "seconds": {name: common.spread(times) for name, times in seconds.items()},
    }
    common.report("stopping", result, quick=options.quick)


if __name__ == "__main__":
    main()
