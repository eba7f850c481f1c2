"""What needs no network: nearest training images, differences between samples, broken pixels."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

SEED = 0
CHUNK_VALUES = 2**22  # pixels times channels looked at at once as fp32: 16 MB
SEARCH_CHUNK = 2000
FEW = 64  # images looked at at once, where each pixel takes many bytes
POOLED_SIDE = 14
CANDIDATES = 5


@dataclass(frozen=True)
class Neighbours:
    """The nearest training image of each image.

    Attributes:
        distances: Euclidean, over pixels from 0 to 255, shape (n,).
        rows: Which training image it is, int64, shape (n,).
    """

    distances: np.ndarray
    rows: np.ndarray


def pooled(images: np.ndarray) -> np.ndarray:
    """Images averaged down to at most `POOLED_SIDE` pixels a side, uint8, shape (n, values)."""
    sides = (min(images.shape[1], POOLED_SIDE), min(images.shape[2], POOLED_SIDE))
    chunk = _images_at_once(images)
    parts = [
        F.adaptive_avg_pool2d(
            torch.from_numpy(np.asarray(images[start : start + chunk], np.float32)).permute(
                0, 3, 1, 2
            ),
            sides,
        )
        .round()
        .to(torch.uint8)
        .flatten(1)
        for start in range(0, len(images), chunk)
    ]
    return torch.cat(parts).numpy()


def _images_at_once(images: np.ndarray) -> int:
    return max(1, CHUNK_VALUES // max(1, int(np.prod(images.shape[1:]))))


def nearest_images(
    images: np.ndarray, training: np.ndarray, pooled_training: np.ndarray
) -> Neighbours:
    """Find each image's nearest training image among the `CANDIDATES` nearest when pooled.

    A copy is the nearest in both; for what is no copy the distance may be a little above the true
    one, for samples and held-out images alike.

    Args:
        images: uint8, shape (n, height, width, channels).
        training: The same, for m images; read where it is needed.
        pooled_training: `pooled` of them.
    """
    flat = torch.from_numpy(pooled(images)).float()
    count = min(CANDIDATES, len(training))
    least = torch.full((len(flat), count), torch.inf)
    rows = torch.zeros((len(flat), count), dtype=torch.int64)
    for start in range(0, len(training), SEARCH_CHUNK):
        others = torch.from_numpy(pooled_training[start : start + SEARCH_CHUNK]).float()
        # Half the squared distance, without the norm that all of a row share.
        scores = torch.addmm(others.square().sum(1) / 2, flat, others.T, alpha=-1)
        scores, near = scores.topk(min(count, len(others)), largest=False)
        least, order = torch.cat([least, scores], dim=1).topk(count, largest=False)
        rows = torch.cat([rows, near + start], dim=1).gather(1, order)
    chunk = _images_at_once(images)
    parts = []
    for start in range(0, len(images), chunk):
        own = torch.from_numpy(np.array(images[start : start + chunk], np.float32)).flatten(1)
        columns = rows[start : start + chunk].T.numpy()
        found = (torch.from_numpy(np.array(training[column], np.float32)) for column in columns)
        squares = [(other.flatten(1) - own).square_().sum(1) for other in found]
        parts.append(torch.stack(squares, dim=1))
    exact = torch.cat(parts)
    nearest, best = exact.min(1)
    return Neighbours(
        nearest.double().sqrt().numpy(), rows.gather(1, best[:, None]).squeeze(1).numpy()
    )


def pairwise_distances(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Differences between images of the same class, or between any where there are no labels.

    Each image is compared with another one of its class, in a fixed random order: in files' order,
    those beside each other may be frames of one film.

    Args:
        images: uint8, shape (n, height, width, channels).
        labels: int64, shape (n,).

    Returns:
        The root mean square difference of the pixels of each pair, from 0 to 1; fewer than n.
    """
    order = np.random.default_rng(SEED).permutation(len(images))
    groups = [order]
    if labels is not None:
        groups = [order[labels[order] == label] for label in np.unique(labels)]
    found = [np.zeros(0, np.float32)]
    for rows in groups:
        for start in range(0, len(rows) - 1, FEW):
            some = images[rows[start : start + FEW + 1]]  # the next chunk's first, too
            flat = some.reshape(len(some), -1).astype(np.float32) / 255.0
            found.append(np.sqrt(np.square(np.diff(flat, axis=0)).mean(axis=1)))
    return np.concatenate(found)


def pairwise_distance(images: np.ndarray, labels: np.ndarray | None) -> float:
    """The mean of `pairwise_distances`; 0 where there is no pair."""
    distances = pairwise_distances(images, labels)
    return float(distances.mean()) if len(distances) else 0.0


def contrast(images: np.ndarray) -> float:
    """Standard deviation of the pixels of all images, uint8, from 0 to 127.5."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(images), FEW):  # bincount takes eight bytes for each pixel
        some = np.asarray(images[start : start + FEW])
        counts += np.bincount(some.ravel(), minlength=256)
    values = np.arange(256)
    mean = counts @ values / counts.sum()
    return float(np.sqrt(counts @ np.square(values - mean) / counts.sum()))


def constant_share(images: np.ndarray) -> float:
    """Share of the images, uint8, shape (n, height, width, channels), that have one colour."""
    least = images.min(axis=(1, 2))
    most = images.max(axis=(1, 2))
    return float((least == most).all(axis=-1).mean())
