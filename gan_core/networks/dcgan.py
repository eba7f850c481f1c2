"""DCGAN (Radford et al. 2016): transposed convolutions against a convolutional classifier.

Conditioning is by a label embedding that is added to the latents, and by a projection
discriminator (Miyato and Koyama 2018).
"""

import itertools
from typing import Literal

from torch import nn

from .convolution import Conv2d, ConvTranspose2d
from .pixels import FlattenPixels, MeanOverPixels
from .players import Discriminator, Generator


class DcganGenerator(Generator):
    """Maps latents to images.

    Args:
        latent_dim: Length of a latent vector.
        channels: Feature maps from the coarsest resolution to the finest; each step doubles it.
        shape: Height and width in pixels (multiples of 2^(steps - 1)), and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: tuple[int, ...],
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        super().__init__(latent_dim, channels, shape, classes)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for coarse, fine in itertools.pairwise(channels):
            layers += [
                ConvTranspose2d(coarse, fine, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(fine),
                nn.ReLU(),
            ]
        layers += [Conv2d(channels[-1], shape[2], kernel_size=3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)


class DcganDiscriminator(Discriminator):
    """Maps images to the logit of the probability that they are real.

    After the convolutions, each of which sees a part of the image, one hidden layer sees all of it.
    With the mean over the image in its place, three convolutions judge patches of 18 pixels:
    strokes get right, digits do not.

    Args:
        channels: Feature maps from the finest resolution to the coarsest; each step but the last
            halves it.
        shape: Height and width in pixels, and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
        head: `hidden` or `mean`.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        shape: tuple[int, int, int],
        classes: int,
        head: Literal["hidden", "mean"] = "hidden",
    ) -> None:
        layers: list[nn.Module] = []
        previous = shape[2]
        for width in channels[:-1]:
            layers += [Conv2d(previous, width, kernel_size=4, stride=2, padding=1)]
            layers += [nn.LeakyReLU(0.2)]
            previous = width
        layers += [Conv2d(previous, channels[-1], kernel_size=3, padding=1), nn.LeakyReLU(0.2)]
        if head == "hidden":
            factor = 2 ** (len(channels) - 1)
            inputs = channels[-1] * (shape[0] // factor) * (shape[1] // factor)
            layers += [FlattenPixels(), nn.Linear(inputs, channels[-1]), nn.LeakyReLU(0.2)]
        else:
            layers += [MeanOverPixels()]
        super().__init__(layers, channels[-1], classes)
