"""From listed images to a prepared set: decode, fit to one size and mode, write as uint8.

Images pass one at a time, so memory does not grow with the set.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from gan_core.config import DataSettings
from gan_core.data.fitting import RESAMPLING, fit_image
from gan_core.data.hashing import file_sha256
from gan_core.data.image_set import (
    DESCRIPTION_FILE,
    IMAGES_FILE,
    LABELS_FILE,
    ImageSet,
    open_image_set,
)
from gan_core.data.manifest import open_raw_images
from gan_core.data.sources import HELD_OUT, TRAIN
from gan_core.errors import FoundryError


def prepare_images(raw_folder: Path, settings: DataSettings, folder: Path) -> ImageSet:
    """Write the prepared image set of a listed one.

    Args:
        raw_folder: Folder written by `manifest.list_images`.
        settings: Resolution, channels and how another aspect ratio is met.
        folder: Gets `images.npy`, `labels.npy` and `dataset.json`.

    Raises:
        FoundryError: An image changed after it was listed, or a label lies outside the classes.
    """
    raw, source = open_raw_images(raw_folder)
    manifest, counts = raw.manifest, raw.counts()
    labels = manifest["label"].to_numpy(np.int64)
    _check_labels(labels, raw.class_names, list(manifest["name"]))

    # Rows of the output: training images first, each split in the source's order.
    is_train = (manifest["split"] == TRAIN).to_numpy()
    row = np.where(is_train, np.cumsum(is_train), counts[TRAIN] + np.cumsum(~is_train)) - 1
    rows = dict(zip(manifest["name"], zip(row, manifest["sha256"], strict=True), strict=True))

    shape = (len(manifest), settings.height, settings.width, settings.channels)
    images = np.lib.format.open_memmap(folder / IMAGES_FILE, "w+", np.uint8, shape)
    _reserve_disk(folder / IMAGES_FILE)
    written = 0
    for image in source:
        if image.name not in rows:
            continue  # set aside when it was listed
        position, sha256 = rows[image.name]
        if image.sha256 != sha256:
            raise FoundryError(
                f"the image {image.name} changed after it was listed; materialize raw_images again."
            )
        images[position] = fit_image(image.decode(), settings)
        written += 1
    if written != len(rows):
        raise FoundryError(
            f"{len(rows) - written} of {len(rows)} listed images are gone; materialize raw_images "
            "again."
        )
    images.flush()
    del images

    ordered = np.empty_like(labels)
    ordered[row] = labels
    np.save(folder / LABELS_FILE, ordered)
    pixels_and_labels = file_sha256(folder / IMAGES_FILE, folder / LABELS_FILE)
    meaning = json.dumps([raw.class_names, counts])  # what the same arrays stand for
    description = {
        "source": settings.source,
        "raw_sha256": raw.sha256,
        "sha256": hashlib.sha256(f"{pixels_and_labels} {meaning}".encode()).hexdigest(),
        "height": settings.height,
        "width": settings.width,
        "channels": settings.channels,
        "fit": settings.fit,
        "resampling": f"Pillow {RESAMPLING.name.lower()}, rounded to 8 bits",
        "class_names": raw.class_names,
        "class_counts": [
            int(count)
            for count in np.bincount(
                labels[is_train & (labels >= 0)], minlength=len(raw.class_names)
            )
        ],
        "counts": {TRAIN: counts[TRAIN], HELD_OUT: counts[HELD_OUT]},
        "licence": raw.licence,
    }
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
    return open_image_set(folder)


def _reserve_disk(file: Path) -> None:
    """Take the file's whole length now: a full disk is then an OSError, and not a bus error."""
    with file.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)


def _check_labels(labels: np.ndarray, class_names: list[str], names: list[str]) -> None:
    lowest, highest = (0, len(class_names) - 1) if class_names else (-1, -1)
    outside = np.flatnonzero((labels < lowest) | (labels > highest))
    if len(outside):
        first = outside[0]
        raise FoundryError(
            f"the image {names[first]} has label {labels[first]}, but the labels of the "
            f"{len(class_names)} classes are {lowest} to {highest}; correct the manifest."
        )
