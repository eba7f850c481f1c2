"""Images per second of training by how its idle threads wait, alone and beside busy programs.

A thread of OpenMP that waits for the others spins before it lets the core go. That saves waking it
up, and keeps the core from programs that could use it. Contestants are our step on two threads
(`bare_engine` of `benchmarks.training_speed`), which differ in nothing else: `ours` looks each
second whether other programs want the cores (`gan_core.idle_threads`), `default` spins as often as
OpenMP lets it (`GOMP_SPINCOUNT`), the others so often as their name says. While one has its turn,
the others wait.
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

PIPELINES = ("digits", "mnist", "cifar10_20pct")
SPIN_VARIABLE = "GOMP_SPINCOUNT"
OPENMPS_OWN = "300000"
WAYS = ("ours", "default", "1000")
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


def environment(way: str) -> dict[str, str]:
    """What makes OpenMP's threads wait so."""
    if way == "ours":
        return {}
    return {SPIN_VARIABLE: OPENMPS_OWN if way == "default" else way}


def measure(
    pipeline: str,
    ways: list[str],
    busy: list[int],
    seconds: float,
    rounds: int,
    warm_up_seconds: float,
) -> dict[str, dict[str, object]]:
    """Images per second by the number of busy programs and the way to wait."""
    tell(f"{pipeline}: preparing")
    settings = shipped_settings(pipeline, training__kimg=ENDLESS_KIMG)
    images = prepared_images(settings.data)
    job = make_job(pipeline, settings, images, prepared_network(images, settings))
    folder = Path(tempfile.mkdtemp())
    job.write(folder)
    contestants = {
        way: Contestant(
            "benchmarks.training_speed",
            ["--contestant", "bare_engine", "--folder", folder],
            environment(way),
        )
        for way in ways
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
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument(
        "--busy", nargs="+", type=int, default=BUSY_PROGRAMS, help="programs beside"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds, rounds, warm_up = (
        (0.5, 1, 0.5) if options.quick else (options.seconds, options.rounds, 2.0)
    )
    found = {
        name: measure(name, options.ways, options.busy, seconds, rounds, warm_up)
        for name in options.pipelines
    }
    result = {"seconds_a_turn": seconds, "images_per_second": found}
    report("thread_waiting", result, quick=options.quick)


if __name__ == "__main__":
    main()
