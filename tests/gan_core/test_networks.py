import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_core.config import NetworkSettings, check_resolution
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.losses import squared_slopes
from gan_core.networks import Shape, build_discriminator, build_generator
from gan_core.networks.pixels import FlattenPixels, MeanOverPixels
from gan_core.networks.resnet import ResidualBlock

FAMILIES = ["dcgan", "resnet"]
SIZES = [(16, 16), (28, 28), (32, 32), (64, 64), (128, 128), (24, 40), (128, 64), (8, 8), (12, 20)]
CLASSES = 3

both_families = pytest.mark.parametrize("family", FAMILIES)
all_sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
all_channels = pytest.mark.parametrize("channels", [1, 2, 3, 4])
conditional_or_not = pytest.mark.parametrize("classes", [0, 1, CLASSES])
with_and_without_spectral_norm = pytest.mark.parametrize("spectral_norm", [False, True])


def settings(family: str = "dcgan", **more: Any) -> NetworkSettings:
    return NetworkSettings.model_validate(
        {
            "family": family,
            "latent_dim": 6,
            "generator_channels": (8, 8, 4),
            "discriminator_channels": (4, 8, 8),
            **more,
        }
    )


def settings_for(family: str, size: tuple[int, int]) -> NetworkSettings:
    """Down to 4 or 8 pixels at the coarsest resolution, where 3 steps would leave more."""
    channels = {64: (8, 8, 4, 4), 128: (8, 8, 4, 4, 2)}.get(max(size), (8, 8, 4))
    made = settings(family, generator_channels=channels, discriminator_channels=channels[::-1])
    check_resolution(made, *size)
    return made


def some_labels(count: int, classes: int) -> torch.Tensor:
    return torch.arange(count) % max(classes, 1)


def some_images(count: int, shape: Shape = (16, 16, 1)) -> torch.Tensor:
    height, width, channels = shape
    return torch.rand(count, channels, height, width) * 2 - 1


def take_a_step(network: nn.Module, *inputs: torch.Tensor, rate: float = 0.1) -> None:
    """Change a network along some gradient, which it keeps."""
    network.zero_grad()
    output = network(*inputs)
    (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=rate).step()


@conditional_or_not
@all_channels
@all_sizes
@both_families
def test_generators_make_images_of_their_shape_and_range(
    family: str, size: tuple[int, int], channels: int, classes: int
) -> None:
    generator = build_generator(settings_for(family, size), (*size, channels), classes)
    images = generator(100 * torch.randn(3, 6), some_labels(3, classes))
    assert images.shape == (3, channels, *size)
    assert images.abs().max() <= 1.0


@conditional_or_not
@all_channels
@all_sizes
@both_families
def test_discriminators_give_a_logit_and_a_probability_an_image(
    family: str, size: tuple[int, int], channels: int, classes: int
) -> None:
    shape = (*size, channels)
    discriminator = build_discriminator(settings_for(family, size), shape, classes)
    images, labels = some_images(3, shape), some_labels(3, classes)
    logits = discriminator(images, labels)
    probability = discriminator.probability(images, labels)  # type: ignore[operator]
    assert logits.shape == probability.shape == (3,)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert torch.allclose(probability, logits.sigmoid())


@both_families
def test_probabilities_stay_in_their_range_for_extreme_images(family: str) -> None:
    discriminator = build_discriminator(settings(family), (16, 16, 1), 0)
    images = torch.stack([torch.full((1, 16, 16), value) for value in (-1e6, 1e6)])
    probability = discriminator.probability(images, some_labels(2, 0))  # type: ignore[operator]
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("channels", [(8, 4), (16, 8, 8), (32, 16, 8, 4)])
def test_dcgan_generators_double_the_resolution_by_transposed_convolutions(
    channels: tuple[int, ...],
) -> None:
    generator = build_generator(settings(generator_channels=channels), (16, 16, 1), 0)
    doublings = [layer for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in doublings] == list(
        itertools.pairwise(channels)
    )
    assert {layer.stride for layer in doublings} == {(2, 2)}


def test_pixels_are_flattened_without_a_copy_and_alike_in_both_layouts() -> None:
    flatten = FlattenPixels()
    features = torch.randn(2, 5, 3, 4)
    by_pixel = features.to(memory_format=torch.channels_last)
    assert flatten(by_pixel).data_ptr() == by_pixel.data_ptr()
    assert torch.equal(flatten(by_pixel), flatten(features))
    assert torch.equal(flatten(features)[1, 5:10], features[1, :, 0, 1])


def test_the_mean_over_pixels_is_that_of_each_channel() -> None:
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    by_pixel = features.to(memory_format=torch.channels_last)
    for layout in (features, by_pixel):
        torch.testing.assert_close(MeanOverPixels()(layout), features.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("family", "head"), [("dcgan", "hidden"), ("dcgan", "mean"), ("resnet", "mean")]
)
def test_gradients_reach_every_layer_in_channels_last(family: str, head: str) -> None:
    layout = torch.channels_last
    made = settings(family, discriminator_head=head)
    discriminator = build_discriminator(made, (16, 16, 3), 0).to(memory_format=layout)
    seen: list[bool] = []
    for layer in discriminator.modules():
        if isinstance(layer, nn.Conv2d | nn.LeakyReLU):
            layer.register_full_backward_hook(
                lambda _layer, _into, upstream: seen.append(
                    upstream[0].ndim == 2 or upstream[0].is_contiguous(memory_format=layout)
                )
            )
    images = some_images(2, (16, 16, 3)).requires_grad_()
    discriminator(images, some_labels(2, 0)).sum().backward()
    assert seen
    assert all(seen)


@pytest.mark.parametrize("blocks", [1, 3])
def test_resnets_have_so_many_blocks_of_each_width(blocks: int) -> None:
    chosen = settings(
        "resnet",
        blocks_per_resolution=blocks,
        generator_channels=(8, 6, 4),
        discriminator_channels=(4, 8, 10),
    )
    for network, channels in (
        (build_generator(chosen, (16, 16, 1), 0), (8, 6, 4)),
        (build_discriminator(chosen, (16, 16, 1), 0), (4, 8, 10)),
    ):
        found = [block.first.in_channels for block in residual_blocks(network)]
        assert found == [width for width in channels for _ in range(blocks)]


@both_families
def test_unconditional_networks_do_not_read_labels(family: str) -> None:
    generator = build_generator(settings(family), (16, 16, 1), 0).eval()
    discriminator = build_discriminator(settings(family), (16, 16, 1), 0)
    latents = torch.randn(3, 6)
    some, others = torch.zeros(3, dtype=torch.int64), torch.tensor([-1, 5, 10**6])
    images = generator(latents, some)
    assert torch.equal(images, generator(latents, others))
    assert torch.equal(discriminator(images, some), discriminator(images, others))


@both_families
def test_conditional_networks_read_labels(family: str) -> None:
    generator = build_generator(settings(family), (16, 16, 1), 10).eval()
    discriminator = build_discriminator(settings(family), (16, 16, 1), 10)
    latents = torch.randn(3, 6)
    some, others = torch.zeros(3, dtype=torch.int64), torch.tensor([1, 5, 9])
    images = generator(latents, some)
    changed = (images != generator(latents, others)).flatten(1).any(dim=1)
    assert changed.tolist() == [True, True, True]
    assert (discriminator(images, some) != discriminator(images, others)).all()


@both_families
def test_untrained_generators_give_different_images_neither_flat_nor_saturated(family: str) -> None:
    torch.manual_seed(0)
    made = settings(family, generator_channels=(64, 32, 16))
    images = build_generator(made, (32, 32, 3), 0)(torch.randn(64, 6), some_labels(64, 0))
    assert 0.1 < images.std(dim=0).mean() < 0.9
    assert images.std(dim=(2, 3)).mean() > 0.05
    assert (images.abs() > 0.99).float().mean() < 0.1


def test_dcgan_discriminators_see_where_in_the_image_something_is() -> None:
    images = torch.zeros(2, 1, 64, 64)
    images[0, :, 24:28, 24:28] = 1.0  # both so far from the edges that no convolution knows which
    images[1, :, 36:40, 36:40] = 1.0
    differences = {}
    for head in ("hidden", "mean"):
        made = settings("dcgan", discriminator_head=head)
        one, other = build_discriminator(made, (64, 64, 1), 0)(images, some_labels(2, 0))
        differences[head] = abs(one - other)
    assert differences["hidden"] > 1e-4
    assert differences["mean"] < 1e-6


@both_families
def test_untrained_discriminators_tell_images_apart(family: str) -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(settings(family), (16, 16, 3), 0)
    dark, light = some_images(8, (16, 16, 3)) * 0.5 - 0.5, some_images(8, (16, 16, 3)) * 0.5 + 0.5
    logits = discriminator(torch.cat([dark, light]), some_labels(16, 0))
    assert logits.unique().numel() == 16
    assert 1e-3 < logits.std() < 10


@both_families
def test_features_stay_in_channels_last(family: str) -> None:
    layout = torch.channels_last
    made = settings(family)
    generator = build_generator(made, (16, 16, 3), 0).to(memory_format=layout)
    discriminator = build_discriminator(made, (16, 16, 3), 0).to(memory_format=layout)
    seen: list[bool] = []
    for layer in (*generator.modules(), *discriminator.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | ResidualBlock):
            layer.register_forward_hook(
                lambda _layer, _inputs, output: seen.append(
                    output.is_contiguous(memory_format=layout)
                )
            )
    discriminator(generator(torch.randn(2, 6), some_labels(2, 0)), some_labels(2, 0))
    assert seen
    assert all(seen)


@both_families
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_the_second_step_reaches_every_parameter_of_the_generator(
    family: str, classes: int
) -> None:
    torch.manual_seed(0)
    generator = build_generator(settings(family), (16, 16, 2), classes)
    for _ in range(2):  # the first moves the last convolution of a residual branch away from zero
        take_a_step(generator, torch.randn(8, 6), some_labels(8, classes), rate=1e-3)
    assert parameters_without_gradient(generator) == []


@with_and_without_spectral_norm
@both_families
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_the_second_step_reaches_every_parameter_of_the_discriminator(
    family: str, classes: int, spectral_norm: bool
) -> None:
    torch.manual_seed(0)
    made = settings(family, spectral_norm=spectral_norm)
    discriminator = build_discriminator(made, (16, 16, 2), classes)
    for _ in range(2):
        take_a_step(discriminator, some_images(8, (16, 16, 2)), some_labels(8, classes), rate=1e-3)
    assert parameters_without_gradient(discriminator) == []


def parameters_without_gradient(network: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]


@with_and_without_spectral_norm
@both_families
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_gradient_penalties_teach_every_kernel(
    family: str, classes: int, spectral_norm: bool
) -> None:
    torch.manual_seed(0)
    made = settings(family, spectral_norm=spectral_norm)
    discriminator = build_discriminator(made, (16, 16, 3), classes)
    labels = some_labels(6, classes)
    images = some_images(6, (16, 16, 3))
    take_a_step(discriminator, images, labels, rate=1e-2)
    discriminator.zero_grad()
    images.requires_grad_()
    squared_slopes(images, discriminator(images, labels)).mean().backward()
    for name, parameter in discriminator.named_parameters():
        if parameter.ndim > 1:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@with_and_without_spectral_norm
@both_families
def test_a_seed_decides_the_weights(family: str, spectral_norm: bool) -> None:
    made = settings(family, spectral_norm=spectral_norm)

    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        networks = (
            build_generator(made, (16, 16, 1), CLASSES),
            build_discriminator(made, (16, 16, 1), CLASSES),
        )
        return [tensor for network in networks for tensor in network.state_dict().values()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def residual_blocks(network: nn.Module) -> list[ResidualBlock]:
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


@with_and_without_spectral_norm
def test_residual_branches_begin_as_zero(spectral_norm: bool) -> None:
    made = settings("resnet", blocks_per_resolution=2, spectral_norm=spectral_norm)
    generator = build_generator(made, (16, 16, 1), 0)
    discriminator = build_discriminator(made, (16, 16, 1), 0)
    blocks = residual_blocks(generator) + residual_blocks(discriminator)
    assert len(blocks) == 12
    for block in blocks:
        features = torch.randn(2, block.first.in_channels, 4, 4)
        assert torch.equal(block(features), features)


@pytest.mark.parametrize("branches", [1, 4, 25])
def test_first_convolutions_of_branches_have_the_size_of_the_paper(branches: int) -> None:
    torch.manual_seed(0)
    weight = ResidualBlock(64, branches).first.weight
    he = (2 / (1 + 0.2**2) / (9 * 64)) ** 0.5
    assert weight.std().item() == pytest.approx(branches**-0.5 * he, rel=0.02)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_depth_changes_neither_the_outputs_nor_what_a_step_does_to_them(network: str) -> None:
    sizes, changes = [], []
    for blocks in (1, 8):
        torch.manual_seed(0)
        made = settings(
            "resnet",
            blocks_per_resolution=blocks,
            generator_channels=(16, 16, 16),
            discriminator_channels=(16, 16, 16),
        )
        build, inputs = (
            (build_generator, torch.randn(16, 6))
            if network == "generator"
            else (build_discriminator, some_images(16))
        )
        player = build(made, (16, 16, 1), 0)
        labels = some_labels(16, 0)
        before = player(inputs, labels).detach()
        take_a_step(player, inputs, labels, rate=1e-4)
        changes.append((player(inputs, labels).detach() - before).std().item())
        sizes.append(before.std().item())
    assert 0.5 < sizes[1] / sizes[0] < 2
    assert 0.5 < changes[1] / changes[0] < 2


def normalised_layers(discriminator: nn.Module) -> list[nn.Module]:
    kinds = nn.Conv2d | nn.Linear | nn.Embedding
    return [module for module in discriminator.modules() if isinstance(module, kinds)]


@both_families
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_spectral_norm_holds_largest_singular_values_at_one(family: str, classes: int) -> None:
    torch.manual_seed(0)
    made = settings(family, spectral_norm=True, discriminator_channels=(8, 16, 16))
    discriminator = build_discriminator(made, (16, 16, 3), classes)
    images, labels = some_images(4, (16, 16, 3)), some_labels(4, classes)
    for parameter in discriminator.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        for _ in range(60):
            discriminator(images, labels)
    layers = normalised_layers(discriminator.eval())
    assert len(layers) >= 4
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]  # type: ignore[operator]
        assert largest.item() == pytest.approx(1.0, abs=0.02)


@both_families
def test_spectral_norm_is_the_discriminators_alone(family: str) -> None:
    made = settings(family, spectral_norm=True)
    plain = settings(family)
    names = build_generator(made, (16, 16, 1), CLASSES).state_dict().keys()
    assert names == build_generator(plain, (16, 16, 1), CLASSES).state_dict().keys()


@both_families
def test_discriminators_with_spectral_norm_come_back_whole_from_their_state(family: str) -> None:
    made = settings(family, spectral_norm=True)
    torch.manual_seed(0)
    discriminator = build_discriminator(made, (16, 16, 1), CLASSES)
    images, labels = some_images(4), some_labels(4, CLASSES)
    take_a_step(discriminator, images, labels)
    state = copy.deepcopy(discriminator.state_dict())
    buffers = {name for name in state if name.endswith(("._u", "._v"))}
    assert len(buffers) == 2 * len(normalised_layers(discriminator))
    restored = build_discriminator(made, (16, 16, 1), CLASSES)
    restored.load_state_dict(state)
    for _ in range(2):  # the power iteration goes on from where it was
        assert torch.equal(discriminator(images, labels), restored(images, labels))


@both_families
def test_spectral_norm_works_in_bf16(family: str) -> None:
    torch.manual_seed(0)
    made = settings(family, spectral_norm=True)
    discriminator = build_discriminator(made, (16, 16, 1), CLASSES)
    images, labels = some_images(4).requires_grad_(), some_labels(4, CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(images, labels)
    squared_slopes(images, logits.float()).mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in discriminator.parameters())


def test_features_of_residual_blocks_stay_in_bf16() -> None:
    block = ResidualBlock(4, branches=3)
    with torch.autocast("cpu", torch.bfloat16):
        assert block(torch.randn(2, 4, 8, 8).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("classes", [0, CLASSES])
@both_families
def test_released_generators_come_back_from_their_files(
    family: str, classes: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = settings(family, blocks_per_resolution=2)
    config = GeneratorConfig(
        pipeline="digits",
        network=network,
        height=24,
        width=40,
        channels=3,
        class_names=tuple(map(str, range(classes))),
        class_counts=(1,) * classes,
    )
    module = build_generator(network, config.shape, config.classes)
    take_a_step(module, torch.randn(4, 6), some_labels(4, classes), rate=1e-6)
    released = ReleasedGenerator(module, config, "cpu")
    released.save(tmp_path)
    images = ReleasedGenerator.load(tmp_path).sample(5, seed=7)
    assert images.std() > 0
    assert np.array_equal(images, released.sample(5, seed=7))
