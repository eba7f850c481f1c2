"""Adversarial losses and gradient penalties: pure functions of tensors.

A logit is the discriminator's output before the sigmoid; D(x) is its sigmoid. The losses that were
not written for probabilities take the logit as the critic's score.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Margins = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def logistic_discriminator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax_generator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """E[log(1 - D(G(z)))], which the generator minimises (Goodfellow et al. 2014, equation 1)."""
    return -F.softplus(fake_logits).mean()


def non_saturating_generator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3): strong gradients when D wins."""
    return F.softplus(-fake_logits).mean()


def hinge_discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim and Ye 2017)."""
    return F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean()


def least_squares_discriminator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2 (Mao et al. 2017, equation 9)."""
    return 0.5 * ((real_logits - 1.0).square().mean() + fake_logits.square().mean())


def least_squares_generator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, equation 9)."""
    return 0.5 * (fake_logits - 1.0).square().mean()


def wasserstein_discriminator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017)."""
    return fake_logits.mean() - real_logits.mean()


def critic_generator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))] (Arjovsky et al. 2017; with the hinge loss, Lim and Ye 2017)."""
    return -fake_logits.mean()


def relativistic_discriminator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """E[softplus(-(D(x) - D(G(z))))] over pairs (Jolicoeur-Martineau 2019, RpGAN)."""
    return F.softplus(fake_logits - real_logits).mean()


def relativistic_generator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """E[softplus(-(D(G(z)) - D(x)))] over pairs (Jolicoeur-Martineau 2019, RpGAN)."""
    return F.softplus(real_logits - fake_logits).mean()


def _from_zero(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return real_logits, -fake_logits


def _from_half(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return real_logits - 0.5, 0.5 - fake_logits


def _in_pairs(
    real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return real_logits - fake_logits, real_logits - fake_logits


@dataclass(frozen=True)
class AdversarialLoss:
    """One game: what each player minimises, as functions of (real_logits, fake_logits).

    Both take two tensors of shape (n,) and return a scalar.

    Attributes:
        discriminator: The discriminator's loss.
        generator: The generator's loss.
        margins: How far the discriminator is on the right side, for each real and each generated
            image; positive is right.
        generator_reads_real: Whether the generator's loss depends on the real logits.
    """

    discriminator: Loss
    generator: Loss
    margins: Margins = _from_zero
    generator_reads_real: bool = False


LOSSES: dict[str, AdversarialLoss] = {
    "non_saturating": AdversarialLoss(logistic_discriminator_loss, non_saturating_generator_loss),
    "minimax": AdversarialLoss(logistic_discriminator_loss, minimax_generator_loss),
    "hinge": AdversarialLoss(hinge_discriminator_loss, critic_generator_loss),
    "least_squares": AdversarialLoss(
        least_squares_discriminator_loss, least_squares_generator_loss, _from_half
    ),
    "wasserstein": AdversarialLoss(
        wasserstein_discriminator_loss, critic_generator_loss, _in_pairs
    ),
    "relativistic": AdversarialLoss(
        relativistic_discriminator_loss,
        relativistic_generator_loss,
        _in_pairs,
        generator_reads_real=True,
    ),
}


def squared_slopes(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """|grad_x logit(x)|^2 of each image; R1 is the mean at real images, R2 at generated ones.

    Mescheder et al. 2018, equation 9, without its factor gamma/2.

    Args:
        images: Shape (n, channels, height, width); requires gradients.
        logits: Shape (n,), computed from these images.

    Returns:
        Shape (n,); gradients flow through it to the discriminator.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    squares = gradient if gradient.dtype == torch.float64 else gradient.float()
    return squares.square().sum(dim=(1, 2, 3))


def wgan_gp_penalty(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """E[(|grad_x D(x)| - 1)^2] (Gulrajani et al. 2017, equation 3, without its factor lambda).

    Arguments as for `squared_slopes`, the images those of `mixtures`; the result is a scalar.
    """
    # The root has no finite slope at zero, where a fresh critic may well be flat.
    return ((squared_slopes(images, logits) + 1e-12).sqrt() - 1.0).square().mean()


def mixtures(real: torch.Tensor, fake: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Points between real and generated images: e x + (1 - e) G(z) (Gulrajani et al. 2017).

    Args:
        real: Shape (n, channels, height, width).
        fake: The same shape; of lower precision than the real ones where a network made it so.
        shares: e, shape (n,), from 0 to 1.
    """
    return torch.lerp(fake.to(real.dtype), real, shares[:, None, None, None].to(real.dtype))
