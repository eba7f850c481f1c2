import copy
import itertools

import pytest
import torch
from torch import nn

from gan_core.config import NetworkSettings
from gan_core.networks import build_discriminator, build_generator
from gan_core.training.complexity import count_parameters, flops_per_image

SHAPE, CLASSES, LATENT_DIM = (16, 16, 1), 10, 64
LABEL = torch.zeros(1, dtype=torch.int64)


def test_parameters_are_counted_once_and_buffers_not() -> None:
    layer = nn.Conv2d(3, 8, kernel_size=5)
    assert count_parameters(nn.Sequential(layer, nn.BatchNorm2d(8), layer)) == 8 * (75 + 1) + 16


def test_a_multiply_add_of_a_matrix_counts_as_two() -> None:
    assert flops_per_image(nn.Linear(7, 11), torch.zeros(1, 7)) == 2 * 7 * 11


@pytest.mark.parametrize(("stride", "pixels"), [(1, 8 * 10), (2, 4 * 5)])
def test_convolutions_count_a_multiply_add_for_each_tap_of_each_pixel(
    stride: int, pixels: int
) -> None:
    layer = nn.Conv2d(3, 6, kernel_size=3, stride=stride, padding=1)
    assert flops_per_image(layer, torch.zeros(1, 3, 8, 10)) == 2 * pixels * 9 * 3 * 6


def test_transposed_convolutions_count_the_pixels_they_read() -> None:
    layer = nn.ConvTranspose2d(3, 6, kernel_size=4, stride=2, padding=1)
    assert flops_per_image(layer, torch.zeros(1, 3, 8, 10)) == 2 * 8 * 10 * 16 * 3 * 6


def test_flops_of_dcgan_are_those_of_its_layers() -> None:
    widths = (128, 64, 32)
    settings = NetworkSettings(generator_channels=widths, discriminator_channels=widths[::-1])
    generator = build_generator(settings, SHAPE, CLASSES)
    pixels = 4 * 4
    expected = LATENT_DIM * widths[0] * pixels
    for coarse, fine in itertools.pairwise(widths):
        expected += pixels * 16 * coarse * fine
        pixels *= 4
    expected += pixels * 9 * widths[-1]
    assert flops_per_image(generator, torch.zeros(1, LATENT_DIM), LABEL) == 2 * expected

    discriminator = build_discriminator(settings, SHAPE, CLASSES)
    expected, pixels = 0, 16 * 16
    for before, after in ((1, 32), (32, 64)):
        pixels //= 4
        expected += pixels * 16 * before * after
    expected += pixels * 9 * 64 * 128 + pixels * 128 * 128 + 128
    assert flops_per_image(discriminator, torch.zeros(1, 1, 16, 16), LABEL) == 2 * expected


@pytest.mark.parametrize("blocks", [1, 2])
def test_flops_of_resnet_are_those_of_its_layers(blocks: int) -> None:
    settings = NetworkSettings(family="resnet", blocks_per_resolution=blocks)
    generator = build_generator(settings, SHAPE, CLASSES)
    branches = sum(
        blocks * 2 * pixels * 9 * width**2 for width, pixels in ((128, 16), (64, 64), (32, 256))
    )
    project, to_image = LATENT_DIM * 128 * 16, 256 * 9 * 32
    changes = 16 * 128 * 64 + 64 * 64 * 32
    expected = 2 * (project + branches + changes + to_image)
    assert flops_per_image(generator, torch.zeros(1, LATENT_DIM), LABEL) == expected

    discriminator = build_discriminator(settings, SHAPE, CLASSES)
    expected = 2 * (256 * 9 * 32 + branches + changes + 128)
    assert flops_per_image(discriminator, torch.zeros(1, 1, 16, 16), LABEL) == expected


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_networks_and_random_numbers_as_they_are(
    family: str, training: bool
) -> None:
    settings = NetworkSettings.model_validate({"family": family, "spectral_norm": True})
    generator = build_generator(settings, SHAPE, CLASSES).train(training)
    discriminator = build_discriminator(settings, SHAPE, CLASSES).train(training)
    inputs = {generator: torch.zeros(1, LATENT_DIM), discriminator: torch.zeros(1, 1, 16, 16)}
    for network, given in inputs.items():
        before, stream = copy.deepcopy(network.state_dict()), torch.get_rng_state()
        flops_per_image(network, given, LABEL)
        after = network.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(stream, torch.get_rng_state())
        assert all(module.training is training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_spectral_norm_costs_no_parameters() -> None:
    plain = build_discriminator(NetworkSettings(), SHAPE, CLASSES)
    normalised = build_discriminator(NetworkSettings(spectral_norm=True), SHAPE, CLASSES)
    assert count_parameters(normalised) == count_parameters(plain)


def test_networks_and_inputs_may_lie_on_other_devices() -> None:
    layer = nn.Linear(7, 11, device="meta")
    assert flops_per_image(layer, torch.zeros(1, 7)) == 2 * 7 * 11
    assert flops_per_image(nn.Linear(7, 11), torch.zeros(1, 7, device="meta")) == 2 * 7 * 11
