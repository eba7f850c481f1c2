"""A prepared set of images on disk: one memory-mapped uint8 array, labels, and `dataset.json`.

Reading only; `preparation` writes it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.errors import FoundryError

IMAGES_FILE = "images.npy"
LABELS_FILE = "labels.npy"
DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class ImageSplit:
    """Part of an image set.

    Attributes:
        images: uint8, shape (count, height, width, channels), memory-mapped.
        labels: int64, shape (count,); all -1 for a set without labels.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageSet:
    """A prepared image set; the training images come first, the held-out ones last.

    Attributes:
        description: The content of `dataset.json`.
    """

    train: ImageSplit
    held_out: ImageSplit
    class_names: tuple[str, ...]
    sha256: str
    description: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height and width in pixels, and channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)


def open_image_set(folder: Path) -> ImageSet:
    """Open a prepared set; images are read from disk when they are used.

    Raises:
        FoundryError: The folder holds none.
    """
    if not (folder / DESCRIPTION_FILE).exists():
        raise FoundryError(f"{folder} holds no prepared images; materialize training_images again.")
    description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    images = np.load(folder / IMAGES_FILE, mmap_mode="r")
    labels = np.load(folder / LABELS_FILE)
    cut = description["counts"]["train"]
    return ImageSet(
        train=ImageSplit(images[:cut], labels[:cut]),
        held_out=ImageSplit(images[cut:], labels[cut:]),
        class_names=tuple(description["class_names"]),
        sha256=description["sha256"],
        description=description,
    )
