"""One picture, whatever its size and mode, brought to a pipeline's size and channels."""

import numpy as np
import PIL.Image
import PIL.ImageOps

from gan_core.config import DataSettings

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
RESAMPLING = PIL.Image.Resampling.LANCZOS


def fit_image(image: PIL.Image.Image, settings: DataSettings) -> np.ndarray:
    """Bring one picture to the settings' size and channels.

    Returns:
        uint8, shape (height, width, channels).
    """
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert(MODES[settings.channels])
    size = (settings.width, settings.height)
    if image.size != size:
        if settings.fit == "stretch":
            image = image.resize(size, RESAMPLING)
        elif settings.fit == "crop":
            image = PIL.ImageOps.fit(image, size, RESAMPLING)
        else:
            image = PIL.ImageOps.pad(image, size, RESAMPLING)
    return np.asarray(image, np.uint8).reshape(settings.height, settings.width, -1)
