import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_core.data.image_set import ImageSet
from gan_core.evaluation.page import write_page
from gan_core.evaluation.pictures import (
    TRUNCATIONS,
    beside_real,
    interpolation,
    nearest_pairs,
    truncation_sweep,
)
from gan_core.evaluation.report import PAGE_FILE, NearestPair
from gan_core.generator import ReleasedGenerator
from gan_core.interpolation import spherical
from tests.gan_core.evaluation_samples import make_evaluation

MakeGenerator = Callable[..., ReleasedGenerator]

JOURNAL = [
    {"event": "progress", "kimg": kimg, "generator_loss": 1.0, "discriminator_loss": 0.5}
    for kimg in (1.0, 2.0)
] + [{"event": "evaluation", "kimg": 2.0, "distance": 9.0}]


@pytest.fixture
def page(digit_images: ImageSet, make_generator: MakeGenerator, tmp_path: Path) -> str:
    write_page(
        tmp_path,
        "digits <1>",
        make_evaluation(passed=False),
        digit_images.train.images[:100],
        digit_images.train.labels[:100],
        digit_images,
        make_generator(),
        JOURNAL,
    )
    return (tmp_path / PAGE_FILE).read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 7
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "@import" not in page
    assert 'name="viewport"' in page


def test_the_page_says_what_was_measured_and_what_the_checks_found(page: str) -> None:
    for words in (
        "digits &lt;1&gt;",
        "frechet distance",
        "4.126",
        "3.713 to 4.539",
        "second space: frechet distance",
        "recall is 0.1, not at least 0.3",
        "the checks of collapse fail",
        "Held-out real images",
        "98.0 %",
        "truncation 0.2, 0.4, 0.6, 0.8, 1",
        "The distance while training",
        "k = 5",
    ):
        assert words in page


def test_images_of_unknown_origin_have_a_page_without_latents(
    digit_images: ImageSet, tmp_path: Path
) -> None:
    samples = digit_images.train.images[:30]
    write_page(tmp_path, "mine", make_evaluation(None), samples, None, digit_images)
    page = (tmp_path / PAGE_FILE).read_text(encoding="utf-8")
    assert "Held-out real images" in page
    assert "truncation" not in page
    assert "<h2>Classes</h2>" not in page


def test_generated_and_real_images_of_a_class_stand_in_the_same_place(
    digit_images: ImageSet,
) -> None:
    train = digit_images.train
    ours, real = beside_real(train.images, train.labels, digit_images)
    assert ours.shape == real.shape == (6 * 17 - 1, 10 * 17 - 1, 1)
    first_of_class_1 = train.images[train.labels == 1][0]
    np.testing.assert_array_equal(ours[:16, 17:33], first_of_class_1)
    np.testing.assert_array_equal(
        real[17:33, 17:33], digit_images.held_out.images[digit_images.held_out.labels == 1][1]
    )


def test_a_class_that_is_missing_is_filled_with_another(digit_images: ImageSet) -> None:
    rows = digit_images.train.labels != 3
    ours, real = beside_real(
        digit_images.train.images[rows], digit_images.train.labels[rows], digit_images
    )
    assert ours.shape == real.shape


def test_interpolation_begins_and_ends_at_its_latents_at_equal_angles() -> None:
    begin, end = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    points = spherical(begin, end, torch.linspace(0, 1, 4))
    angles = torch.atan2(points[:, 1], points[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, torch.pi / 2, 4))
    torch.testing.assert_close(points.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(
        spherical(begin, begin, torch.tensor([0.0, 0.5])), begin.repeat(2, 1)
    )
    opposite = spherical(torch.tensor([1.0]), torch.tensor([-0.5]), torch.linspace(0, 1, 4))
    torch.testing.assert_close(opposite, torch.tensor([[1.0], [0.5], [0.0], [-0.5]]))


def test_grids_of_latents_have_a_row_each(make_generator: MakeGenerator) -> None:
    assert interpolation(make_generator()).shape == (6 * 17 - 1, 9 * 17 - 1, 1)
    sweep = truncation_sweep(make_generator())
    assert sweep.shape == (len(TRUNCATIONS) * 17 - 1, 9 * 17 - 1, 1)


def test_nearest_pairs_stand_one_above_the_other(digit_images: ImageSet) -> None:
    images = digit_images.train.images
    pairs = [NearestPair(sample=i, training_image=i + 5, distance=1.0) for i in range(3)]
    grid = nearest_pairs(pairs, images, images)
    assert grid is not None
    np.testing.assert_array_equal(grid[:16, 17:33], images[1])
    np.testing.assert_array_equal(grid[17:33, 17:33], images[6])
    assert nearest_pairs([], images, images) is None
