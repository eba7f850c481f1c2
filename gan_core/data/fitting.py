"""One picture, whatever its size and mode, brought to a pipeline's size and channels."""

import numpy as np
import PIL.Image
import PIL.ImageOps

from gan_core.config import DataSettings

BACKGROUND = (0, 0, 0, 255)  # as `pad` fills up
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
RESAMPLING = PIL.Image.Resampling.LANCZOS


def fit_image(image: PIL.Image.Image, settings: DataSettings) -> np.ndarray:
    """Bring one picture to the settings' size and channels.

    Where these have no alpha, what is transparent shows black: the colour below it is whatever the
    program left there that wrote the file.

    Returns:
        uint8, shape (height, width, channels).
    """
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if settings.channels in (1, 3) and image.has_transparency_data:
        seen = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", seen.size, BACKGROUND), seen)
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
