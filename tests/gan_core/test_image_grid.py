import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from gan_core.image_grid import display_scale, grid_columns, make_grid, png_bytes, save_png


def test_a_grid_lays_images_out_row_by_row_with_white_between() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    grid = make_grid(images, columns=3)
    assert grid.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
    for index in range(5):
        top, left = index // 3 * 3, index % 3 * 4
        assert (grid[top : top + 2, left : left + 3] == index).all()
    assert (grid[2] == 255).all()
    assert (grid[:, 3] == 255).all()
    assert (grid[3:, 8:] == 255).all(), "the last row is filled up with white"


@pytest.mark.parametrize(
    ("count", "classes", "columns"),
    [(64, 0, 8), (64, 10, 10), (10, 0, 4), (5, 10, 3), (100, 100, 10), (1, 0, 1), (9, 1, 3)],
)
def test_few_classes_have_a_column_each(count: int, classes: int, columns: int) -> None:
    assert grid_columns(count, classes) == columns


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_holds_the_pixels_enlarged(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, channels), dtype=np.uint8)
    picture = PIL.Image.open(io.BytesIO(png_bytes(pixels, scale=3)))
    assert picture.size == (18, 12)
    small = np.asarray(picture)[1::3, 1::3].reshape(4, 6, channels)
    assert np.array_equal(small, pixels)


def test_a_png_on_disk_is_the_one_in_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    save_png(pixels, tmp_path / "a.png")
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize(("side", "scale"), [(16, 30), (100, 4), (480, 1), (2000, 1)])
def test_small_pictures_are_enlarged_for_display(side: int, scale: int) -> None:
    assert display_scale(np.zeros((side // 2, side, 1), np.uint8)) == scale
