"""What needs no network: nearest training images, differences between samples, broken pixels."""

from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 1000


@dataclass(frozen=True)
class Neighbours:
    """The nearest training image of each image.

    Attributes:
        distances: Euclidean, over pixels from 0 to 255, shape (n,).
        rows: Which training image it is, int64, shape (n,).
    """

    distances: np.ndarray
    rows: np.ndarray


def nearest_images(images: np.ndarray, training: np.ndarray) -> Neighbours:
    """Find each image's nearest training image.

    Args:
        images: uint8, shape (n, height, width, channels).
        training: The same, for m images; read in parts.
    """
    flat = _flat(images)
    least = torch.full((len(flat),), torch.inf)
    rows = torch.zeros(len(flat), dtype=torch.int64)
    for start in range(0, len(training), 10 * CHUNK):
        others = _flat(training[start : start + 10 * CHUNK])
        for chunk in torch.arange(len(flat)).split(CHUNK):
            distances, found = torch.cdist(flat[chunk], others).min(1)
            closer = distances < least[chunk]
            least[chunk] = torch.where(closer, distances, least[chunk])
            rows[chunk] = torch.where(closer, found + start, rows[chunk])
    # The matrix product rounds away what is left between an image and its copy.
    exact = [
        float(np.linalg.norm(image.astype(np.float64) - training[row]))
        for image, row in zip(images, rows.tolist(), strict=True)
    ]
    return Neighbours(np.array(exact), rows.numpy())


def _flat(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(images, np.float32).reshape(len(images), -1))


def pairwise_distances(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Differences between images of the same class, or between any where there are no labels.

    Each image is compared with the next one of its class.

    Args:
        images: uint8, shape (n, height, width, channels).
        labels: int64, shape (n,).

    Returns:
        The root mean square difference of the pixels of each pair, from 0 to 1; fewer than n.
    """
    flat = images.reshape(len(images), int(np.prod(images.shape[1:]))).astype(np.float32) / 255.0
    groups = [np.arange(len(flat))]
    if labels is not None:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    differences = [np.diff(flat[rows], axis=0) for rows in groups]
    return np.concatenate([np.sqrt(np.square(part).mean(axis=1)) for part in differences])


def pairwise_distance(images: np.ndarray, labels: np.ndarray | None) -> float:
    """The mean of `pairwise_distances`; 0 where there is no pair."""
    distances = pairwise_distances(images, labels)
    return float(distances.mean()) if len(distances) else 0.0


def constant_share(images: np.ndarray) -> float:
    """Share of the images, uint8, shape (n, height, width, channels), that have one colour."""
    least = images.min(axis=(1, 2))
    most = images.max(axis=(1, 2))
    return float((least == most).all(axis=-1).mean())
