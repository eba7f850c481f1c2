import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.losses import LOSSES, mixtures, squared_slopes, wgan_gp_penalty

PAIRS = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=8)
Formula = Callable[[list[float], list[float]], float]


def doubles(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def probability(logit: float) -> float:
    """D(x)."""
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def goodfellow(real: list[float], fake: list[float]) -> float:
    """The discriminator's side of equation 1, with its sign turned: it minimises."""
    value = mean([math.log(probability(x)) for x in real])
    return -value - mean([math.log(probability(-z)) for z in fake])  # 1 - D


def pair_loss(winners: list[float], losers: list[float]) -> float:
    """-E[log sigmoid(winner - loser)]."""
    return -mean([math.log(probability(w - v)) for w, v in zip(winners, losers, strict=True)])


# The papers' formulas, of logits of real images x and generated images z.
DISCRIMINATOR: dict[str, Formula] = {
    "minimax": goodfellow,
    "non_saturating": goodfellow,
    "hinge": lambda x, z: mean([max(0, 1 - v) for v in x]) + mean([max(0, 1 + v) for v in z]),
    "least_squares": lambda x, z: mean([(v - 1) ** 2 for v in x]) / 2 + mean([v**2 for v in z]) / 2,
    "wasserstein": lambda x, z: mean(z) - mean(x),
    "relativistic": pair_loss,
}
GENERATOR: dict[str, Formula] = {
    "minimax": lambda x, z: mean([math.log(probability(-v)) for v in z]),
    "non_saturating": lambda x, z: -mean([math.log(probability(v)) for v in z]),
    "hinge": lambda x, z: -mean(z),
    "least_squares": lambda x, z: mean([(v - 1) ** 2 for v in z]) / 2,
    "wasserstein": lambda x, z: -mean(z),
    "relativistic": lambda x, z: pair_loss(z, x),
}


@pytest.mark.parametrize("name", LOSSES)
@given(pairs=PAIRS)
def test_both_losses_are_the_papers(name: str, pairs: list[tuple[float, float]]) -> None:
    real, fake = (list(column) for column in zip(*pairs, strict=True))
    loss = LOSSES[name]
    found = loss.discriminator(doubles(real), doubles(fake)).item()
    assert found == pytest.approx(DISCRIMINATOR[name](real, fake), rel=1e-9, abs=1e-12)
    found = loss.generator(doubles(real), doubles(fake)).item()
    assert found == pytest.approx(GENERATOR[name](real, fake), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logit", [-3.0, 0.0, 0.5])
def test_a_step_down_any_generator_loss_raises_the_judgement(name: str, logit: float) -> None:
    fake = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name].generator(torch.zeros(1, dtype=torch.float64), fake)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert (gradient < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_any_discriminator_loss_parts_real_from_generated(name: str) -> None:
    real = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    fake = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(LOSSES[name].discriminator(real, fake), (real, fake))
    assert (gradients[0] < 0).all()
    assert (gradients[1] > 0).all()


def test_the_non_saturating_loss_pushes_hardest_where_the_discriminator_wins() -> None:
    fake, real = torch.tensor([-8.0], dtype=torch.float64, requires_grad=True), torch.zeros(1)
    (strong,) = torch.autograd.grad(LOSSES["non_saturating"].generator(real, fake), fake)
    (weak,) = torch.autograd.grad(LOSSES["minimax"].generator(real, fake), fake)
    assert strong.abs() > 0.99
    assert weak.abs() < 0.01


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logit", [-500.0, 500.0])
def test_losses_stay_finite_where_probabilities_round_to_zero(name: str, logit: float) -> None:
    logits = torch.tensor([logit])
    assert LOSSES[name].discriminator(logits, -logits).isfinite()
    assert LOSSES[name].generator(-logits, logits).isfinite()


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("non_saturating", (0.1, -0.1), (-0.1, 0.1)),
        ("hinge", (0.1, -0.1), (-0.1, 0.1)),
        ("least_squares", (0.6, 0.4), (0.4, 0.6)),
        ("wasserstein", (7.0, 6.0), (6.0, 7.0)),
        ("relativistic", (-6.0, -7.0), (-7.0, -6.0)),
    ],
)
def test_margins_are_positive_where_the_discriminator_is_right(
    name: str, right: tuple[float, float], wrong: tuple[float, float]
) -> None:
    def margins(logits: tuple[float, float]) -> torch.Tensor:
        real, fake = (torch.tensor([value]) for value in logits)
        return torch.cat(LOSSES[name].margins(real, fake))

    assert (margins(right) > 0).all()
    assert (margins(wrong) < 0).all()


def test_the_penalty_of_a_linear_function_is_the_square_of_its_weights() -> None:
    weights = torch.randn(3, 4, 5, dtype=torch.float64)
    images = torch.randn(6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    penalty = squared_slopes(images, (images * weights).sum(dim=(1, 2, 3))).mean()
    assert penalty.item() == pytest.approx(weights.square().sum().item(), rel=1e-6)


def test_the_penalty_of_a_square_is_four_times_the_mean_squared_norm() -> None:
    images = torch.randn(6, 3, 4, 5, requires_grad=True)
    penalty = squared_slopes(images, images.square().sum(dim=(1, 2, 3))).mean()
    expected = 4 * images.detach().double().square().sum(dim=(1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_penalty_agrees_with_finite_differences_of_a_network() -> None:
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
    assert squared_slopes(images, judge(images)).mean().item() == pytest.approx(
        squares.mean().item(), 1e-6
    )


def test_gradients_of_the_penalty_reach_the_discriminator() -> None:
    weights = torch.full((1, 2, 2), 3.0, requires_grad=True)
    images = torch.randn(5, 1, 2, 2, requires_grad=True)
    squared_slopes(images, (images * weights).sum(dim=(1, 2, 3))).mean().backward()
    assert weights.grad is not None
    assert torch.allclose(weights.grad, 2 * weights.detach())


def test_wgan_gp_wants_gradients_of_length_one() -> None:
    images = torch.randn(6, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    logits = (images.sum(dim=(1, 2, 3)) / 2) * scales  # the gradient's length is the scale
    expected = ((scales - 1) ** 2).mean().item()
    assert wgan_gp_penalty(images, logits).item() == pytest.approx(expected, abs=1e-5)


def test_gradients_of_wgan_gp_are_finite_where_the_critic_is_flat() -> None:
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    images = torch.randn(5, 1, 2, 2, requires_grad=True)
    wgan_gp_penalty(images, (images * weights).sum(dim=(1, 2, 3))).backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_mixtures_lie_between_real_and_generated_images() -> None:
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    found = mixtures(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(
        found, torch.tensor([0.0, 0.25, 1.0])[:, None, None, None].expand(3, 1, 2, 2)
    )
