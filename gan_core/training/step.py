"""One step of the adversarial game, and the average of the generator's weights beside it."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from gan_core.losses import LOSSES, mixtures, squared_slopes, wgan_gp_penalty
from gan_core.optimizer import Adam
from gan_core.training.augmentation import Augmentation
from gan_core.training.processes import ALONE, Processes, without_averaging
from gan_core.training_settings import TrainingSettings

# What a step reports, in this order.
SCALARS = (
    "discriminator_loss",
    "generator_loss",
    "r1_penalty",
    "r2_penalty",
    "wgan_gp_penalty",
    "real_probability",
    "fake_probability",
    "discriminator_accuracy",
    "real_sign",
)


@dataclass(frozen=True)
class Batch:
    """All that a step reads that changes from step to step; every tensor has n rows.

    Attributes:
        real: float, shape (n, channels, height, width), from -1 to 1.
        labels: int64, shape (n,); the generated images have the same classes.
        latents: float, shape (n, latent_dim).
        uniforms: float, shape (n, `AdversarialGame.uniforms`), from 0 to 1: the random numbers of
            flips, mixtures and augmentation.
    """

    real: torch.Tensor
    labels: torch.Tensor
    latents: torch.Tensor
    uniforms: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, in the order of the attributes."""
        return self.real, self.labels, self.latents, self.uniforms

    def parts(self, count: int) -> list[Self]:
        """The batch in equal parts."""
        if count == 1:
            return [self]
        columns = zip(*(tensor.chunk(count) for tensor in self.tensors), strict=True)
        return [type(self)(*tensors) for tensors in columns]


class AdversarialGame:
    """The two players and their rules.

    Args:
        generator: Maps (latents, labels) to images.
        discriminator: Maps (images, labels) to logits.
        settings: Loss, penalties, augmentation and optimisers.
        precision: `bf16` runs the networks in autocast; losses, weights and optimisers are fp32.
        processes: Who plays on other parts of the same batch.

    Attributes:
        uniforms: How many random numbers an image needs.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: TrainingSettings,
        precision: str,
        processes: Processes = ALONE,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self._playing_generator = processes.wrap(generator)
        self._playing_discriminator = processes.wrap(discriminator)
        self._settings = settings
        self._loss = LOSSES[settings.loss]
        self._augment = Augmentation(
            settings.augmentation.transforms, settings.augmentation.affine_magnitude
        )
        self.uniforms = 2 + 3 * self._augment.uniforms
        self._bf16 = precision == "bf16"
        self._alone = processes.count == 1
        device = next(generator.parameters()).device
        self._device_type = device.type
        self.generator_optimizer = self._adam(generator, settings.generator_learning_rate)
        self.discriminator_optimizer = self._adam(
            discriminator, settings.discriminator_learning_rate
        )

    def _adam(self, module: nn.Module, rate: float) -> Adam:
        # On a GPU the rate is a tensor, so that a captured step can be told another one.
        on_gpu = self._device_type == "cuda"
        return Adam(
            module.parameters(),
            lr=torch.tensor(rate, device="cuda") if on_gpu else rate,
            betas=self._settings.adam_betas,
            fused=True,
            capturable=on_gpu,
        )

    def set_learning_rates(self, generator: float, discriminator: float) -> None:
        """Set the step sizes of the next steps."""
        for optimizer, rate in (
            (self.generator_optimizer, generator),
            (self.discriminator_optimizer, discriminator),
        ):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(
        self,
        batch: Batch,
        probability: torch.Tensor,
        *,
        with_penalty: bool = True,
        with_generator: bool = True,
    ) -> torch.Tensor:
        """Update the discriminator, then the generator.

        Args:
            batch: Images, labels, latents and random numbers.
            probability: Of each augmentation, shape ().
            with_penalty: Whether this step takes the gradient penalties.
            with_generator: Whether the generator learns in this step.

        Returns:
            The values of `SCALARS`, on the device: nothing here waits for them. What only some
            steps have is scaled up, so that the mean over many steps is right.
        """
        parts = batch.parts(self._settings.accumulation_steps)
        # A batch in one part is generated once, for both updates.
        fakes: list[torch.Tensor] = []
        reports = []

        self.discriminator_optimizer.zero_grad()
        for index, part in enumerate(parts):
            with torch.set_grad_enabled(with_generator and len(parts) == 1):
                fakes.append(self._generate(part))
            last = index == len(parts) - 1
            with without_averaging(self._playing_discriminator, averaging=last):
                loss, report = self._discriminator_loss(
                    part, fakes[-1].detach(), probability, with_penalty=with_penalty
                )
                self._learn(self.discriminator, loss / len(parts))
            reports.append(report)
        self.discriminator_optimizer.step()

        generator_loss = torch.zeros_like(reports[0][0])
        if with_generator:
            # The generator's gradient passes through the discriminator but is not wanted there.
            self.discriminator.requires_grad_(False)
            self.generator_optimizer.zero_grad()
            for index, part in enumerate(parts):
                last = index == len(parts) - 1
                with without_averaging(self._playing_generator, averaging=last):
                    fake = fakes[0] if len(parts) == 1 else self._generate(part)
                    loss = self._generator_loss(part, fake, probability) / len(parts)
                    self._learn(self.generator, loss)
                generator_loss = generator_loss + loss.detach()
            self.generator_optimizer.step()
            self.discriminator.requires_grad_(True)

        scalars = torch.stack(reports).mean(dim=0)
        scaled = generator_loss * self._settings.discriminator_steps
        return torch.cat([scalars[:1], scaled[None], scalars[1:]])

    def _learn(self, player: nn.Module, loss: torch.Tensor) -> None:
        """Add the loss's gradient to that of the player's weights.

        Penalties make leaves of the images, whose own gradient nobody reads. Of several processes,
        gradients are only averaged if all are asked for.
        """
        loss.backward(inputs=list(player.parameters()) if self._alone else None)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device_type, torch.bfloat16, enabled=self._bf16)

    def _generate(self, part: Batch) -> torch.Tensor:
        # Without gradients there is nothing to average.
        generator = self._playing_generator if torch.is_grad_enabled() else self.generator
        with self._autocast():
            return generator(part.latents, part.labels)

    def _shown_real(self, part: Batch, probability: torch.Tensor) -> torch.Tensor:
        """The real images as the discriminator sees them."""
        real = part.real
        if self._settings.horizontal_flips:
            mirrored = part.uniforms[:, 0] < 0.5
            real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        return self._augment(real, self._augmentation_uniforms(part, 0), probability)

    def _shown_fake(
        self, fake: torch.Tensor, part: Batch, use: int, probability: torch.Tensor
    ) -> torch.Tensor:
        """Generated images as the discriminator sees them."""
        if self._settings.augmentation.images == "real":
            return fake
        return self._augment(fake, self._augmentation_uniforms(part, use), probability)

    def _augmentation_uniforms(self, part: Batch, use: int) -> torch.Tensor:
        """The random numbers of one of three uses: real, generated, generated for the generator."""
        start = 2 + use * self._augment.uniforms
        return part.uniforms[:, start : start + self._augment.uniforms]

    def _discriminator_loss(
        self, part: Batch, fake: torch.Tensor, probability: torch.Tensor, *, with_penalty: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss with its penalties, and the report without the generator's loss."""
        settings, judge = self._settings, self._playing_discriminator
        real = self._shown_real(part, probability).detach()
        fake = self._shown_fake(fake, part, 1, probability).detach()
        penalize_real = with_penalty and settings.r1_gamma > 0
        penalize_fake = with_penalty and settings.r2_gamma > 0
        # One pass over both is faster than two; but a penalty takes slopes at all of its images.
        if penalize_real == penalize_fake:
            passes = [(torch.cat([real, fake]), part.labels.repeat(2), penalize_real)]
        else:
            passes = [(real, part.labels, penalize_real), (fake, part.labels, penalize_fake)]
        logits, slopes = [], []
        for images, labels, penalize in passes:
            images.requires_grad_(penalize)
            with self._autocast():
                judgement = judge(images, labels)
            judgement = judgement.float()
            logits.append(judgement)
            slopes.append(
                squared_slopes(images, judgement) if penalize else torch.zeros_like(judgement)
            )
        real_logits, fake_logits = torch.cat(logits).chunk(2)
        loss = self._loss.discriminator(real_logits, fake_logits)
        judged = loss.detach()

        weight = float(settings.penalty_interval_steps)
        r1, r2 = (squares.mean() * weight for squares in torch.cat(slopes).chunk(2))
        wgan_gp = torch.zeros_like(judged)
        if penalize_real or penalize_fake:
            loss = loss + 0.5 * settings.r1_gamma * r1 + 0.5 * settings.r2_gamma * r2
        if with_penalty and settings.wgan_gp_weight:
            between = mixtures(real.detach(), fake.detach(), part.uniforms[:, 1]).requires_grad_()
            with self._autocast():
                judgement = judge(between, part.labels)
            wgan_gp = wgan_gp_penalty(between, judgement.float()) * weight
            loss = loss + settings.wgan_gp_weight * wgan_gp

        real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
        margins = self._loss.margins(real_logits, fake_logits)
        report = [
            judged,
            r1.detach(),
            r2.detach(),
            wgan_gp.detach(),
            real_logits.sigmoid().mean(),
            fake_logits.sigmoid().mean(),
            (torch.cat(margins) > 0).float().mean(),
            margins[0].sign().mean(),
        ]
        return loss, torch.stack(report)

    def _generator_loss(
        self, part: Batch, fake: torch.Tensor, probability: torch.Tensor
    ) -> torch.Tensor:
        shown = self._shown_fake(fake, part, 2, probability)
        real_logits = torch.zeros(len(shown), device=shown.device)
        with self._autocast():
            if self._loss.generator_reads_real:
                with torch.no_grad():
                    real = self._shown_real(part, probability)
                    real_logits = self.discriminator(real, part.labels).float()
            fake_logits = self.discriminator(shown, part.labels).float()
        return self._loss.generator(real_logits, fake_logits)


class WeightAverage:
    """The running average of a module's weights and statistics, in another module.

    Args:
        average: Holds the average.
        module: Learns.
    """

    def __init__(self, average: nn.Module, module: nn.Module) -> None:
        pairs = list(zip(average.state_dict().values(), module.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average a towards the module m: a := decay a + (1 - decay) m."""
        averages, values = zip(*self._floats, strict=True)
        torch._foreach_lerp_(averages, values, 1.0 - decay)
        for average, value in self._counters:
            average.copy_(value)


def ema_decay(
    images_shown: int, batch_size: int, halflife_kimg: float, rampup: float = 0.05
) -> float:
    """Decay of the weight average for one batch (Karras et al. 2020, EMA with ramp-up).

    The half-life is at most the share `rampup` of the images shown, so that the first weights are
    soon forgotten. A half-life of 0 gives 0: no average.
    """
    halflife_images = min(halflife_kimg * 1000, images_shown * rampup)
    return 0.5 ** (batch_size / halflife_images) if halflife_images > 0 else 0.0


def learning_rate_factor(
    images_shown: int, total_images: int, decay_start: float, warmup_kimg: float = 0.0
) -> float:
    """The schedule of both learning rates, from 0 to 1.

    It rises linearly over the warm-up, and falls linearly to 0 from the share `decay_start` of the
    budget to its end.
    """
    share = images_shown / total_images
    falling = 1.0 if share <= decay_start else (1.0 - share) / (1.0 - decay_start)
    rising = images_shown / (warmup_kimg * 1000) if warmup_kimg else 1.0
    return min(1.0, rising, falling)
