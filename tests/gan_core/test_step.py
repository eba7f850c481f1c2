import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_core.config import NetworkSettings, TrainingSettings
from gan_core.losses import discriminator_loss, r1_penalty
from gan_core.networks import build_discriminator, build_generator
from gan_core.training.step import (
    SCALARS,
    AdversarialGame,
    ema_decay,
    learning_rate_factor,
    update_average,
)

SHAPE, CLASSES, BATCH = (8, 8, 1), 3, 6
NETWORK = NetworkSettings(latent_dim=4, generator_channels=(8, 8), discriminator_channels=(8, 8))


def play(precision: str = "fp32", **training: Any) -> tuple[AdversarialGame, torch.Tensor]:
    """A game after one step, with what the step reports."""
    game = new_game(precision, **training)
    return game, game.step(*batch())


def new_game(precision: str = "fp32", **training: Any) -> AdversarialGame:
    torch.manual_seed(0)
    return AdversarialGame(
        build_generator(NETWORK, SHAPE, CLASSES),
        build_discriminator(NETWORK, SHAPE, CLASSES),
        TrainingSettings(**training),
        precision,
    )


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Real images, labels and latents."""
    stream = torch.Generator().manual_seed(1)
    real = torch.rand(BATCH, 1, 8, 8, generator=stream) * 2 - 1
    return real, torch.arange(BATCH) % CLASSES, torch.randn(BATCH, 4, generator=stream)


def parameters(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_a_step_changes_every_matrix_and_kernel_of_both_networks(precision: str, loss: str) -> None:
    game = new_game(precision, loss=loss)
    before = parameters(game.generator), parameters(game.discriminator)
    scalars = game.step(*batch())
    after = parameters(game.generator), parameters(game.discriminator)
    for old, new in zip(before, after, strict=True):
        # In bf16 the gradient of a single bias may cancel to nothing.
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if a.ndim > 1]
        assert all(not torch.equal(a, b) for a, b in pairs)
    assert scalars.shape == (len(SCALARS),)
    assert scalars.isfinite().all()


def test_weights_stay_fp32_in_bf16() -> None:
    game, _ = play("bf16")
    assert {weight.dtype for weight in game.generator.parameters()} == {torch.float32}


def test_the_generators_update_leaves_the_discriminator_alone() -> None:
    game = new_game(r1_gamma=0.7, adam_betas=(0.5, 0.9), discriminator_learning_rate=1e-2)
    alone, generator = copy.deepcopy(game.discriminator), copy.deepcopy(game.generator)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-2, betas=(0.5, 0.9), fused=True)
    for _ in range(2):
        real, labels, latents = batch()
        real.requires_grad_()
        # The generator's second step would show, had its first touched the discriminator.
        fake = generator(latents, labels).detach()
        real_logits = alone(real, labels)
        loss = discriminator_loss(real_logits, alone(fake, labels))
        loss = loss + 0.35 * r1_penalty(real, real_logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        game.step(*batch())
        generator.load_state_dict(game.generator.state_dict())
    for expected, found in zip(alone.parameters(), game.discriminator.parameters(), strict=True):
        assert torch.allclose(expected, found, atol=1e-6)
        assert torch.allclose(expected.grad, found.grad, atol=1e-6)


def test_the_discriminator_can_learn_again_after_a_step() -> None:
    game, _ = play()
    assert all(parameter.requires_grad for parameter in game.discriminator.parameters())


def test_a_step_reports_what_the_discriminator_saw_before_it_learned() -> None:
    game = new_game(r1_gamma=0.5)
    generator, discriminator = copy.deepcopy(game.generator), copy.deepcopy(game.discriminator)
    reported = dict(zip(SCALARS, game.step(*batch()).tolist(), strict=True))
    real, labels, latents = batch()
    real.requires_grad_()
    real_logits = discriminator(real, labels)
    fake_logits = discriminator(generator(latents, labels), labels)
    expected = {
        "discriminator_loss": discriminator_loss(real_logits, fake_logits),
        "r1_penalty": r1_penalty(real, real_logits),
        "real_probability": real_logits.sigmoid().mean(),
        "fake_probability": fake_logits.sigmoid().mean(),
    }
    for name, value in expected.items():
        assert reported[name] == pytest.approx(value.item(), rel=1e-4), name


def test_without_r1_no_penalty_is_computed() -> None:
    _, scalars = play(r1_gamma=0.0)
    assert scalars[SCALARS.index("r1_penalty")] == 0.0


def test_a_stronger_r1_changes_the_discriminator() -> None:
    weak, _ = play(r1_gamma=0.0)
    strong, _ = play(r1_gamma=100.0)
    pairs = zip(weak.discriminator.parameters(), strong.discriminator.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_the_generator_learns_to_please_the_discriminator(loss: str) -> None:
    game = new_game(loss=loss, r1_gamma=0.0)
    game.set_learning_rates(2e-3, 1e-12)  # a discriminator that hardly learns
    chances = [float(game.step(*batch())[SCALARS.index("fake_probability")]) for _ in range(30)]
    assert chances[-1] > chances[0]


def test_learning_rates_of_zero_change_no_weight() -> None:
    game = new_game()
    before = parameters(game.generator) + parameters(game.discriminator)
    game.set_learning_rates(0.0, 0.0)
    game.step(*batch())
    after = parameters(game.generator) + parameters(game.discriminator)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_average_moves_by_its_decay_with_statistics_and_counters() -> None:
    average, module = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(-4.0)  # type: ignore[union-attr]
        module.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    update_average(average, module, 0.75)
    assert torch.allclose(average.weight, torch.full((2,), 0.75 * 1.0 + 0.25 * 5.0))
    assert torch.allclose(average.running_mean, torch.full((2,), -1.0))  # type: ignore[arg-type]
    assert average.num_batches_tracked == 7
    assert torch.equal(module.weight, torch.full((2,), 5.0))


def test_an_average_that_is_off_is_the_module() -> None:
    average, module = nn.Linear(3, 2), nn.Linear(3, 2)
    update_average(average, module, ema_decay(1000, 10, halflife_kimg=0.0))
    assert torch.equal(average.weight, module.weight)


def test_half_of_the_average_is_forgotten_in_a_half_life() -> None:
    steps = 5000 // 50
    assert ema_decay(10**6, 50, halflife_kimg=5.0) ** steps == pytest.approx(0.5)


def test_the_half_life_is_at_most_a_twentieth_of_what_was_shown() -> None:
    assert ema_decay(20_000, 50, halflife_kimg=5.0) ** (1000 / 50) == pytest.approx(0.5)


@given(st.integers(1, 10**6), st.integers(1, 512), st.floats(0, 100))
def test_decays_are_shares(images: int, batch_size: int, halflife_kimg: float) -> None:
    assert 0.0 <= ema_decay(images, batch_size, halflife_kimg) < 1.0


@pytest.mark.parametrize(
    ("images", "start", "factor"),
    [
        (0, 0.5, 1.0),
        (500, 0.5, 1.0),
        (750, 0.5, 0.5),
        (1000, 0.5, 0.0),
        (250, 0.0, 0.75),
        (0, 0.0, 1.0),
        (1000, 1.0, 1.0),
    ],
)
def test_learning_rates_fall_linearly_after_their_start(
    images: int, start: float, factor: float
) -> None:
    assert learning_rate_factor(images, 1000, start) == pytest.approx(factor)
