"""Variants of the shipped recipes, each with several seeds, measured on the held-out images.

The evidence behind the settings of the shipped pipelines. A variant is a set of overrides of the
recipe; each training is a process of its own with `--threads` threads, `--jobs` of them at a time.
Rows are added to results/recipes.json as they come; a row that is there is not measured again.
"""

import argparse
import concurrent.futures
import json
import tempfile
from pathlib import Path
from typing import Any

import filelock
import yaml

from benchmarks import common
from benchmarks.machine import RESULTS, describe_machine, write_result
from gan_core.config import NetworkSettings, PipelineSettings, apply_overrides, flat_settings
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.generator import ReleasedGenerator
from gan_core.training.job import RELEASE_FOLDER
from gan_core.training_settings import TrainingSettings

NAME = "recipes"
KEY = ("pipeline", "variant", "kimg", "seed")


def main() -> None:
    """Measure the variants that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("--kimg", type=float, help="budget; by default that of the pipeline")
    parser.add_argument(
        "--variant",
        action="append",
        nargs="+",
        metavar=("NAME", "KEY=VALUE"),
        help="a name, and the settings that differ from the recipe",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder in which the trainings stay; one that was cut off there is continued",
    )
    options = parser.parse_args()
    variants = [(words[0], words[1:]) for words in options.variant or [["shipped"]]]
    done = [tuple(row[name] for name in KEY) for row in rows()]
    budget = options.kimg or common.shipped_settings(options.pipeline).training.kimg
    work = [
        (name, words, budget, seed)
        for seed in options.seeds
        for name, words in variants
        if (options.pipeline, name, budget, seed) not in done
    ]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(measure, options, *item) for item in work]
        for future in concurrent.futures.as_completed(futures):
            row = future.result()
            add_row(row)
            common.tell(
                f"{row['pipeline']} {row['variant']} seed {row['seed']}: "
                f"{row['distance_over_floor']:.3f} x floor, recall {row['recall']:.3f}, "
                f"nearest {row['nearest_distance_ratio']:.3f}, {row['seconds']:.0f} s"
            )


def measure(
    options: argparse.Namespace, variant: str, words: list[str], kimg: float, seed: int
) -> dict[str, Any]:
    """Train and measure one variant with one seed."""
    changes = {key: yaml.safe_load(value) for key, _, value in (w.partition("=") for w in words)}
    settings = apply_overrides(
        common.shipped_settings(options.pipeline),
        {**changes, "training.seed": seed, "training.kimg": kimg},
        "--variant",
    )
    images = open_image_set(folder := common.prepared_images(settings.data))
    network_folder = common.prepared_network(folder, settings)
    job = common.make_job(options.pipeline, settings, folder, network_folder)
    job = job.model_copy(update={"threads": options.threads})
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.keep or Path(temporary)
        training = kept / f"{options.pipeline}-{variant}-{kimg:g}-{seed}"
        journal = common.run_training(job, training)
        network = FeatureNetwork.load(network_folder)
        generator = ReleasedGenerator.load(training / RELEASE_FOLDER)
        found, _ = common.open_evaluator(images, network, settings).evaluate(generator)
    end = next(row for row in reversed(journal) if row["event"] == "end")
    distances = [row["distance"] for row in journal if row["event"] == "evaluation"]
    return {
        **dict(zip(KEY, (options.pipeline, variant, kimg, seed), strict=True)),
        "recipe": differences(settings),
        **common.main_numbers(found),
        "seconds": end["seconds"],
        "threads": options.threads,
        "arithmetic": job.precision,
        "machine": describe_machine(),
        "released_kimg": end["released_kimg"],
        "ended_by": end["reason"],
        "alarms": [row["name"] for row in journal if row["event"] == "alarm"],
        "distances_to_training_images": distances,
    }


def differences(settings: PipelineSettings) -> dict[str, Any]:
    """The settings of network and training that are not the program's own; not budget and seed."""
    found: dict[str, Any] = {}
    for own in (NetworkSettings(), TrainingSettings()):
        section = "network" if isinstance(own, NetworkSettings) else "training"
        defaults = flat_settings(own)
        found |= {
            f"{section}.{key}": value
            for key, value in flat_settings(getattr(settings, section)).items()
            if value != defaults[key] and key not in ("kimg", "seed")
        }
    return found


def rows() -> list[dict[str, Any]]:
    """What was measured so far."""
    path = RESULTS / f"{NAME}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def add_row(row: dict[str, Any]) -> None:
    """Keep a measurement; several programs may measure at once."""
    with filelock.FileLock(RESULTS / f"{NAME}.lock"):
        write_result(NAME, {"rows": [*rows(), row]})


if __name__ == "__main__":
    main()
