import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_core.config import NetworkSettings
from gan_core.losses import LOSSES, squared_slopes
from gan_core.networks import build_discriminator, build_generator
from gan_core.training.augmentation import Augmentation
from gan_core.training.graph import GraphedStep
from gan_core.training.step import (
    SCALARS,
    AdversarialGame,
    Batch,
    WeightAverage,
    ema_decay,
    learning_rate_factor,
)
from gan_core.training_settings import TrainingSettings

logistic = LOSSES["non_saturating"].discriminator
SHAPE, CLASSES, BATCH = (8, 8, 1), 3, 6
NETWORK = NetworkSettings(latent_dim=4, generator_channels=(8, 8), discriminator_channels=(8, 8))


def play(precision: str = "fp32", **training: Any) -> tuple[AdversarialGame, torch.Tensor]:
    """A game after one step, with what the step reports."""
    game = new_game(precision, **training)
    return game, step(game)


def new_game(
    precision: str = "fp32", network: NetworkSettings = NETWORK, **training: Any
) -> AdversarialGame:
    torch.manual_seed(0)
    return AdversarialGame(
        build_generator(network, SHAPE, CLASSES),
        build_discriminator(network, SHAPE, CLASSES),
        TrainingSettings(**training),
        precision,
    )


def step(game: AdversarialGame, probability: float = 1.0, **kind: bool) -> torch.Tensor:
    """Play the same batch as always."""
    return game.step(batch(game.uniforms), torch.tensor(probability), **kind)


def batch(uniforms: int = 2) -> Batch:
    """Real images, labels, latents and random numbers."""
    stream = torch.Generator().manual_seed(1)
    return Batch(
        real=torch.rand(BATCH, 1, 8, 8, generator=stream) * 2 - 1,
        labels=torch.arange(BATCH) % CLASSES,
        latents=torch.randn(BATCH, 4, generator=stream),
        uniforms=torch.rand(BATCH, uniforms, generator=stream),
    )


def parameters(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_changes_every_matrix_and_kernel_of_both_networks(precision: str, loss: str) -> None:
    game = new_game(precision, loss=loss)
    before = parameters(game.generator), parameters(game.discriminator)
    scalars = step(game)
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
        shown = batch()
        real, labels, latents = shown.real, shown.labels, shown.latents
        real.requires_grad_()
        # The generator's second step would show, had its first touched the discriminator.
        fake = generator(latents, labels).detach()
        real_logits = alone(real, labels)
        loss = logistic(real_logits, alone(fake, labels))
        loss = loss + 0.35 * squared_slopes(real, real_logits).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step(game)
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
    reported = dict(zip(SCALARS, step(game).tolist(), strict=True))
    shown = batch()
    real, labels, latents = shown.real, shown.labels, shown.latents
    real.requires_grad_()
    real_logits = discriminator(real, labels)
    fake_logits = discriminator(generator(latents, labels), labels)
    expected = {
        "discriminator_loss": logistic(real_logits, fake_logits),
        "r1_penalty": squared_slopes(real, real_logits).mean(),
        "real_probability": real_logits.sigmoid().mean(),
        "fake_probability": fake_logits.sigmoid().mean(),
    }
    for name, value in expected.items():
        assert reported[name] == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.parametrize(
    ("penalties", "batches"),
    [((0.0, 0.0), [2 * BATCH]), ((0.5, 0.5), [2 * BATCH]), ((0.5, 0.0), [BATCH, BATCH])],
)
def test_both_batches_are_judged_in_one_pass_unless_only_one_has_a_penalty(
    penalties: tuple[float, float], batches: list[int]
) -> None:
    game = new_game(r1_gamma=penalties[0], r2_gamma=penalties[1])
    judged: list[int] = []
    game.discriminator.register_forward_pre_hook(lambda _, given: judged.append(len(given[0])))
    step(game, with_generator=False)
    assert judged == batches


def test_without_r1_no_penalty_is_computed() -> None:
    _, scalars = play(r1_gamma=0.0)
    assert scalars[SCALARS.index("r1_penalty")] == 0.0


def test_a_stronger_r1_changes_the_discriminator() -> None:
    weak, _ = play(r1_gamma=0.0)
    strong, _ = play(r1_gamma=100.0)
    pairs = zip(weak.discriminator.parameters(), strong.discriminator.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generator_learns_to_please_the_discriminator(loss: str) -> None:
    game = new_game(loss=loss, r1_gamma=0.0)
    game.set_learning_rates(2e-3, 1e-12)  # a discriminator that hardly learns
    chances = [float(step(game)[SCALARS.index("fake_probability")]) for _ in range(30)]
    assert chances[-1] > chances[0]


def test_a_batch_in_parts_gives_the_gradients_of_the_whole() -> None:
    # Without batch normalisation, which sees one part at a time.
    network = NETWORK.model_copy(update={"family": "resnet"})
    settings: dict[str, Any] = {"batch_size": BATCH, "r1_gamma": 0.7, "r2_gamma": 0.2}
    whole = new_game(network=network, **settings)
    parts = new_game(network=network, accumulation_steps=3, **settings)
    reports = [step(game) for game in (whole, parts)]
    assert torch.allclose(*reports, atol=1e-5)
    for one, other in (
        (whole.discriminator, parts.discriminator),
        (whole.generator, parts.generator),
    ):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_a_step_without_the_generator_leaves_it_alone() -> None:
    game = new_game(discriminator_steps=2)
    before = parameters(game.generator), parameters(game.discriminator)
    scalars = step(game, with_generator=False)
    after = parameters(game.generator), parameters(game.discriminator)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert scalars[SCALARS.index("generator_loss")] == 0.0


def test_a_lazy_penalty_weighs_as_much_as_all_that_it_stands_for() -> None:
    always = dict(zip(SCALARS, play(r1_gamma=0.5)[1].tolist(), strict=True))
    lazy = new_game(r1_gamma=0.5, penalty_interval_steps=4)
    scalars = dict(zip(SCALARS, step(lazy).tolist(), strict=True))
    assert scalars["r1_penalty"] == pytest.approx(4 * always["r1_penalty"])
    strong, _ = play(r1_gamma=2.0)
    pairs = zip(lazy.discriminator.parameters(), strong.discriminator.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in pairs)


def test_a_step_without_penalties_is_one_of_a_game_without_them() -> None:
    lazy = new_game(r1_gamma=0.5, r2_gamma=0.5, wgan_gp_weight=1.0)
    step(lazy, with_penalty=False)
    without, _ = play(r1_gamma=0.0)
    pairs = zip(lazy.discriminator.parameters(), without.discriminator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["r1_gamma", "r2_gamma", "wgan_gp_weight"])
def test_each_penalty_enters_the_discriminators_loss_with_its_weight(name: str) -> None:
    weight = 0.5 if name == "wgan_gp_weight" else 1.0
    game = new_game(loss="wasserstein", **{"r1_gamma": 0.0, name: weight})
    twin = copy.deepcopy((game.generator, game.discriminator))
    step(game)
    shown = batch()
    fake = twin[0](shown.latents, shown.labels).detach()
    share = shown.uniforms[:, 1, None, None, None]
    points = {
        "r1_gamma": shown.real,
        "r2_gamma": fake,
        "wgan_gp_weight": share * shown.real + (1 - share) * fake,
    }[name].requires_grad_()
    (slopes,) = torch.autograd.grad(twin[1](points, shown.labels).sum(), points, create_graph=True)
    squares = slopes.square().sum(dim=(1, 2, 3))
    penalty = (squares.sqrt() - 1).square() if name == "wgan_gp_weight" else squares
    critic = twin[1](fake, shown.labels).mean() - twin[1](shown.real, shown.labels).mean()
    (critic + 0.5 * penalty.mean()).backward()
    pairs = zip(game.discriminator.parameters(), twin[1].parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in pairs)


def test_flips_mirror_the_real_images_whose_number_is_below_a_half() -> None:
    game = new_game(horizontal_flips=True, r1_gamma=0.0)
    shown = batch()
    mirrored = shown.real.clone()
    chosen = shown.uniforms[:, 0] < 0.5
    mirrored[chosen] = shown.real[chosen].flip(3)
    assert 0 < chosen.sum() < BATCH
    plain = new_game(r1_gamma=0.0)
    step(game)
    plain.step(dataclasses.replace(shown, real=mirrored), torch.tensor(1.0))
    pairs = zip(game.discriminator.parameters(), plain.discriminator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("transform", ["translation", "cutout", "color", "affine"])
def test_augmentation_changes_what_is_learned_unless_its_probability_is_zero(
    precision: str, transform: str
) -> None:
    settings = {"augmentation": {"transforms": (transform,)}, "r1_gamma": 0.5}
    plain = new_game(precision, r1_gamma=0.5)
    off, on = new_game(precision, **settings), new_game(precision, **settings)
    step(plain)
    step(off, probability=0.0)
    step(on, probability=1.0)
    for game, same in ((off, True), (on, False)):
        pairs = zip(game.generator.parameters(), plain.generator.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same


def test_augmentation_of_real_images_alone_is_a_change_of_the_data() -> None:
    augmentation = {"transforms": ("translation",), "images": "real"}
    game, plain = new_game(augmentation=augmentation), new_game()
    shown = batch(game.uniforms)
    moved = Augmentation(("translation",))(shown.real, shown.uniforms[:, 2:5], 1.0)
    assert not torch.equal(moved, shown.real)
    step(game)
    plain.step(dataclasses.replace(shown, real=moved), torch.tensor(1.0))
    for one, other in (
        (game.generator, plain.generator),
        (game.discriminator, plain.discriminator),
    ):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_recorded_step_plays_what_a_played_step_plays() -> None:
    """What a CUDA graph does, without one: fixed tensors, one recording for each kind of step."""
    settings: dict[str, Any] = {
        "penalty_interval_steps": 2,
        "discriminator_steps": 3,
        "augmentation": {"transforms": ("translation",)},
    }
    played, replayed = new_game(**settings), new_game(**settings)
    recordings = []

    def record(function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        recordings.append(function)
        return function

    graphed = GraphedStep(replayed.step, record)
    probability = torch.tensor(0.0)
    for index in range(30):
        probability.fill_(index / 30)
        noise = torch.Generator().manual_seed(index)
        shown = dataclasses.replace(
            batch(played.uniforms),
            real=torch.rand(BATCH, 1, 8, 8, generator=noise),
            latents=torch.randn(BATCH, 4, generator=noise),
            uniforms=torch.rand(BATCH, played.uniforms, generator=noise),
        )
        kind = {"with_penalty": index % 2 == 0, "with_generator": index % 3 == 2}
        assert torch.equal(
            played.step(shown, probability, **kind), graphed(shown, probability, **kind)
        )
    assert len(recordings) == 4
    for one, other in (
        (played.generator, replayed.generator),
        (played.discriminator, replayed.discriminator),
    ):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_cuda_graph_plays_what_the_eager_step_plays() -> None:
    settings = TrainingSettings(penalty_interval_steps=2, discriminator_steps=2)
    games = []
    for _ in range(2):
        new = new_game("bf16")
        networks = new.generator.cuda(), new.discriminator.cuda()
        games.append(AdversarialGame(*networks, settings, "bf16"))
    eager, graphed = games[0].step, GraphedStep(games[1].step)
    probability = torch.tensor(1.0, device="cuda")
    shown = Batch(*(tensor.cuda() for tensor in batch().tensors))
    for index in range(20):
        kind = {"with_penalty": index % 2 == 0, "with_generator": index % 4 < 2}
        assert torch.allclose(
            eager(shown, probability, **kind), graphed(shown, probability, **kind), rtol=1e-3
        )
    for network in ("generator", "discriminator"):
        pairs = zip(*(getattr(game, network).parameters() for game in games), strict=True)
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in pairs)


def test_learning_rates_of_zero_change_no_weight() -> None:
    game = new_game()
    before = parameters(game.generator) + parameters(game.discriminator)
    game.set_learning_rates(0.0, 0.0)
    step(game)
    after = parameters(game.generator) + parameters(game.discriminator)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_average_moves_by_its_decay_with_statistics_and_counters() -> None:
    average, module = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(-4.0)  # type: ignore[union-attr]
        module.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    WeightAverage(average, module).update(0.75)
    assert torch.allclose(average.weight, torch.full((2,), 0.75 * 1.0 + 0.25 * 5.0))
    assert torch.allclose(average.running_mean, torch.full((2,), -1.0))  # type: ignore[arg-type]
    assert average.num_batches_tracked == 7
    assert torch.equal(module.weight, torch.full((2,), 5.0))


def test_an_average_that_is_off_is_the_module() -> None:
    average, module = nn.Linear(3, 2), nn.Linear(3, 2)
    WeightAverage(average, module).update(ema_decay(1000, 10, halflife_kimg=0.0))
    assert torch.equal(average.weight, module.weight)


@pytest.mark.parametrize(("images", "factor"), [(0, 0.0), (50, 0.5), (100, 1.0), (750, 0.5)])
def test_learning_rates_rise_linearly_over_the_warm_up(images: int, factor: float) -> None:
    assert learning_rate_factor(images, 1000, 0.5, warmup_kimg=0.1) == pytest.approx(factor)


def test_half_of_the_average_is_forgotten_in_a_half_life() -> None:
    steps = 5000 // 50
    assert ema_decay(10**6, 50, halflife_kimg=5.0) ** steps == pytest.approx(0.5)


def test_the_half_life_is_at_most_a_share_of_what_was_shown() -> None:
    assert ema_decay(20_000, 50, halflife_kimg=5.0) ** (1000 / 50) == pytest.approx(0.5)
    assert ema_decay(20_000, 50, 5.0, rampup=0.1) ** (2000 / 50) == pytest.approx(0.5)


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
