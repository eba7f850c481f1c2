"""What stands beside a distance in the tables: fidelity, diversity, nearness to training images.

Precision and recall after Kynkäänniemi et al. 2019, density and coverage after Naeem et al. 2020.
"""

from typing import Any

import numpy as np
import torch

from gan_core.config import EvaluationSettings
from gan_core.data.image_set import ImageSet
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.report import evaluate
from gan_core.generator import ReleasedGenerator

NEIGHBOURS = 5
NEAREST_COUNT = 2000  # images whose nearest training image is looked for
CHUNK = 1000


def quality(
    generator: ReleasedGenerator,
    images: ImageSet,
    network: FeatureNetwork,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """All numbers of one generator against the held-out images."""
    found = evaluate(generator, images, network, settings)
    count = min(settings.samples, len(images.train))
    rows = np.sort(np.random.default_rng(settings.seed).permutation(len(images.train))[:count])
    labels = images.train.labels[rows] if generator.config.classes else None
    samples = generator.sample(count, seed=settings.seed, labels=labels)
    features, _ = network(samples)
    reference, _ = network(images.held_out.images)
    stream = np.random.default_rng(0)
    some = samples[stream.permutation(count)[:NEAREST_COUNT]]
    held_out = images.held_out.images[
        np.sort(stream.permutation(len(images.held_out))[:NEAREST_COUNT])
    ]
    to_sample = nearest_distances(some, images.train.images)
    to_held_out = nearest_distances(held_out, images.train.images)
    return {
        "frechet_distance": found.frechet_distance,
        "floor": found.floor,
        "distance_over_floor": found.frechet_distance / found.floor,
        "class_coverage": found.class_coverage,
        "label_agreement": found.label_agreement,
        **manifold_scores(reference, features),
        "nearest_training_image": float(np.median(to_sample) / np.median(to_held_out)),
        "card": found.card.line,
    }


def manifold_scores(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage of equal numbers of features.

    Args:
        real: Shape (n, d).
        generated: Shape (m, d).
    """
    count = min(len(real), len(generated))
    stream = np.random.default_rng(0)
    a = torch.from_numpy(real[stream.permutation(len(real))[:count]])
    b = torch.from_numpy(generated[stream.permutation(len(generated))[:count]])
    real_radii, generated_radii = _radii(a), _radii(b)
    inside_real = torch.zeros(count)  # for each generated one, in how many real balls it lies
    covered = torch.zeros(count, dtype=torch.bool)  # for each real one, whether its ball has any
    recalled = torch.zeros(count, dtype=torch.bool)
    for part in torch.arange(count).split(CHUNK):
        distances = torch.cdist(a[part], b)
        inside = distances <= real_radii[part, None]
        inside_real += inside.sum(0)
        covered[part] = inside.any(1)
        recalled[part] = (distances <= generated_radii[None]).any(1)
    return {
        "precision": (inside_real > 0).double().mean().item(),
        "recall": recalled.double().mean().item(),
        "density": inside_real.double().mean().item() / NEIGHBOURS,
        "coverage": covered.double().mean().item(),
    }


def _radii(points: torch.Tensor) -> torch.Tensor:
    """Distance of each point to its k-th neighbour."""
    return torch.cat(
        [
            torch.cdist(part, points).kthvalue(NEIGHBOURS + 1, dim=1).values
            for part in points.split(CHUNK)
        ]
    )


def nearest_distances(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Pixel distance of each image to the nearest training image, shape (n,).

    Args:
        images: uint8, shape (n, height, width, channels).
        training: The same, for m images.
    """
    flat = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32))
    least = torch.full((len(flat),), torch.inf)
    for start in range(0, len(training), 10 * CHUNK):
        part = training[start : start + 10 * CHUNK]
        others = torch.from_numpy(part.reshape(len(part), -1).astype(np.float32))
        for rows in torch.arange(len(flat)).split(CHUNK):
            least[rows] = torch.minimum(least[rows], torch.cdist(flat[rows], others).amin(1))
    return least.numpy()
