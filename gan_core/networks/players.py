"""What the two families have in common: how latents come in, and how an image is judged."""

import torch
import torch.nn.functional as F
from torch import nn


class Generator(nn.Module):
    """Maps latents to images: a linear map to the coarsest resolution, then `layers`.

    Args:
        latent_dim: Length of a latent vector.
        channels: Feature maps from the coarsest resolution to the finest; each step doubles it.
        shape: Height and width in pixels (multiples of 2^(steps - 1)), and channels, of an image.
        classes: Number of classes to condition on; 0 for none.
    """

    layers: nn.Sequential

    def __init__(
        self,
        latent_dim: int,
        channels: tuple[int, ...],
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        super().__init__()
        factor = 2 ** (len(channels) - 1)
        height, width = shape[0] // factor, shape[1] // factor
        self.coarsest = (channels[0], height, width)
        self.embedding = nn.Embedding(classes, latent_dim) if classes else None
        self.project = nn.Linear(latent_dim, channels[0] * height * width)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Generate images.

        Args:
            latents: float, shape (n, latent_dim), standard normal.
            labels: int64, shape (n,); not read by an unconditional generator.

        Returns:
            float, shape (n, channels, height, width), from -1 to 1.
        """
        if self.embedding is not None:
            latents = latents + self.embedding(labels)
        features = self.project(latents).view(-1, *self.coarsest)
        return self.layers(features.contiguous(memory_format=torch.channels_last))


class Discriminator(nn.Module):
    """Maps images to the logit of the probability that they are real.

    With classes it is a projection discriminator (Miyato and Koyama 2018): the product of the
    features with the class's own vector is added to their score.

    Args:
        layers: Map images to features, shape (n, features).
        features: How many.
        classes: Number of classes to condition on; 0 for none.
    """

    def __init__(self, layers: list[nn.Module], features: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Judge images.

        Args:
            images: float, shape (n, channels, height, width), from -1 to 1.
            labels: int64, shape (n,); not read by an unconditional discriminator.

        Returns:
            Logits, float, shape (n,); their sigmoid is the probability of "real".
        """
        features = self.layers(images)
        logits = self.score(features).squeeze(1)
        if self.embedding is not None:
            logits = logits + (self.embedding(labels) * features).sum(dim=1)
        return logits

    @torch.no_grad()
    def probability(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Probability that each image is real, float, shape (n,), from 0 to 1."""
        return F.sigmoid(self(images, labels))
