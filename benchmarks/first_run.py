"""The newcomer's first run: `gan-foundry run digits` in a fresh home, three times with three seeds.

The target is at most 60 s of training and at most 150 s in all on 2 cores, after the installation.
`unchanged_seconds` is a second run of the same pipeline, which has nothing to do.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import write_result

PROGRAM = Path(sys.executable).with_name("gan-foundry")
SEEDS = (0, 1, 2)


def measure(home: Path, seed: int) -> tuple[float, dict[str, Any]]:
    """Seconds of one whole command, and what it printed."""
    start = time.perf_counter()
    result = subprocess.run(
        [PROGRAM, "run", "digits", "--seed", str(seed), "--json"],
        env={**os.environ, "DAGSTER_HOME": str(home)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return time.perf_counter() - start, json.loads(result.stdout)


def main() -> None:
    """Measure and write the result."""
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            seconds, summary = measure(Path(folder) / "home", seed)
            unchanged, _ = measure(Path(folder) / "home", seed)
        evaluation = summary["evaluation"]
        runs.append(
            {
                "seed": seed,
                "seconds": seconds,
                "stage_seconds": summary["seconds"],
                "unchanged_seconds": unchanged,
                "frechet_distance": evaluation["frechet_distance"],
                "floor": evaluation["floor"],
                "class_coverage": evaluation["class_coverage"],
                "card": evaluation["card"]["line"],
            }
        )
    result = {
        "median_seconds": statistics.median(run["seconds"] for run in runs),
        "median_generator_seconds": statistics.median(
            run["stage_seconds"]["generator"] for run in runs
        ),
        "median_unchanged_seconds": statistics.median(run["unchanged_seconds"] for run in runs),
        "mean_distance_over_floor": statistics.mean(
            run["frechet_distance"] / run["floor"] for run in runs
        ),
        "runs": runs,
    }
    print(write_result("first_run", result))


if __name__ == "__main__":
    main()
