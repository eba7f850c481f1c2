"""Generators and discriminators, one family a file."""

from torch import nn

from ..config import NetworkSettings
from .dcgan import DcganDiscriminator, DcganGenerator

__all__ = ["build_discriminator", "build_generator"]

Shape = tuple[int, int, int]

GENERATORS = {"dcgan": DcganGenerator}
DISCRIMINATORS = {"dcgan": DcganDiscriminator}


def build_generator(settings: NetworkSettings, shape: Shape, classes: int) -> nn.Module:
    """The generator that the settings describe, freshly initialised.

    Args:
        settings: Family, latent size and channels.
        shape: Height and width in pixels, and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """
    return GENERATORS[settings.family](
        settings.latent_dim, settings.generator_channels, shape, classes
    )


def build_discriminator(settings: NetworkSettings, shape: Shape, classes: int) -> nn.Module:
    """The discriminator that the settings describe; arguments as for `build_generator`."""
    return DISCRIMINATORS[settings.family](settings.discriminator_channels, shape, classes)
