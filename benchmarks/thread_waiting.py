"""Images per second of training by how long its idle threads spin, alone and beside busy programs.

A thread of OpenMP that waits for the others spins before it lets the core go (`GOMP_SPINCOUNT`).
That saves waking it up, and keeps the core from programs that could use it. Contestants are our
step on two threads (`bare_engine` of `benchmarks.training_speed`), which differ in nothing else.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import (
    arguments,
    make_job,
    prepared_images,
    prepared_network,
    report,
    shipped_settings,
    spread,
    tell,
)
from benchmarks.training_speed import ENDLESS_KIMG
from benchmarks.turns import Contestant, take_turns
from gan_core.idle_threads import SPIN_VARIABLE

PIPELINES = ("digits", "mnist", "cifar10_20pct")
SPINS = ("default", "5000", "2000", "1000", "0")
BUSY_PROGRAMS = (0, 1, 2)


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many programs beside this one that want a core each."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def environment(spins: str) -> dict[str, str]:
    """What makes OpenMP's threads spin so often before they sleep; `default` is OpenMP's choice."""
    return {} if spins == "default" else {SPIN_VARIABLE: spins}


def measure(
    pipeline: str,
    spins: list[str],
    busy: list[int],
    seconds: float,
    rounds: int,
    warm_up_seconds: float,
) -> dict[str, dict[str, object]]:
    """Images per second by the number of busy programs and of spins."""
    tell(f"{pipeline}: preparing")
    settings = shipped_settings(pipeline, training__kimg=ENDLESS_KIMG)
    images = prepared_images(settings.data)
    job = make_job(pipeline, settings, images, prepared_network(images, settings))
    folder = Path(tempfile.mkdtemp())
    job.write(folder)
    contestants = {
        count: Contestant(
            "benchmarks.training_speed",
            ["--contestant", "bare_engine", "--folder", folder],
            environment(count),
        )
        for count in spins
    }
    found: dict[str, dict[str, object]] = {}
    try:
        for programs in busy:
            tell(f"{pipeline}: beside {programs} busy programs")
            with busy_programs(programs):
                speeds = take_turns(contestants, seconds, rounds, warm_up_seconds)
            found[f"beside {programs}"] = {name: spread(values) for name, values in speeds.items()}
    finally:
        for contestant in contestants.values():
            contestant.end()
        shutil.rmtree(folder)
    return found


def main() -> None:
    """Measure and write the result."""
    parser = arguments(__doc__)
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES, choices=PIPELINES)
    parser.add_argument("--spins", nargs="+", default=SPINS)
    parser.add_argument(
        "--busy", nargs="+", type=int, default=BUSY_PROGRAMS, help="programs beside"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds, rounds, warm_up = (
        (0.5, 1, 0.5) if options.quick else (options.seconds, options.rounds, 2.0)
    )
    found = {
        name: measure(name, options.spins, options.busy, seconds, rounds, warm_up)
        for name in options.pipelines
    }
    result = {"seconds_a_turn": seconds, "images_per_second": found}
    report("thread_waiting", result, quick=options.quick)


if __name__ == "__main__":
    main()
