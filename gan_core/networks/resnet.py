"""Residual networks without normalisation, kept trainable at any depth by fix-up initialisation.

Zhang, Dauphin and Ma 2019, "Fixup Initialization: Residual Learning Without Normalization".
What is not normalised wants smaller steps: on the digits, Adam at 2e-3 ends in constant images,
while 5e-4 and 1e-3 learn.

Conditioning is as in `dcgan`: a label embedding that is added to the latents, and a projection
discriminator (Miyato and Koyama 2018).
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .convolution import Conv2d
from .pixels import MeanOverPixels
from .players import Discriminator, Generator

SLOPE = 0.2  # of leaky ReLUs for negative inputs, as in DCGAN's discriminator


class ResidualBlock(nn.Module):
    """Adds to its input a branch of two activations and convolutions, which begins as zero.

    Args:
        channels: Feature maps of the input and the output.
        branches: Residual branches of the whole network (L in the paper).
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.first = Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.last = Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        # Scalars before each activation and each convolution.
        self.biases = nn.Parameter(torch.zeros(4))
        self.multiplier = nn.Parameter(torch.ones(()))
        initialise(self.first, SLOPE)
        with torch.no_grad():
            # With m = 2 convolutions a branch, L^(-1/(2m - 2)).
            self.first.weight.mul_(branches**-0.5)
        nn.init.zeros_(self.last.weight)

    def begin_by_multiplier(self) -> None:
        """Let the multiplier begin as zero instead of the last convolution.

        Spectral normalisation divides by the size of a kernel, so that none may be zero.
        """
        initialise(self.last, SLOPE)
        nn.init.zeros_(self.multiplier)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the same shape, (n, channels, height, width)."""
        # Zero-dimensional biases leave bf16 features in bf16.
        before_activation, before_first, between, before_last = self.biases.unbind()
        branch = F.leaky_relu(features + before_activation, SLOPE) + before_first
        branch = F.leaky_relu(self.first(branch) + between, SLOPE) + before_last
        return features + self.multiplier * self.last(branch)


class ResnetGenerator(Generator):
    """Maps latents to images.

    Args:
        latent_dim: Length of a latent vector.
        channels: Feature maps from the coarsest resolution to the finest; each step doubles it.
        blocks_per_resolution: Residual blocks at each resolution.
        shape: Height and width in pixels (multiples of 2^(steps - 1)), and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: tuple[int, ...],
        blocks_per_resolution: int,
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        super().__init__(latent_dim, channels, shape, classes)
        initialise(self.project)
        branches = blocks_per_resolution * len(channels)
        layers: list[nn.Module] = residual_blocks(channels[0], blocks_per_resolution, branches)
        for coarse, fine in itertools.pairwise(channels):
            # Nearest, because the gradient of bilinear resampling is not reproducible on a GPU.
            layers += [*change_of_channels(coarse, fine), nn.Upsample(scale_factor=2)]
            layers += residual_blocks(fine, blocks_per_resolution, branches)
        to_image = Conv2d(channels[-1], shape[2], kernel_size=3, padding=1)
        initialise(to_image, SLOPE)
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(SLOPE), to_image, nn.Tanh())


class ResnetDiscriminator(Discriminator):
    """Maps images to the logit of the probability that they are real.

    Args:
        channels: Feature maps from the finest resolution to the coarsest; each step but the last
            halves it.
        blocks_per_resolution: Residual blocks at each resolution.
        shape: Height and width in pixels, and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        blocks_per_resolution: int,
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        branches = blocks_per_resolution * len(channels)
        from_image = Conv2d(shape[2], channels[0], kernel_size=3, padding=1)
        initialise(from_image)
        layers = [from_image, *residual_blocks(channels[0], blocks_per_resolution, branches)]
        for fine, coarse in itertools.pairwise(channels):
            layers += [nn.AvgPool2d(2), *change_of_channels(fine, coarse)]
            layers += residual_blocks(coarse, blocks_per_resolution, branches)
        layers += [nn.LeakyReLU(SLOPE), MeanOverPixels()]
        super().__init__(layers, channels[-1], classes)
        initialise(self.score)
        if self.embedding is not None:
            # As large a part of the logit as the score.
            nn.init.normal_(self.embedding.weight, std=channels[-1] ** -0.5)


def residual_blocks(channels: int, count: int, branches: int) -> list[nn.Module]:
    """Blocks one after another; `branches` are those of the whole network."""
    return [ResidualBlock(channels, branches) for _ in range(count)]


def change_of_channels(before: int, after: int) -> list[nn.Module]:
    """A 1x1 convolution where the number of channels changes, else nothing."""
    if before == after:
        return []
    layer = Conv2d(before, after, kernel_size=1)
    initialise(layer)
    return [layer]


def initialise(layer: nn.Conv2d | nn.Linear, slope: float = 1.0) -> None:
    """Weights that keep the mean square of their input (He et al. 2015), and biases of zero.

    Args:
        layer: Is initialised in place.
        slope: For negative inputs, of the leaky ReLU before the layer; 1 where there is none.
    """
    nn.init.kaiming_normal_(layer.weight, a=slope)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
