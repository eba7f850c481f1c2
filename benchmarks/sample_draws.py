"""How much of a distance is the draw of the samples: digits, drawn again and again.

An evaluation draws as many samples as the floor has images, once. Here three trainings of the
shipped recipe are drawn many times: with independent latents, as an evaluation does; with latents
from a scrambled Sobol sequence for each class, which Chong and Forsyth (2020) propose because they
fill the space more evenly; and once with `MANY` times as many, where the draw no longer matters.
All distances are in floors, that of the training images, each once.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import common
from benchmarks.machine import write_result
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.frechet import fit_gaussian, frechet_distance
from gan_core.evaluation.real_images import floor_rows
from gan_core.generator import ReleasedGenerator
from gan_core.training.job import RELEASE_FOLDER

PIPELINE = "digits"
SEEDS = (0, 1, 2)
MANY = 14
BATCH = 256
Latents = Callable[[int, np.ndarray, int], torch.Tensor]


def independent(seed: int, labels: np.ndarray, size: int) -> torch.Tensor:
    """Latents, float32, shape (n, size), of the standard normal distribution."""
    return torch.randn(len(labels), size, generator=torch.Generator().manual_seed(seed))


def even(seed: int, labels: np.ndarray, size: int) -> torch.Tensor:
    """The same, each class with the points of a scrambled Sobol sequence of its own."""
    latents = torch.empty(len(labels), size)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=1000 * seed + int(label))
        # The points are multiples of 2^-30 from 0 on.
        latents[rows] = torch.special.ndtri(engine.draw(len(rows)).clamp(2**-31, 1 - 2**-24))
    return latents


def measure(seed: int, folder: Path, draws: int) -> dict[str, Any]:
    """Train one generator, and the distances of its draws."""
    settings = common.shipped_settings(PIPELINE, training__seed=seed)
    images = open_image_set(image_folder := common.prepared_images(settings.data))
    network_folder = common.prepared_network(image_folder, settings)
    job = common.make_job(PIPELINE, settings, image_folder, network_folder)
    journal = common.run_training(job, folder / f"{PIPELINE}-draws-{seed}")
    generator = ReleasedGenerator.load(folder / f"{PIPELINE}-draws-{seed}" / RELEASE_FOLDER)
    network = FeatureNetwork.load(network_folder)
    rows = floor_rows(images, settings.evaluation)
    labels = images.train.labels[rows]
    held_out = fit_gaussian(network(images.held_out.images).vectors)
    floor = frechet_distance(fit_gaussian(network(images.train.images[rows]).vectors), held_out)

    def distance(latents: Latents, draw: int, asked: np.ndarray) -> float:
        inputs = latents(draw, asked, generator.config.network.latent_dim)
        samples = [
            generator.images(part, torch.from_numpy(asked[start : start + BATCH]))
            for start, part in zip(range(0, len(asked), BATCH), inputs.split(BATCH), strict=True)
        ]
        vectors = network(np.concatenate(samples)).vectors
        return frechet_distance(fit_gaussian(vectors), held_out) / floor

    found: dict[str, Any] = {"seed": seed, "training_seconds": journal[-1]["seconds"]}
    for name, latents in (("independent", independent), ("sobol", even)):
        values = [distance(latents, draw, labels) for draw in range(draws)]
        found[name] = {
            "mean": statistics.mean(values),
            "standard_deviation": statistics.stdev(values),
            "least": min(values),
            "most": max(values),
        }
    found["many"] = distance(independent, 0, np.tile(labels, MANY))
    common.tell(f"seed {seed}: {found}")
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--draws", type=int, default=12)
    folder = common.CACHE / "trainings"
    parser.add_argument("--keep", type=Path, default=folder, help="where the trainings stay")
    options = parser.parse_args()
    found = [measure(seed, options.keep, options.draws) for seed in SEEDS]
    write_result(
        "sample_draws",
        {
            "pipeline": PIPELINE,
            "draws": options.draws,
            "many": MANY,
            "trainings": found,
            "mean": {
                "independent": statistics.mean(one["independent"]["mean"] for one in found),
                "sobol": statistics.mean(one["sobol"]["mean"] for one in found),
                "many": statistics.mean(one["many"] for one in found),
            },
        },
    )


if __name__ == "__main__":
    main()
