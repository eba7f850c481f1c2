import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_core.config import NetworkSettings
from gan_core.losses import squared_slopes, wgan_gp_penalty
from gan_core.networks import build_discriminator, build_generator, convolution
from gan_core.networks.convolution import (
    Conv2d,
    ConvTranspose2d,
    learns_by_products,
    weight_gradient,
)

LARGE = 10**6
SIDES_STRIDES_AND_PADDINGS = [(4, 2, 1), (3, 1, 1), (1, 1, 0), (3, 2, 1), (5, 3, 2)]
geometries = pytest.mark.parametrize(("side", "stride", "padding"), SIDES_STRIDES_AND_PADDINGS)


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every layer learns by products, in every precision; holds one entry for each product."""
    taken: list[int] = []

    def counted(*arguments: torch.Tensor | int) -> torch.Tensor:
        taken.append(1)
        return weight_gradient(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(convolution, "learns_by_products", lambda *_: True)
    monkeypatch.setattr(convolution, "weight_gradient", counted)
    return taken


@geometries
@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=["square", "odd"])
def test_the_product_is_the_gradient_of_a_convolutions_weight(
    side: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    features, weight = doubles(3, 2, *size), doubles(5, 2, side, side).requires_grad_()
    out = F.conv2d(features, weight, None, stride, padding)
    upstream = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, weight, upstream)
    found = weight_gradient(features, upstream, side, stride, padding)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@geometries
@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=["square", "odd"])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_that_learn_by_products_give_pytorchs_numbers_and_gradients(
    products: list[int],
    side: int,
    stride: int,
    padding: int,
    size: tuple[int, int],
    bias: bool,
) -> None:
    for ours, theirs, biased in (
        (Conv2d, nn.Conv2d, bias),
        (ConvTranspose2d, nn.ConvTranspose2d, False),
    ):
        layer = ours(2, 5, side, stride, padding, bias=biased).double()
        usual = theirs(2, 5, side, stride, padding, bias=biased).double()
        usual.load_state_dict(layer.state_dict())
        features = doubles(3, 2, *size).requires_grad_()
        out, expected = layer(features), usual(features)
        assert torch.equal(out, expected)
        products.clear()
        upstream = torch.randn_like(out)
        found = torch.autograd.grad(out, (features, *layer.parameters()), upstream)
        assert len(products) == 1
        wanted = torch.autograd.grad(expected, (features, *usual.parameters()), upstream)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("penalty", [squared_slopes, wgan_gp_penalty])
def test_a_gradient_penalty_teaches_the_same_by_products(
    monkeypatch: pytest.MonkeyPatch, family: str, penalty: Callable[..., torch.Tensor]
) -> None:
    settings = NetworkSettings.model_validate(
        {"family": family, "discriminator_channels": (4, 6, 8), "generator_channels": (8, 6, 4)}
    )
    discriminator = build_discriminator(settings, (16, 24, 2), 3).double()
    images, labels = doubles(5, 2, 16, 24).requires_grad_(), torch.arange(5) % 3

    def gradients(*, products: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(convolution, "learns_by_products", lambda *_: products)
        discriminator.zero_grad()
        logits = discriminator(images, labels)
        (F.softplus(-logits).mean() + penalty(images, logits).mean()).backward()
        return [parameter.grad.clone() for parameter in discriminator.parameters()]  # type: ignore[union-attr]

    for found, expected in zip(gradients(products=True), gradients(products=False), strict=True):
        torch.testing.assert_close(found, expected)


def test_no_product_is_taken_where_only_the_images_gradient_is_asked_for(
    products: list[int],
) -> None:
    layers = nn.Sequential(Conv2d(2, 4, 4, 2, 1), nn.LeakyReLU(0.2), Conv2d(4, 4, 3, 1, 1)).double()
    images = doubles(3, 2, 8, 8).requires_grad_()
    (slope,) = torch.autograd.grad(layers(images).sum(), images, create_graph=True)
    assert products == []
    slope.square().sum().backward()
    assert products


def test_a_generator_learns_the_same_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = NetworkSettings.model_validate({"generator_channels": (8, 6, 4), "latent_dim": 5})
    generator = build_generator(settings, (16, 24, 2), 3).double()
    again = copy.deepcopy(generator)
    latents, labels, upstream = doubles(6, 5), torch.arange(6) % 3, doubles(6, 2, 16, 24)
    for network, products in ((generator, True), (again, False)):
        monkeypatch.setattr(convolution, "learns_by_products", lambda *_, yes=products: yes)
        network(latents, labels).backward(upstream)
    for found, expected in zip(generator.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_in_bf16_products_are_as_near_to_the_true_gradient_as_oneDNN_is(  # noqa: N802
    products: list[int],
) -> None:
    torch.manual_seed(0)
    features = torch.randn(16, 32, 4, 4)
    layer, usual = Conv2d(32, 64, 3, 1, 1), nn.Conv2d(32, 64, 3, 1, 1)
    exact = nn.Conv2d(32, 64, 3, 1, 1).double()
    usual.load_state_dict(layer.state_dict())
    exact.load_state_dict(layer.state_dict())
    errors = []
    (truth,) = torch.autograd.grad(exact(features.double()).square().sum(), exact.weight)
    for module in (layer, usual):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(features.bfloat16())
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
        assert module.weight.grad is not None
        assert module.weight.grad.dtype == torch.float32
        errors.append(torch.dist(module.weight.grad.double(), truth).item())
    assert products
    assert errors[0] <= 1.2 * errors[1]


def test_products_are_for_few_pixels_many_channels_and_bf16_on_amx(amx: None) -> None:
    half = torch.zeros(1, dtype=torch.bfloat16)
    assert learns_by_products(4, 32 * 64, half)
    assert learns_by_products(8, 64 * 128, half)
    assert not learns_by_products(8, 64 * 64, half)
    assert not learns_by_products(16, LARGE, half)
    assert not learns_by_products(4, LARGE, half.float())
    assert not learns_by_products(4, LARGE, half.to("meta"))


def test_processors_without_amx_keep_pytorchs_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert not learns_by_products(4, LARGE, torch.zeros(1, dtype=torch.bfloat16))
