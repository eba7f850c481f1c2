"""The distance that the training images themselves would have, were they drawn as samples are.

The floor of an evaluation takes training images in the place of the samples, each once. A generator
draws: even one that had learned the training split to the pixel would give some of its images twice
and others not at all. Here the training images are drawn so, with replacement within each class
(samples have the floor's classes), and each draw's distance is given in floors. It is what a
conditional generator can reach by heart; less takes luck in the draw, or what it made of the images
beyond them.
"""

import statistics
from typing import Any

import numpy as np

from benchmarks.common import (
    arguments,
    prepared_images,
    prepared_network,
    report,
    shipped_settings,
    tell,
)
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.frechet import fit_gaussian, frechet_distance
from gan_core.evaluation.real_images import floor_rows

PIPELINES = ("digits", "mnist", "fashion_mnist", "cifar10_20pct")


def measure(pipeline: str, draws: int) -> dict[str, Any]:
    """The floor, and the distances of redrawn training images in floors."""
    settings = shipped_settings(pipeline)
    folder = prepared_images(settings.data)
    images = open_image_set(folder)
    network = FeatureNetwork.load(prepared_network(folder, settings))
    rows = floor_rows(images, settings.evaluation)
    labels = images.train.labels[rows]
    floor_vectors = network(images.train.images[rows]).vectors
    held_out = fit_gaussian(network(images.held_out.images).vectors)
    floor = frechet_distance(fit_gaussian(floor_vectors), held_out)

    # Of each class, what a sample of that class may be.
    everything = network(images.train.images).vectors
    members = {label: np.flatnonzero(images.train.labels == label) for label in np.unique(labels)}
    stream = np.random.default_rng(0)
    ratios = []
    for _ in range(draws):
        drawn = np.concatenate(
            [
                stream.choice(of_class, np.count_nonzero(labels == label))
                for label, of_class in members.items()
            ]
        )
        ratios.append(frechet_distance(fit_gaussian(everything[drawn]), held_out) / floor)
    return {
        "images": len(rows),
        "held_out_images": len(images.held_out),
        "floor": floor,
        "redrawn_over_floor": {
            "mean": statistics.mean(ratios),
            "standard_deviation": statistics.stdev(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "draws": draws,
        },
    }


def main() -> None:
    """Measure and write the result."""
    options = arguments(__doc__).parse_args()
    found = {}
    for pipeline in PIPELINES[:1] if options.quick else PIPELINES:
        tell(pipeline)
        found[pipeline] = measure(pipeline, 5 if options.quick else 100)
    report("redrawn_floor", {"pipelines": found}, quick=options.quick)


if __name__ == "__main__":
    main()
