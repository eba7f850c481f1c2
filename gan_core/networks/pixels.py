"""Layers that read an image's features pixel after pixel, as `channels_last` keeps them in memory.

PyTorch's own give the same numbers, but hand back gradients in which whole channels lie side by
side, and the layer before them is slow where one of its inputs lies so and the other does not.
"""

import torch
from torch import nn


class FlattenPixels(nn.Module):
    """Maps (n, channels, height, width) to (n, height x width x channels), pixel after pixel.

    Where pixels lie side by side in memory this is a view; nn.Flatten would copy there.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Flatten."""
        return features.permute(0, 2, 3, 1).flatten(1)


class MeanOverPixels(nn.Module):
    """Maps (n, channels, height, width) to (n, channels), the mean over the image."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Average."""
        return features.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
