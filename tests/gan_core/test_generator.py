import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_core import load_generator
from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator, to_uint8
from gan_core.released_files import CONFIG_FILE, WEIGHTS_FILE

MakeGenerator = Callable[..., ReleasedGenerator]


@pytest.fixture(scope="module")
def generator(make_generator: MakeGenerator) -> ReleasedGenerator:
    return make_generator()


@pytest.fixture(scope="module")
def unconditional(make_generator: MakeGenerator) -> ReleasedGenerator:
    return make_generator(conditional=False)


def test_images_are_uint8_of_the_generators_shape(generator: ReleasedGenerator) -> None:
    images = generator.sample(5)
    assert images.shape == (5, 16, 16, 1)
    assert images.dtype == np.uint8
    assert images.std() > 0


def test_the_same_seed_gives_the_same_images(generator: ReleasedGenerator) -> None:
    assert np.array_equal(generator.sample(40, seed=7), generator.sample(40, seed=7))
    assert not np.array_equal(generator.sample(40, seed=7), generator.sample(40, seed=8))


def test_sampling_does_not_depend_on_other_random_numbers(generator: ReleasedGenerator) -> None:
    images = generator.sample(4, seed=7)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert np.array_equal(generator.sample(4, seed=7), images)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [1, 16, 31, 32, 33, 99])
@pytest.mark.parametrize("conditional", [True, False])
def test_fewer_images_are_the_first_of_more(
    count: int, conditional: bool, make_generator: MakeGenerator
) -> None:
    made = make_generator(conditional=conditional)
    assert np.array_equal(made.sample(count, seed=3), made.sample(100, seed=3)[:count])


@settings(max_examples=10)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=80), st.data())
def test_fewer_images_of_given_labels_are_the_first_of_more(
    make_generator: MakeGenerator, labels: list[int], data: st.DataObject
) -> None:
    made = make_generator()
    count = data.draw(st.integers(1, len(labels)))
    whole = made.sample(len(labels), seed=1, labels=labels)
    assert np.array_equal(made.sample(count, seed=1, labels=labels[:count]), whole[:count])


def test_batches_hold_the_images_of_sample_with_what_made_them(
    generator: ReleasedGenerator,
) -> None:
    batches = list(generator.sample_batches(70, seed=5, truncation=0.7))
    images = np.concatenate([batch.images for batch in batches])
    assert np.array_equal(images, generator.sample(70, seed=5, truncation=0.7))
    assert np.concatenate([batch.latents for batch in batches]).shape == (70, 16)
    assert {batch.seed for batch in batches} == {5}
    labels = np.concatenate([batch.labels for batch in batches])
    assert np.array_equal(images, generator.sample(70, seed=5, truncation=0.7, labels=labels)), (
        "asking for the labels that were drawn changes nothing"
    )


def test_labels_are_drawn_as_often_as_in_the_training_images(
    generator: ReleasedGenerator,
) -> None:
    batches = generator.sample_batches(6400)
    drawn = np.bincount(np.concatenate([batch.labels for batch in batches]), minlength=10)
    expected = np.arange(1, 11) / 55  # the class counts of the fixture
    assert np.abs(drawn / 6400 - expected).max() < 0.02


def test_labels_choose_the_class(generator: ReleasedGenerator) -> None:
    zeros, ones = (generator.sample(4, labels=[label] * 4) for label in (0, 1))
    assert not np.array_equal(zeros, ones)


def test_an_unconditional_generator_does_not_read_labels(
    unconditional: ReleasedGenerator,
) -> None:
    images = unconditional.sample(4, seed=1)
    assert np.array_equal(images, unconditional.sample(4, seed=1, labels=[99, -5, 0, 3]))
    (batch,) = unconditional.sample_batches(4, seed=1)
    assert batch.labels.tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 10], "the label 10 is outside the 10 classes of digits; use 0 to 9"),
        ([-1, 0], "the label -1 is outside"),
        ([0], r"labels have shape \(1,\)"),
        ([[0, 1]], r"labels have shape \(1, 2\)"),
        ([0.0, 1.0], "type float64, but 2 integers are needed"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    labels: Sequence[Any], sentence: str, generator: ReleasedGenerator
) -> None:
    with pytest.raises(FoundryError, match=sentence):
        generator.sample(2, labels=labels)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 0}, "the number of images is 0, but it must be at least 1"),
        ({"seed": -1}, "the seed is -1, but it must be from 0 to"),
        ({"seed": 2**63}, "the seed is 9223372036854775808"),
        ({"truncation": 0.0}, "truncation is 0, but it must be above 0 and at most 1"),
        ({"truncation": 1.5}, r"truncation is 1\.5"),
        ({"truncation": float("nan")}, "truncation is nan"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_sampled(
    arguments: dict[str, Any], sentence: str, generator: ReleasedGenerator
) -> None:
    with pytest.raises(FoundryError, match=sentence):
        generator.sample_batches(**{"count": 1, **arguments})


def test_the_greatest_seed_samples(generator: ReleasedGenerator) -> None:
    assert generator.sample(1, seed=2**63 - 1).shape == (1, 16, 16, 1)


def test_truncation_shortens_the_latents_by_its_factor(generator: ReleasedGenerator) -> None:
    (whole,) = generator.sample_batches(20, seed=1)
    (half,) = generator.sample_batches(20, seed=1, truncation=0.5)
    assert np.allclose(half.latents, whole.latents / 2)
    assert not np.array_equal(half.images, whole.images)


def test_a_generator_that_was_saved_samples_the_same_images(
    generator: ReleasedGenerator, tmp_path: Path
) -> None:
    generator.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    loaded = load_generator(tmp_path)
    assert loaded.config == generator.config
    assert np.array_equal(loaded.sample(40, seed=7), generator.sample(40, seed=7))


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_folder_that_holds_no_generator_is_refused(
    missing: str, generator: ReleasedGenerator, tmp_path: Path
) -> None:
    generator.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FoundryError, match=f"is not a released generator: {missing} is missing"):
        load_generator(tmp_path)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ('"attention": ', "config.json.network.attention: Extra inputs are not permitted"),
        ('"latent_dim": -', "config.json.network.latent_dim: Input should be greater than"),
        ("?", "config.json: Invalid JSON"),
    ],
)
def test_a_description_by_another_version_is_refused(
    config: str, place: str, generator: ReleasedGenerator, tmp_path: Path
) -> None:
    generator.save(tmp_path)
    written = (tmp_path / CONFIG_FILE).read_text()
    (tmp_path / CONFIG_FILE).write_text(written.replace('"latent_dim": ', config))
    with pytest.raises(FoundryError) as caught:
        load_generator(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} cannot be loaded ({place}")
    assert str(caught.value).endswith("load it with the version of the project that wrote it.")


def test_damaged_weights_and_those_of_another_network_are_refused(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    make_generator().save(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    whole = weights.read_bytes()
    other = safetensors.torch.save({"other": torch.zeros(1)})
    for content in (whole[:-1], whole[:4], other):
        weights.write_bytes(content)
        with pytest.raises(FoundryError, match=r"cannot be loaded \(generator\.safetensors: \w"):
            load_generator(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="nowhere is not a released generator"):
        load_generator(tmp_path / "nowhere")


@pytest.mark.parametrize(("value", "pixel"), [(-1.0, 0), (0.0, 128), (1.0, 255), (0.5, 191)])
def test_network_output_is_rounded_to_pixels(value: float, pixel: int) -> None:
    pixels = to_uint8(torch.full((1, 3, 2, 4), value))
    assert pixels.shape == (1, 2, 4, 3)
    assert (pixels == pixel).all()


TEN_THOUSAND = """
import resource, sys
from pathlib import Path
import numpy as np
from gan_core.generator import ReleasedGenerator
generator = ReleasedGenerator.load(Path(sys.argv[1]))
def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
generator.sample(64)
before = peak_bytes()
images = generator.sample(10_000, seed=7)
print(peak_bytes() - before, images.nbytes)
"""


def test_ten_thousand_images_take_little_more_memory_than_they_fill(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    make_generator().save(tmp_path)
    command = [sys.executable, "-c", TEN_THOUSAND, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, filled = map(int, done.stdout.split())
    assert filled == 10_000 * 16 * 16
    # All at once, the first feature maps alone would be 80 MB.
    assert grown < 40_000_000
