"""Images that somebody made, brought to a pipeline's size: a folder, a zip or an `.npz` archive."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from gan_core.config import DataSettings
from gan_core.data.fitting import fit_image
from gan_core.data.sources import DECODE_ERRORS, ImageFolder
from gan_core.errors import FoundryError

ARCHIVE_ERRORS = (
    *(OSError, EOFError, KeyError, TypeError, ValueError),  # TypeError: a single array, an `.npy`
    *(zipfile.BadZipFile, zlib.error),
)


def read_images(
    place: Path, settings: DataSettings, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """All images of a place, fitted as the pipeline fits its own.

    Args:
        place: A folder or zip of PNG, JPEG or WebP files, in class folders or not; or an `.npz`
            with uint8 `images` of shape (n, height, width, channels) and perhaps `labels`.
        settings: The pipeline's data settings.
        class_names: The pipeline's classes; folders with other names tell nothing.

    Returns:
        uint8, shape (n, height, width, channels), and labels, int64, shape (n,), or None.

    Raises:
        FoundryError: The place holds no images, or something that cannot be read.
    """
    if place.suffix == ".npz":
        return _read_archive(place, settings, len(class_names))
    own = settings.model_copy(
        update={"source": "image_folder", "path": str(place), "archive": None, "sha256": None}
    )
    try:
        source = ImageFolder(own, place)
        names = source.class_names
        images, labels = [], []
        for image in source:
            try:
                images.append(fit_image(image.decode(), settings))
            except DECODE_ERRORS as error:
                raise FoundryError(
                    f"the image {image.name} in {place} cannot be read ({error}); remove it."
                ) from None
            labels.append(image.label)
    except FoundryError as error:
        raise FoundryError(str(error).replace("data.path ", "")) from None
    if not names or not set(names) <= set(class_names):
        return np.stack(images), None
    numbers = [class_names.index(name) for name in names]
    return np.stack(images), np.array([numbers[label or 0] for label in labels], np.int64)


def _read_archive(
    place: Path, settings: DataSettings, classes: int
) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(place) as archive:
            images = archive["images"]
            labels = archive.get("labels")
    except FileNotFoundError:
        raise FoundryError(f"{place} does not exist; give a folder, a zip or an .npz.") from None
    except ARCHIVE_ERRORS as error:
        raise FoundryError(
            f"{place} cannot be read ({error}); it needs an array `images`, uint8, of shape "
            "(n, height, width, channels)."
        ) from None
    if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[-1] <= 4:
        raise FoundryError(
            f"`images` in {place} have type {images.dtype} and shape {images.shape}, but must be "
            "uint8 of shape (n, height, width, channels), with 1 to 4 channels."
        )
    if not images.size:
        raise FoundryError(
            f"`images` in {place} have shape {images.shape}, which is no image; give at least one."
        )
    if labels is not None and labels.dtype.kind not in "iu":
        raise FoundryError(
            f"`labels` in {place} have type {labels.dtype}, but must be integers; leave them out "
            "if the images have none."
        )
    if images.shape[1:] != (settings.height, settings.width, settings.channels):
        grey = images.shape[-1] == 1
        pictures = images[..., 0] if grey else images
        images = np.stack([fit_image(PIL.Image.fromarray(image), settings) for image in pictures])
    known = labels is not None and labels.shape == (len(images),) and classes
    if not known or labels is None or labels.min() < 0 or labels.max() >= classes:
        return images, None
    return images, labels.astype(np.int64)
