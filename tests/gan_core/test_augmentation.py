import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gan_core.training.augmentation import (
    ADJUSTMENT_STEPS,
    TRANSFORMS,
    Augmentation,
    AugmentationStrength,
)
from gan_core.training_settings import AugmentationSettings

NAMES = tuple(TRANSFORMS)
SIDES = st.integers(1, 20)
UNIFORMS = st.floats(0, 1, exclude_max=True)
BELOW_1 = 1 - 2**-24  # the largest fp32 that a uniform random number takes


def make_images(
    count: int = 6, channels: int = 3, height: int = 9, width: int = 16
) -> torch.Tensor:
    """Random float64 images."""
    stream = torch.Generator().manual_seed(channels)
    shape = (count, channels, height, width)
    return torch.rand(shape, generator=stream, dtype=torch.float64) * 2 - 1


def make_uniforms(augmentation: Augmentation, count: int = 6, seed: int = 0) -> torch.Tensor:
    """Random float64 numbers."""
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, augmentation.uniforms, generator=stream, dtype=torch.float64)


def apply(name: str, images: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One transform, applied to all images with these numbers."""
    gates = torch.zeros(len(images), 1, dtype=values.dtype)
    return Augmentation((name,))(images, torch.cat([gates, values], dim=1), 1.0)


def expected_translation(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Zhao et al. 2020: whole pixels, from -side//8 to side//8."""
    height, width = image.shape[1:]
    down = math.floor(values[0] * (2 * (height // 8) + 1)) - height // 8
    right = math.floor(values[1] * (2 * (width // 8) + 1)) - width // 8
    moved = np.full_like(image, -1.0)
    for row, column in itertools.product(range(height), range(width)):
        if 0 <= row + down < height and 0 <= column + right < width:
            moved[:, row + down, column + right] = image[:, row, column]
    return moved


def expected_cutout(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Zhao et al. 2020: side//2 pixels, of which the centre lies anywhere in the image."""
    slices = []
    for value, side in zip(values, image.shape[1:], strict=True):
        size = side // 2
        centre = math.floor(value * (side + 1 if size % 2 == 0 else side))
        slices.append(slice(max(centre - size // 2, 0), max(centre - size // 2 + size, 0)))
    covered = image.copy()
    covered[:, slices[0], slices[1]] = 0.0
    return covered


def expected_color(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Zhao et al. 2020: rand_brightness, rand_color (saturation), rand_contrast."""
    changed = image.copy()
    colors = changed[:3] if len(image) >= 3 else changed[:1]
    colors += values[0] - 0.5
    mean = colors.mean(axis=0, keepdims=True)
    colors[:] = (colors - mean) * (values[1] * 2) + mean
    mean = colors.mean()
    colors[:] = (colors - mean) * (values[2] + 0.5) + mean
    return changed


def expected_affine(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each pixel from where the inverse of the map lies, between four pixels of the image."""
    height, width = image.shape[1:]
    draws = 2 * values - 1
    angle, factor = np.deg2rad(10) * draws[0], 2 ** (0.15 * draws[1])
    shear_x, shear_y = np.tan(np.deg2rad(5) * draws[2:4])
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = factor * np.array([[cosine, -sine], [sine, cosine]])  # clockwise: y points down
    matrix = matrix @ np.array([[1, 0], [-shear_y, 1]]) @ np.array([[1, -shear_x], [0, 1]])
    centre = np.array([width - 1, height - 1]) / 2
    shift = 0.05 * draws[4:] * [width, height]

    def pixel(row: int, column: int) -> np.ndarray:
        inside = 0 <= row < height and 0 <= column < width
        return image[:, row, column] if inside else np.full(len(image), -1.0)

    warped = np.empty_like(image)
    for row, column in itertools.product(range(height), range(width)):
        x, y = np.linalg.solve(matrix, np.array([column, row]) - centre - shift) + centre
        left, top = math.floor(x), math.floor(y)
        right, low = x - left, y - top
        warped[:, row, column] = (
            (1 - low) * (1 - right) * pixel(top, left)
            + (1 - low) * right * pixel(top, left + 1)
            + low * (1 - right) * pixel(top + 1, left)
            + low * right * pixel(top + 1, left + 1)
        )
    return warped


EXPECTED = {
    "translation": expected_translation,
    "cutout": expected_cutout,
    "color": expected_color,
    "affine": expected_affine,
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_a_transform_is_its_formula(name: str, channels: int) -> None:
    images = make_images(channels=channels)
    values = make_uniforms(Augmentation((name,)))[:, 1:]
    found = apply(name, images, values).numpy()
    pairs = zip(images.numpy(), values.numpy(), strict=True)
    expected = np.stack([EXPECTED[name](image, value) for image, value in pairs])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("magnitude", [0.0, 0.3, 1.0])
def test_the_magnitude_is_a_share_of_the_largest_affine_change(magnitude: float) -> None:
    images = make_images()
    augmentation = Augmentation(NAMES, magnitude)
    uniforms = make_uniforms(augmentation)
    smaller = uniforms.clone()
    smaller[:, -6:] = 0.5 + magnitude * (uniforms[:, -6:] - 0.5)
    found, expected = augmentation(images, uniforms, 1.0), Augmentation(NAMES)(images, smaller, 1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@given(SIDES, SIDES, UNIFORMS, UNIFORMS)
@pytest.mark.parametrize("name", ["translation", "cutout"])
def test_whole_pixels_are_right_at_any_size(
    name: str, height: int, width: int, first: float, second: float
) -> None:
    images = make_images(1, 2, height, width)
    values = torch.tensor([[first, second]], dtype=torch.float64)
    expected = EXPECTED[name](images[0].numpy(), values[0].numpy())
    assert np.array_equal(apply(name, images, values)[0].numpy(), expected)


@given(SIDES, SIDES, UNIFORMS, UNIFORMS)
def test_a_cutout_is_half_of_each_side_or_what_of_it_lies_inside(
    height: int, width: int, first: float, second: float
) -> None:
    images = torch.ones(1, 1, height, width)
    covered = apply("cutout", images, torch.tensor([[first, second]])) == 0
    middle = apply("cutout", images, torch.tensor([[0.5, 0.5]])) == 0
    assert middle.sum() == (height // 2) * (width // 2)
    assert (height // 4) * (width // 4) <= covered.sum() <= middle.sum()


def test_translations_are_within_an_eighth_and_all_as_likely() -> None:
    count = 7 * 5 * 4  # a multiple of the places: 3 rows and 2 columns to each side
    values = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    values = torch.cartesian_prod(values, values)
    images = torch.full((len(values), 1, 28, 16), -1.0, dtype=torch.float64)
    images[:, :, 14, 8] = 1.0
    places = (apply("translation", images, values) == 1).nonzero()[:, 2:]
    shifts, counts = (places - torch.tensor([14, 8])).unique(dim=0, return_counts=True)
    assert shifts.tolist() == [[y, x] for y in range(-3, 4) for x in range(-2, 3)]
    assert counts.unique().numel() == 1


@pytest.mark.parametrize("channels", [2, 4])
def test_color_leaves_alpha_as_it_is(channels: int) -> None:
    images = make_images(channels=channels)
    changed = apply("color", images, make_uniforms(Augmentation(("color",)))[:, 1:])
    assert torch.equal(changed[:, -1], images[:, -1])
    assert not (changed[:, :-1] == images[:, :-1]).any()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("transforms", [*((name,) for name in NAMES), NAMES])
def test_gradients_and_their_gradients_agree_with_finite_differences(
    transforms: tuple[str, ...], channels: int
) -> None:
    augmentation = Augmentation(transforms)
    images = make_images(2, channels, 8, 5).requires_grad_()
    uniforms = make_uniforms(augmentation, 2)

    def augment(images: torch.Tensor) -> torch.Tensor:
        return augmentation(images, uniforms, 0.7)

    assert torch.autograd.gradcheck(augment, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(augment, images, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_probability_0_leaves_every_bit(dtype: torch.dtype) -> None:
    augmentation = Augmentation(NAMES)
    images = make_images().to(dtype)
    images[0, 0, 0, 0] = -0.0
    uniforms = make_uniforms(augmentation)
    uniforms[0] = 0
    found = augmentation(images, uniforms, torch.zeros(()))
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), images.view(torch.uint8))


def test_probability_1_applies_every_transform_to_every_image() -> None:
    images = make_images(100)
    for name in NAMES:
        augmentation = Augmentation((name,))
        uniforms = make_uniforms(augmentation, 100)
        uniforms[:, 0] = torch.linspace(0, BELOW_1, 100)
        uniforms[:, 1:] *= 0.3  # where no transform happens to be the identity
        changed = augmentation(images, uniforms, torch.ones(()))
        assert (changed != images).flatten(1).any(dim=1).all(), name


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_each_transform_is_applied_with_the_probability_and_independently(
    probability: float,
) -> None:
    count = 4000
    images = make_images(count, 1, 8, 8)
    applied = {}
    for name in ("color", "affine"):
        augmentation = Augmentation(NAMES)
        uniforms = make_uniforms(augmentation, count)
        for other, (start, _) in columns_of().items():
            uniforms[:, start] = uniforms[:, start] if other == name else 1.0
        changed = augmentation(images, uniforms, torch.tensor(probability))
        applied[name] = (changed != images).flatten(1).any(dim=1).double()
        assert applied[name].mean().item() == pytest.approx(probability, abs=0.03)
    both = (applied["color"] * applied["affine"]).mean().item()
    assert both == pytest.approx(probability**2, abs=0.03)


def columns_of() -> dict[str, tuple[int, int]]:
    """First and last column of each transform's random numbers where all are asked for."""
    ends = list(itertools.accumulate(1 + numbers for numbers, _ in TRANSFORMS.values()))
    return dict(zip(TRANSFORMS, zip([0, *ends[:-1]], ends, strict=True), strict=True))


def test_an_image_passes_unchanged_beside_one_that_is_changed() -> None:
    augmentation = Augmentation(("color",))
    images = make_images(2)
    uniforms = torch.tensor([[0.4, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1]], dtype=torch.float64)
    changed = augmentation(images, uniforms, 0.5)
    assert not torch.equal(changed[0], images[0])
    assert torch.equal(changed[1], images[1])


def test_transforms_follow_one_another_in_one_order_whatever_the_order_of_their_names() -> None:
    augmentation = Augmentation(NAMES)
    images, uniforms = make_images(), make_uniforms(augmentation)
    changed = augmentation(images, uniforms, 1.0)
    assert torch.equal(changed, Augmentation(NAMES[::-1])(images, uniforms, 1.0))
    expected = images
    for name, (start, end) in columns_of().items():
        expected = apply(name, expected, uniforms[:, start + 1 : end])
    assert torch.equal(changed, expected)
    assert augmentation.uniforms == uniforms.shape[1] == 17


def test_without_transforms_nothing_is_needed_and_nothing_happens() -> None:
    augmentation = Augmentation(())
    images = make_images()
    assert augmentation.uniforms == 0
    assert torch.equal(augmentation(images, torch.empty(6, 0), 1.0), images)


def test_an_unknown_transform_is_an_error() -> None:
    with pytest.raises(ValueError, match="mirror"):
        Augmentation(("color", "mirror"))


def test_randomness_comes_from_the_uniforms_alone_and_inputs_stay_as_they_are() -> None:
    augmentation = Augmentation(NAMES)
    images, uniforms = make_images(), make_uniforms(augmentation)
    inputs, stream = (images.clone(), uniforms.clone()), torch.get_rng_state()
    first = augmentation(images, uniforms, 0.8)
    assert torch.equal(first, augmentation(images, uniforms, 0.8))
    assert not torch.equal(first, augmentation(images, make_uniforms(augmentation, seed=1), 0.8))
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(images, inputs[0])
    assert torch.equal(uniforms, inputs[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_parts_of_a_batch_are_augmented_as_the_whole(channels: int) -> None:
    augmentation = Augmentation(NAMES)
    images, uniforms = make_images(7, channels), make_uniforms(augmentation, 7)
    whole = augmentation(images, uniforms, 0.8)
    parts = [
        augmentation(images[rows], uniforms[rows], 0.8)
        for rows in (slice(0, 4), slice(4, 6), slice(6, 7))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("uniform", [0.0, BELOW_1, 1 - 2**-53])
@pytest.mark.parametrize("side", [8, 28, 72, 1000])
def test_the_ends_of_the_random_numbers_stay_in_range(side: int, uniform: float) -> None:
    # 1 - 2**-53 becomes 1 in fp32, in which the images are computed.
    images = torch.ones(1, 1, side, 8)
    values = torch.tensor([[uniform, uniform]], dtype=torch.float64)
    top = uniform == 0
    black = (apply("translation", images, values) == -1)[0, 0, :, 4]
    assert black.sum() == side // 8
    assert black[-1 if top else 0]
    grey = (apply("cutout", images, values) == 0).sum().item()
    assert grey == (side // 2 - side // 4) * 2
    rows = torch.full((1, 9), uniform, dtype=torch.float64)
    assert apply("color", images, rows[:, :3]).isfinite().all()
    assert (apply("affine", images, rows[:, :6]).abs() <= 1 + 1e-6).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("transforms", [*((name,) for name in NAMES), NAMES])
def test_memory_format_and_values_do_not_depend_on_one_another(
    transforms: tuple[str, ...], layout: torch.memory_format, channels: int
) -> None:
    augmentation = Augmentation(transforms)
    images, uniforms = make_images(channels=channels), make_uniforms(augmentation)
    found = augmentation(images.contiguous(memory_format=layout), uniforms, 1.0)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, augmentation(images, uniforms, 1.0), rtol=0, atol=1e-12)


def test_autocast_does_not_round_the_images() -> None:
    augmentation = Augmentation(NAMES)
    images, uniforms = make_images().float(), make_uniforms(augmentation).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = augmentation(images, uniforms, 1.0)
        halves = augmentation(images.bfloat16(), uniforms, 1.0)
    assert torch.equal(found, augmentation(images, uniforms, 1.0))
    assert halves.dtype == torch.bfloat16
    assert (halves.float() - found).abs().max() < 0.05


def test_kornia_is_imported_only_by_the_transform_that_needs_it() -> None:
    program = (
        "import sys, torch\n"
        "from gan_core.training.augmentation import Augmentation\n"
        "augmentation = Augmentation(('translation', 'cutout', 'color'))\n"
        "augmentation(torch.zeros(2, 3, 8, 8), torch.zeros(2, augmentation.uniforms), 1.0)\n"
        "sys.exit('kornia' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def strength(**settings: Any) -> AugmentationStrength:
    chosen: dict[str, Any] = {"strength": "adaptive", "adjustment_kimg": 1.0, **settings}
    return AugmentationStrength(AugmentationSettings(**chosen), torch.device("cpu"))


def play(adaptive: AugmentationStrength, signs: list[float], first: int = 0) -> list[float]:
    """The probability after each step of 25 images."""
    probabilities = []
    for step, sign in enumerate(signs, start=first):
        adaptive.after_step(torch.tensor(sign), step, 25)
        probabilities.append(adaptive.probability.item())
    return probabilities


def test_the_probability_rises_when_the_discriminator_is_too_certain_and_falls_otherwise() -> None:
    found = play(strength(), [0.9] * 8 + [0.3] * 4)
    assert found == pytest.approx([0.0] * 3 + [0.1] * 4 + [0.2] * 4 + [0.1], abs=1e-6)


def test_the_mean_since_the_last_adjustment_decides() -> None:
    assert play(strength(), [1.0, 1.0, 1.0, -0.5])[-1] == pytest.approx(0.1)  # 0.625
    assert play(strength(), [1.0, 1.0, 1.0, -0.7])[-1] == 0  # 0.575
    assert play(strength(target=0.5), [0.5] * 4)[-1] == 0  # neither too certain nor too little


def test_the_probability_stays_between_0_and_its_largest_value() -> None:
    adaptive = strength(probability=0.25)
    assert play(adaptive, [-1.0] * 8)[-1] == 0
    assert play(adaptive, [1.0] * 40)[-1] == 0.25
    assert play(adaptive, [0.0] * 4)[-1] == pytest.approx(0.15)


@pytest.mark.parametrize("kimg", [0.5, 2.0])
def test_the_probability_takes_its_time_from_0_to_1(kimg: float) -> None:
    steps = int(kimg * 1000 / 25)
    found = play(strength(adjustment_kimg=kimg), [1.0] * steps)
    assert found[-1] == pytest.approx(1, abs=1e-5)
    assert found[-1 - ADJUSTMENT_STEPS] < 1 - 1e-3


@pytest.mark.parametrize("cut", range(9))
def test_a_restored_strength_goes_on_to_the_same_bits(cut: int) -> None:
    signs = [0.9, 0.7, 0.8, 0.61, 0.1, 0.99, 0.7, 0.5, 0.95, 0.3, 0.8, 0.6]
    whole = strength()
    expected = play(whole, signs)
    before, after = strength(), strength()
    play(before, signs[:cut])
    after.restore({name: tensor.clone() for name, tensor in before.tensors().items()})
    assert play(after, signs[cut:], first=cut) == expected[cut:]
    for name, tensor in whole.tensors().items():
        assert torch.equal(after.tensors()[name], tensor)


def test_the_probability_is_changed_in_place() -> None:
    adaptive = strength()
    held = adaptive.probability
    play(adaptive, [1.0] * 4)
    adaptive.restore({name: tensor + 0.5 for name, tensor in adaptive.tensors().items()})
    assert held is adaptive.probability
    assert held.item() == pytest.approx(0.6)
    assert held.dtype == torch.float32


def test_a_fixed_strength_never_moves() -> None:
    fixed = strength(strength="fixed", probability=0.7)
    assert play(fixed, [1.0, -1.0, 0.0] * 8) == [torch.tensor(0.7).item()] * 24


def test_nothing_waits_for_the_device() -> None:
    # On GPUs, these read a value from the device, or copy a Python number to it, and wait.
    waiting = {
        "_local_scalar_dense",
        "equal",
        "is_nonzero",
        "lift_fresh",
        "linalg_inv_ex",
        "linalg_lu_factor_ex",
        "linalg_solve_ex",
        "masked_select",
        "nonzero",
    }
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            called.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    augmentation, adaptive = Augmentation(NAMES), strength()
    images, uniforms = make_images().requires_grad_(), make_uniforms(augmentation)
    augmentation(images, uniforms, adaptive.probability)  # which imports kornia
    signs_mean = torch.ones(())
    with Record():
        changed = augmentation(images, uniforms, adaptive.probability)
        (gradient,) = torch.autograd.grad(changed.square().sum(), images, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), images)
        adaptive.after_step(signs_mean, 3, 25)
    assert {"grid_sampler_2d", "gather", "lerp", "masked_fill", "sign"} < called
    assert not called & waiting


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_replays_augmentation_with_new_numbers_and_probability() -> None:
    device = torch.device("cuda")
    augmentation = Augmentation(NAMES)
    adaptive = AugmentationStrength(AugmentationSettings(strength="adaptive"), device)
    images = make_images(8, 3).to(device, torch.float32, memory_format=torch.channels_last)
    images.requires_grad_()
    uniforms = make_uniforms(augmentation, 8).to(device, torch.float32)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        changed = augmentation(images, uniforms, adaptive.probability)
        (gradient,) = torch.autograd.grad(changed.square().sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), images)
        adaptive.observe(changed.detach().sign().mean())
        return changed, second

    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            adaptive.adjust(64)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()

    for probability in (0.0, 0.6, 1.0):
        adaptive.probability.fill_(probability)
        uniforms.copy_(make_uniforms(augmentation, 8, seed=int(10 * probability)))
        graph.replay()
        for found, expected in zip(recorded, step(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        expected_cpu = augmentation(images.detach().cpu(), uniforms.cpu(), probability)
        torch.testing.assert_close(recorded[0].detach().cpu(), expected_cpu, rtol=0, atol=1e-3)
