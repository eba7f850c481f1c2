"""Generators and discriminators, one family a file."""

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ..config import NetworkSettings
from .dcgan import DcganDiscriminator, DcganGenerator
from .resnet import ResidualBlock, ResnetDiscriminator, ResnetGenerator

__all__ = ["build_discriminator", "build_generator"]

Shape = tuple[int, int, int]


def build_generator(settings: NetworkSettings, shape: Shape, classes: int) -> nn.Module:
    """The generator that the settings describe, freshly initialised.

    Args:
        settings: Family, latent size, channels and depth.
        shape: Height and width in pixels, and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """
    latent_dim, channels = settings.latent_dim, settings.generator_channels
    if settings.family == "resnet":
        return ResnetGenerator(latent_dim, channels, settings.blocks_per_resolution, shape, classes)
    return DcganGenerator(latent_dim, channels, shape, classes)


def build_discriminator(settings: NetworkSettings, shape: Shape, classes: int) -> nn.Module:
    """The discriminator that the settings describe; arguments as for `build_generator`."""
    channels = settings.discriminator_channels
    discriminator: nn.Module
    if settings.family == "resnet":
        discriminator = ResnetDiscriminator(
            channels, settings.blocks_per_resolution, shape, classes
        )
    else:
        discriminator = DcganDiscriminator(channels, shape, classes, settings.discriminator_head)
    if settings.spectral_norm:
        normalise_spectrally(discriminator)
    return discriminator


def normalise_spectrally(discriminator: nn.Module) -> None:
    """Divide every kernel and matrix by its largest singular value (Miyato et al. 2018), in place.

    The value is estimated by a step of power iteration in each pass in training mode.
    """
    for module in list(discriminator.modules()):
        if isinstance(module, ResidualBlock):
            module.begin_by_multiplier()
    for module in list(discriminator.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            spectral_norm(module)
