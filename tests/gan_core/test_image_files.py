import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from gan_core.config import DataSettings
from gan_core.data.image_files import read_images
from gan_core.errors import FoundryError

SETTINGS = DataSettings(source="digits", resolution=8, channels=1)
CLASSES = ["0", "1", "2"]


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_folder(folder: Path, names: list[str], images: np.ndarray) -> Path:
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / name)
    return folder


def test_a_folder_of_the_right_size_is_read_as_it_is(tmp_path: Path) -> None:
    images = random_images(3, 8, 8)
    write_folder(tmp_path, ["a.png", "b.png", "c.png"], images)
    found, labels = read_images(tmp_path, SETTINGS, CLASSES)
    assert np.array_equal(found[..., 0], images)
    assert labels is None


def test_class_folders_of_the_pipelines_names_are_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, ["2/a.png", "0/b.png", "2/c.png"], random_images(3, 20, 30, 3))
    found, labels = read_images(tmp_path, SETTINGS, CLASSES)
    assert found.shape == (3, 8, 8, 1)
    assert labels is not None
    assert labels.tolist() == [0, 2, 2]


def test_folders_of_other_names_tell_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, ["cats/a.png", "0/b.png"], random_images(2, 8, 8))
    assert read_images(tmp_path, SETTINGS, CLASSES)[1] is None


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 12, 12, 1), (5, 8, 8, 3)])
def test_an_archive_is_brought_to_the_pipelines_size(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    images = random_images(*shape)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1, 2, 0, 1]))
    found, labels = read_images(tmp_path / "a.npz", SETTINGS, CLASSES)
    assert found.shape == (5, 8, 8, 1)
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 0, 1]
    if shape == (5, 8, 8, 1):
        assert np.array_equal(found, images)


def test_labels_that_are_none_are_not_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=random_images(2, 8, 8, 1), labels=np.array([-1, -1]))
    assert read_images(tmp_path / "a.npz", SETTINGS, CLASSES)[1] is None


TWO = {"images": np.zeros((2, 8, 8, 1), np.uint8)}


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"pictures": np.zeros((2, 8, 8, 1), np.uint8)}, "it needs an array `images`"),
        ({"images": np.zeros((2, 8, 8, 1))}, "have type float64 and shape (2, 8, 8, 1)"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "must be uint8 of shape"),
        ({"images": np.array([None])}, "cannot be read"),
        ({"images": np.zeros((0, 8, 8, 1), np.uint8)}, "shape (0, 8, 8, 1), which is no image"),
        ({"images": np.zeros((2, 0, 8, 1), np.uint8)}, "shape (2, 0, 8, 1), which is no image"),
        ({**TWO, "labels": np.array(["a", "b"])}, "`labels` in"),
        ({**TWO, "labels": np.array([0.5, 1.5])}, "have type float64, but must be integers"),
    ],
)
def test_a_wrong_archive_is_one_sentence(arrays: dict[str, Any], part: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FoundryError) as caught:
        read_images(tmp_path / "a.npz", SETTINGS, CLASSES)
    assert part in str(caught.value)
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_what_is_no_archive_or_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("a.npz", "cannot be read"),
        ("b.npz", "does not exist"),
        ("nowhere", "does not exist"),
        ("empty", "holds no images"),
    ):
        with pytest.raises(FoundryError, match=part):
            read_images(tmp_path / name, SETTINGS, CLASSES)


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "a.npz"
    np.savez_compressed(place, images=random_images(20, 8, 8, 1))
    whole = place.read_bytes()
    array = io.BytesIO()
    np.save(array, random_images(2, 8, 8, 1))
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(20) + whole[middle + 20 :]
    for content in (b"", array.getvalue(), damaged, whole[:middle]):
        place.write_bytes(content)
        with pytest.raises(FoundryError, match=r"a\.npz cannot be read .* needs an array `images`"):
            read_images(place, SETTINGS, CLASSES)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a.png"], random_images(1, 8, 8))
    (tmp_path / "b.png").write_bytes(b"damaged")
    with pytest.raises(FoundryError, match=r"the image b\.png in .* cannot be read"):
        read_images(tmp_path, SETTINGS, CLASSES)
