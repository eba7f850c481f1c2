"""Differentiable changes to the images that the discriminator sees, and how often they are made.

Nothing here draws random numbers or waits for the device: they come in as tensors, so that a batch
can be divided, a training resumed to the same bits and a step recorded in a CUDA graph.
"""

from collections.abc import Callable, Mapping

import torch

from gan_core.training_settings import AugmentationSettings

BLACK = -1.0
MID_GREY = 0.0

TRANSLATION_SHARE_OF_SIDE = 1 / 8
CUTOUT_SHARE_OF_SIDE = 1 / 2
BRIGHTNESS_SHIFT = 0.5  # of values from -1 to 1
SATURATION_FACTORS = (0.0, 2.0)
CONTRAST_FACTORS = (0.5, 1.5)
AFFINE_ROTATION_DEGREES = 10.0
AFFINE_SCALE_OCTAVES = 0.15
AFFINE_SHEAR_DEGREES = 5.0
AFFINE_TRANSLATION_SHARE_OF_SIDE = 0.05

ADJUSTMENT_STEPS = 4  # as StyleGAN2-ADA does


def translation(images: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Move each image by whole pixels, at most an eighth of each side (Zhao et al. 2020).

    Args:
        images: float, shape (n, channels, height, width).
        uniforms: float from 0 to 1, shape (n, 2): for the way down and the way right.

    Returns:
        The moved images; the area that they left is black.
    """
    channels, height, width = images.shape[1:]
    rows, outside_rows = _sources(uniforms[:, 0], height)
    columns, outside_columns = _sources(uniforms[:, 1], width)
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    # Whole pixels side by side: no copy where the images are channels_last.
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
    moved = pixels.gather(1, places[:, :, None].expand(-1, -1, channels))
    moved = moved.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    outside = outside_rows[:, :, None] | outside_columns[:, None, :]
    return moved.masked_fill(outside[:, None], BLACK)


def _sources(uniforms: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which row (or column) moves to each, and which come from outside; shape (n, side)."""
    farthest = int(TRANSLATION_SHARE_OF_SIDE * side)
    shifts = _integers(uniforms, 2 * farthest + 1) - farthest
    sources = torch.arange(side, device=uniforms.device) - shifts[:, None]
    return sources.clamp(0, side - 1), (sources < 0) | (sources >= side)


def cutout(images: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Cover a rectangle of half of each side, anywhere and partly outside (Zhao et al. 2020).

    Args:
        images: float, shape (n, channels, height, width).
        uniforms: float from 0 to 1, shape (n, 2): for the place in height and in width.

    Returns:
        The images with mid-grey rectangles, as in the paper's code.
    """
    height, width = images.shape[2:]
    rows = _covered(uniforms[:, 0], height)
    columns = _covered(uniforms[:, 1], width)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], MID_GREY)


def _covered(uniforms: torch.Tensor, side: int) -> torch.Tensor:
    """Which rows (or columns) lie under the rectangle; bool, shape (n, side)."""
    size = int(CUTOUT_SHARE_OF_SIDE * side)
    # An even rectangle has its centre between pixels, of which there is one place more.
    starts = _integers(uniforms, side + 1 - size % 2) - size // 2
    distances = torch.arange(side, device=uniforms.device) - starts[:, None]
    return (distances >= 0) & (distances < size)


def color(images: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Change brightness, then saturation, then contrast (Zhao et al. 2020).

    A saturation of 0 is each pixel's mean colour; a contrast of 0 would be the image's. Values may
    leave the range from -1 to 1, as in the paper's code.

    Args:
        images: float, shape (n, channels, height, width). Alpha, the last of 2 or 4 channels, stays
            as it is; grey images have no saturation to change.
        uniforms: float from 0 to 1, shape (n, 3): for the three changes.

    Returns:
        The changed images.
    """
    # kornia's adjust_saturation_… and adjust_contrast_… clip to 0..1, which would stop gradients.
    count = 1 if images.shape[1] <= 2 else 3
    colors, alpha = images[:, :count], images[:, count:]
    brightness, saturation, contrast = uniforms[:, :, None, None, None].unbind(dim=1)
    colors = colors + BRIGHTNESS_SHIFT * (2 * brightness - 1)
    if count > 1:
        greys = colors.mean(dim=1, keepdim=True)
        colors = torch.lerp(greys, colors, _between(saturation, SATURATION_FACTORS))
    means = colors.mean(dim=(1, 2, 3), keepdim=True)
    colors = torch.lerp(means, colors, _between(contrast, CONTRAST_FACTORS))
    return torch.cat([colors, alpha], dim=1) if alpha.shape[1] else colors


def affine(images: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Shear, rotate and scale each image a little about its centre, then shift it.

    The geometric changes of ADA (Karras et al. 2020, appendix B) at a size that keeps objects in
    the image. Twice differentiable from torch 2.12 on.

    Args:
        images: float, shape (n, channels, height, width).
        uniforms: float from 0 to 1, shape (n, 6): for the angle clockwise, the scale, the two
            shears, the way right and the way down.

    Returns:
        The changed images, linearly interpolated; around them is black.
    """
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine

    height, width = images.shape[2:]
    angle, scale, shear_x, shear_y, right, down = (2 * uniforms - 1).unbind(dim=1)
    matrices = get_affine_matrix2d(
        translations=AFFINE_TRANSLATION_SHARE_OF_SIDE
        * torch.stack([right * width, down * height], dim=1),
        # Filled on the device: a tensor of Python numbers would be copied there, and waited for.
        center=torch.stack(
            [torch.full_like(angle, (width - 1) / 2), torch.full_like(angle, (height - 1) / 2)],
            dim=1,
        ),
        scale=torch.exp2(AFFINE_SCALE_OCTAVES * scale)[:, None].expand(-1, 2),
        angle=AFFINE_ROTATION_DEGREES * angle,
        sx=torch.deg2rad(AFFINE_SHEAR_DEGREES * shear_x),
        sy=torch.deg2rad(AFFINE_SHEAR_DEGREES * shear_y),
    )
    # What lies outside counts as 0, so black is moved there; kornia's fill would warp a mask too.
    # For aligned corners, which give the same places, torch would leave its own kernel for cuDNN's.
    warped = warp_affine(images - BLACK, matrices[:, :2], (height, width), align_corners=False)
    return warped + BLACK


def _integers(uniforms: torch.Tensor, count: int) -> torch.Tensor:
    """Whole numbers from 0 to count - 1, all as likely."""
    # The product of a number just below 1 may be rounded up.
    return (uniforms * count).long().clamp(max=count - 1)


def _between(uniforms: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniforms


# In the order in which they are applied, each with the random numbers that an image needs.
TRANSFORMS: dict[str, tuple[int, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "translation": (2, translation),
    "cutout": (2, cutout),
    "color": (3, color),
    "affine": (6, affine),
}


class Augmentation:
    """Differentiable augmentation of real and generated images alike (Zhao et al. 2020).

    Args:
        transforms: Names in `TRANSFORMS`. They are applied in the order of that table, whatever
            their order here.
        affine_magnitude: Share, 0 to 1, of the largest angles, scale and shifts of `affine`.

    Attributes:
        uniforms: Random numbers that an image needs; 0 without transforms.
    """

    def __init__(self, transforms: tuple[str, ...], affine_magnitude: float = 1.0) -> None:
        self._affine_magnitude = affine_magnitude
        order = list(TRANSFORMS)
        self._transforms = [TRANSFORMS[name] for name in sorted(transforms, key=order.index)]
        self.uniforms = sum(1 + numbers for numbers, _ in self._transforms)

    def __call__(
        self, images: torch.Tensor, uniforms: torch.Tensor, probability: torch.Tensor | float
    ) -> torch.Tensor:
        """Apply each transform to each image where its own random number is below the probability.

        Args:
            images: float, shape (n, channels, height, width), from -1 to 1, 1 to 4 channels. They
                are computed in fp32 at least, also in autocast.
            uniforms: float from 0 to below 1, shape (n, self.uniforms), on the same device: all
                that is random here. A row decides over its own image only.
            probability: From 0 to 1; a tensor has no dimensions.

        Returns:
            Shape, type and memory format of the images. An image to which nothing is applied has
            the same bits as before. Gradients flow to the images.
        """
        if not self._transforms:
            return images
        last = images.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            changed = images.to(torch.promote_types(images.dtype, torch.float32))
            used = 0
            for numbers, transform in self._transforms:
                applied = uniforms[:, used] < probability
                values = uniforms[:, used + 1 : used + 1 + numbers].to(changed.dtype)
                used += 1 + numbers
                if transform is affine:  # half is no change at all
                    values = torch.lerp(
                        torch.full_like(values, 0.5), values, self._affine_magnitude
                    )
                result = transform(changed, values)
                changed = torch.where(applied[:, None, None, None], result, changed)
        layout = torch.channels_last if last else torch.contiguous_format
        return changed.to(images.dtype).contiguous(memory_format=layout)


class AugmentationStrength:
    """The probability of each transform: fixed, or moved by ADA (Karras et al. 2020, section 3.1).

    ADA holds the discriminator's overfitting at a target: the mean sign of its outputs on the real
    images it sees, which nears 1 when it knows them by heart.

    Args:
        settings: With fixed strength, the probability is that of the settings and never moves.
        device: Where the state lies.

    Attributes:
        probability: fp32, no dimensions. Changed in place, so that a CUDA graph reads it anew.
    """

    def __init__(self, settings: AugmentationSettings, device: torch.device) -> None:
        self._adaptive = settings.strength == "adaptive"
        self._target = settings.target
        self._largest = settings.probability
        self._images_from_0_to_1 = settings.adjustment_kimg * 1000
        first = 0.0 if self._adaptive else settings.probability
        self.probability = torch.full((), first, dtype=torch.float32, device=device)
        # Its sign is that of the mean sign minus the target, without a count to divide by.
        self._excess = torch.zeros((), dtype=torch.float32, device=device)

    def after_step(self, signs_mean: torch.Tensor, step: int, batch_size: int) -> None:
        """Take note of a step, and adjust the probability after every `ADJUSTMENT_STEPS`.

        Args:
            signs_mean: float, no dimensions: the mean of sign(logit) over the real images of the
                whole batch, of all processes.
            step: Steps before this one, over all attempts of the training.
            batch_size: Real images of a step, in all processes.
        """
        self.observe(signs_mean)
        if (step + 1) % ADJUSTMENT_STEPS == 0:
            self.adjust(ADJUSTMENT_STEPS * batch_size)

    @torch.no_grad()
    def observe(self, signs_mean: torch.Tensor) -> None:
        """The first half of `after_step`, which a CUDA graph may contain."""
        if self._adaptive:
            self._excess += signs_mean - self._target

    @torch.no_grad()
    def adjust(self, images: int) -> None:
        """The second half of `after_step`: move the probability and start over.

        Args:
            images: Real images shown since the last adjustment.
        """
        if self._adaptive:
            self.probability += self._excess.sign() * (images / self._images_from_0_to_1)
            self.probability.clamp_(0.0, self._largest)
            self._excess.zero_()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state, for a checkpoint."""
        return {
            "augmentation/probability": self.probability,
            "augmentation/excess": self._excess,
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` took, from any device."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])
