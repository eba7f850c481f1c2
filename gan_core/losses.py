"""Adversarial losses and gradient penalties: pure functions of tensors.

A logit is the discriminator's output before the sigmoid; D(x) is its sigmoid.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1).

    Args:
        real_logits: Shape (n,).
        fake_logits: Shape (n,).

    Returns:
        A scalar.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax_generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """E[log(1 - D(G(z)))], which the generator minimises (Goodfellow et al. 2014, equation 1)."""
    return -F.softplus(fake_logits).mean()


def non_saturating_generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3): strong gradients when D wins."""
    return F.softplus(-fake_logits).mean()


GENERATOR_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "minimax": minimax_generator_loss,
    "non_saturating": non_saturating_generator_loss,
}


def r1_penalty(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """E[|grad_x logit(x)|^2] (Mescheder et al. 2018, equation 9, without its factor gamma/2).

    Args:
        images: Shape (n, channels, height, width); requires gradients.
        logits: Shape (n,), computed from these images.

    Returns:
        A scalar through which gradients flow to the discriminator.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
