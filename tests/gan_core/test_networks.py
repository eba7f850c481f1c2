import itertools

import pytest
import torch
from torch import nn

from gan_core.config import NetworkSettings
from gan_core.networks import Shape, build_discriminator, build_generator

SHAPES = [(16, 16, 1), (8, 8, 3), (16, 24, 3), (32, 8, 4), (12, 20, 2)]


def settings(**more: tuple[int, ...]) -> NetworkSettings:
    return NetworkSettings(
        latent_dim=6,
        **{"generator_channels": (16, 8, 8), "discriminator_channels": (8, 8, 16), **more},
    )


@pytest.mark.parametrize("classes", [0, 1, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_generators_make_images_of_their_shape_and_range(shape: Shape, classes: int) -> None:
    height, width, channels = shape
    generator = build_generator(settings(), shape, classes)
    labels = torch.zeros(5, dtype=torch.int64)
    images = generator(100 * torch.randn(5, 6), labels)
    assert images.shape == (5, channels, height, width)
    assert images.abs().max() <= 1.0


@pytest.mark.parametrize("classes", [0, 1, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_discriminators_give_a_logit_and_a_probability_an_image(shape: Shape, classes: int) -> None:
    height, width, channels = shape
    discriminator = build_discriminator(settings(), shape, classes)
    images = torch.rand(5, channels, height, width) * 2 - 1
    labels = torch.zeros(5, dtype=torch.int64)
    logits = discriminator(images, labels)
    probability = discriminator.probability(images, labels)
    assert logits.shape == probability.shape == (5,)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert torch.allclose(probability, logits.sigmoid())


def test_probabilities_stay_in_their_range_for_extreme_images() -> None:
    discriminator = build_discriminator(settings(), (16, 16, 1), 0)
    images = torch.stack([torch.full((1, 16, 16), value) for value in (-1e6, 1e6)])
    probability = discriminator.probability(images, torch.zeros(2, dtype=torch.int64))
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("channels", [(8, 4), (16, 8, 8), (32, 16, 8, 4)])
def test_generators_double_the_resolution_by_transposed_convolutions(
    channels: tuple[int, ...],
) -> None:
    generator = build_generator(settings(generator_channels=channels), (16, 16, 1), 0)
    doublings = [layer for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in doublings] == list(
        itertools.pairwise(channels)
    )
    assert {layer.stride for layer in doublings} == {(2, 2)}


def test_unconditional_networks_do_not_read_labels() -> None:
    generator = build_generator(settings(), (16, 16, 1), 0).eval()
    discriminator = build_discriminator(settings(), (16, 16, 1), 0)
    latents = torch.randn(3, 6)
    some, others = torch.zeros(3, dtype=torch.int64), torch.tensor([-1, 5, 10**6])
    images = generator(latents, some)
    assert torch.equal(images, generator(latents, others))
    assert torch.equal(discriminator(images, some), discriminator(images, others))


def test_conditional_networks_read_labels() -> None:
    generator = build_generator(settings(), (16, 16, 1), 10).eval()
    discriminator = build_discriminator(settings(), (16, 16, 1), 10)
    latents = torch.randn(3, 6)
    some, others = torch.zeros(3, dtype=torch.int64), torch.tensor([1, 5, 9])
    images = generator(latents, some)
    assert not torch.equal(images, generator(latents, others))
    assert (discriminator(images, some) != discriminator(images, others)).all()


def test_different_latents_make_different_images() -> None:
    generator = build_generator(settings(), (16, 16, 1), 0).eval()
    images = generator(torch.randn(2, 6), torch.zeros(2, dtype=torch.int64))
    assert not torch.equal(images[0], images[1])
