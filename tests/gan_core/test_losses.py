import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.losses import (
    GENERATOR_LOSSES,
    discriminator_loss,
    minimax_generator_loss,
    non_saturating_generator_loss,
    r1_penalty,
)

LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def doubles(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def probability(logit: float) -> float:
    """D(x)."""
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@given(LOGITS, LOGITS)
def test_discriminator_loss_is_the_papers(real: list[float], fake: list[float]) -> None:
    expected = -mean([math.log(probability(logit)) for logit in real])
    expected -= mean([math.log(probability(-logit)) for logit in fake])  # 1 - D
    found = discriminator_loss(doubles(real), doubles(fake)).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(LOGITS)
def test_minimax_loss_is_the_papers(fake: list[float]) -> None:
    expected = mean([math.log(probability(-logit)) for logit in fake])
    assert minimax_generator_loss(doubles(fake)).item() == pytest.approx(expected, rel=1e-9)


@given(LOGITS)
def test_non_saturating_loss_is_the_papers(fake: list[float]) -> None:
    expected = -mean([math.log(probability(logit)) for logit in fake])
    assert non_saturating_generator_loss(doubles(fake)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(GENERATOR_LOSSES))
@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0])
def test_a_step_down_any_generator_loss_raises_the_judgement(name: str, logit: float) -> None:
    fake = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(GENERATOR_LOSSES[name](fake), fake)
    stepped = fake - 0.1 * gradient
    assert (stepped.sigmoid() > fake.sigmoid()).all()


def test_the_non_saturating_loss_pushes_hardest_where_the_discriminator_wins() -> None:
    fake = torch.tensor([-8.0], dtype=torch.float64, requires_grad=True)
    (strong,) = torch.autograd.grad(non_saturating_generator_loss(fake), fake)
    (weak,) = torch.autograd.grad(minimax_generator_loss(fake), fake)
    assert strong.abs() > 0.99
    assert weak.abs() < 0.01


@pytest.mark.parametrize("logit", [-500.0, 500.0])
def test_losses_stay_finite_where_probabilities_round_to_zero(logit: float) -> None:
    logits = torch.tensor([logit])
    assert discriminator_loss(logits, logits).isfinite()
    assert minimax_generator_loss(logits).isfinite()
    assert non_saturating_generator_loss(logits).isfinite()


def test_r1_of_a_linear_function_is_the_square_of_its_weights() -> None:
    weights = torch.randn(3, 4, 5, dtype=torch.float64)
    images = torch.randn(6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(images, (images * weights).sum(dim=(1, 2, 3)))
    assert penalty.item() == pytest.approx(weights.square().sum().item(), rel=1e-6)


def test_r1_of_a_square_is_four_times_the_mean_squared_norm() -> None:
    images = torch.randn(6, 3, 4, 5, requires_grad=True)
    penalty = r1_penalty(images, images.square().sum(dim=(1, 2, 3)))
    expected = 4 * images.detach().double().square().sum(dim=(1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_r1_agrees_with_finite_differences_of_a_network() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten()
    ).double()
    images = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def judge(batch: torch.Tensor) -> torch.Tensor:
        return network(batch).sum(dim=1)

    step = 1e-5
    squares = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for place in range(2 * 3 * 3):
            shift = torch.zeros(18, dtype=torch.float64)
            shift[place] = step
            shift = shift.view(1, 2, 3, 3)
            squares += ((judge(images + shift) - judge(images - shift)) / (2 * step)).square()
    assert r1_penalty(images, judge(images)).item() == pytest.approx(squares.mean().item(), 1e-6)


def test_gradients_of_r1_reach_the_discriminator() -> None:
    weights = torch.full((1, 2, 2), 3.0, requires_grad=True)
    images = torch.randn(5, 1, 2, 2, requires_grad=True)
    r1_penalty(images, (images * weights).sum(dim=(1, 2, 3))).backward()
    assert weights.grad is not None
    assert torch.allclose(weights.grad, 2 * weights.detach())
