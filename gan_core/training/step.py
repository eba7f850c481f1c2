"""One step of the adversarial game, and the average of the generator's weights beside it."""

import torch
from torch import nn

from gan_core.config import TrainingSettings
from gan_core.losses import GENERATOR_LOSSES, discriminator_loss, r1_penalty

# What a step reports, in this order.
SCALARS = (
    "discriminator_loss",
    "generator_loss",
    "r1_penalty",
    "real_probability",
    "fake_probability",
)


class AdversarialGame:
    """The two players and their rules.

    Args:
        generator: Maps (latents, labels) to images.
        discriminator: Maps (images, labels) to logits.
        settings: Loss, penalty and optimisers.
        precision: `bf16` runs the networks in autocast; losses, weights and optimisers are fp32.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: TrainingSettings,
        precision: str,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self._generator_loss = GENERATOR_LOSSES[settings.loss]
        self._r1_gamma = settings.r1_gamma
        self._bf16 = precision == "bf16"
        self._device_type = next(generator.parameters()).device.type
        self.generator_optimizer = torch.optim.Adam(
            generator.parameters(),
            lr=settings.generator_learning_rate,
            betas=settings.adam_betas,
            fused=True,
        )
        self.discriminator_optimizer = torch.optim.Adam(
            discriminator.parameters(),
            lr=settings.discriminator_learning_rate,
            betas=settings.adam_betas,
            fused=True,
        )

    def set_learning_rates(self, generator: float, discriminator: float) -> None:
        """Set the step sizes of the next steps."""
        self.generator_optimizer.param_groups[0]["lr"] = generator
        self.discriminator_optimizer.param_groups[0]["lr"] = discriminator

    def step(self, real: torch.Tensor, labels: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Update the discriminator, then the generator, on one batch of images generated once.

        Args:
            real: float, shape (n, channels, height, width), from -1 to 1.
            labels: int64, shape (n,); the generated images have the same classes.
            latents: float, shape (n, latent_dim).

        Returns:
            The values of `SCALARS`, shape (5,), on the device: nothing here waits for them.
        """
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._bf16):
            fake = self.generator(latents, labels)
            real.requires_grad_(self._r1_gamma > 0)
            real_logits = self.discriminator(real, labels)
            fake_logits = self.discriminator(fake.detach(), labels)
        judged = discriminator_loss(real_logits.float(), fake_logits.float())
        penalty = r1_penalty(real, real_logits) if self._r1_gamma else torch.zeros_like(judged)
        self.discriminator_optimizer.zero_grad()
        (judged + 0.5 * self._r1_gamma * penalty).backward()
        self.discriminator_optimizer.step()

        # The generator's gradient passes through the discriminator but is not wanted there.
        self.discriminator.requires_grad_(False)
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._bf16):
            logits = self.discriminator(fake, labels)
        generator_loss = self._generator_loss(logits.float())
        self.generator_optimizer.zero_grad()
        generator_loss.backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)

        return torch.stack(
            [
                judged.detach(),
                generator_loss.detach(),
                penalty.detach(),
                real_logits.detach().float().sigmoid().mean(),
                fake_logits.detach().float().sigmoid().mean(),
            ]
        )


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move an average of weights and statistics towards a module: a := decay a + (1 - decay) m."""
    source = module.state_dict()
    floats, targets = [], []
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            targets.append(value)
            floats.append(source[name])
        else:
            value.copy_(source[name])
    torch._foreach_lerp_(targets, floats, 1.0 - decay)


def ema_decay(images_shown: int, batch_size: int, halflife_kimg: float) -> float:
    """Decay of the weight average for one batch (Karras et al. 2020, EMA with ramp-up).

    The half-life is at most a twentieth of the images shown, so that the first weights are soon
    forgotten. A half-life of 0 gives 0: no average.
    """
    halflife_images = min(halflife_kimg * 1000, images_shown / 20)
    return 0.5 ** (batch_size / halflife_images) if halflife_images > 0 else 0.0


def learning_rate_factor(images_shown: int, total_images: int, decay_start: float) -> float:
    """1 until the share `decay_start` of the budget, then linearly to 0 at its end."""
    share = images_shown / total_images
    return 1.0 if share <= decay_start else (1.0 - share) / (1.0 - decay_start)
