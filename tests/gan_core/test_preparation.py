import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from gan_core.config import DataSettings
from gan_core.data.fitting import fit_image
from gan_core.data.image_set import IMAGES_FILE, ImageSet
from gan_core.data.manifest import MANIFEST_FILE, list_images
from gan_core.data.preparation import prepare_images
from gan_core.errors import FoundryError
from tests.conftest import PROJECT, subprocess_environment

MakeFolder = Callable[..., Path]
Fit = Literal["pad", "crop", "stretch"]


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., ImageSet]:
    """Lists and prepares a folder of images; something may happen to them in between."""

    def make(place: Path, *, meanwhile: Callable[[], Any] = lambda: None, **data: Any) -> ImageSet:
        settings = DataSettings(source="image_folder", path=str(place), **data)
        raw, prepared = tmp_path / "raw", tmp_path / "prepared"
        raw.mkdir()
        prepared.mkdir()
        list_images(settings, raw)
        meanwhile()
        return prepare_images(raw, settings, prepared)

    return make


def fitted(picture: PIL.Image.Image, fit: Fit, resolution: Any, channels: int = 1) -> np.ndarray:
    settings = DataSettings(source="digits", resolution=resolution, channels=channels, fit=fit)
    return fit_image(picture, settings)


def upright_bar() -> PIL.Image.Image:
    """A picture of 40x20 pixels whose middle half is white."""
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, 10:30] = 255
    return PIL.Image.fromarray(pixels)


def test_crop_keeps_the_centre() -> None:
    found = fitted(upright_bar(), "crop", 10)
    assert found.shape == (10, 10, 1)
    assert (found > 200).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["RGBA", "P"])
def test_what_is_transparent_is_black(kind: str, channels: int) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:] = (255, 0, 255, 0)  # what some program left below
    pixels[4:12, 4:12] = (200, 200, 200, 255)
    picture = PIL.Image.fromarray(pixels)
    if kind == "P":
        picture = picture.quantize(4)
    found = fitted(picture, "crop", 16, channels).copy()
    assert (found[4:12, 4:12] == 200).all()
    found[4:12, 4:12] = 0
    assert (found == 0).all()


def test_alpha_that_is_asked_for_is_kept() -> None:
    pixels = np.full((16, 16, 4), 100, np.uint8)
    assert (fitted(PIL.Image.fromarray(pixels), "crop", 16, 4) == pixels).all()


def test_pad_keeps_all_and_adds_black_bars() -> None:
    found = fitted(PIL.Image.new("L", (40, 20), 255), "pad", 16)
    assert found.shape == (16, 16, 1)
    assert (found[4:12] == 255).all()
    assert (found[:4] == 0).all()
    assert (found[12:] == 0).all()


def test_stretch_keeps_all_and_changes_the_aspect() -> None:
    found = fitted(upright_bar(), "stretch", 16)[:, :, 0].astype(int)
    assert found.shape == (16, 16)
    assert (found[:, 6:10] > 250).all()
    assert (found[:, [0, 1, 14, 15]] < 5).all()


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for fit in ("pad", "crop", "stretch"):
        assert np.array_equal(fitted(PIL.Image.fromarray(pixels), fit, (8, 12), 3), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_every_number_of_channels(mode: str, channels: int) -> None:
    found = fitted(PIL.Image.new(mode, (20, 20)), "crop", (8, 16), channels)
    assert found.shape == (8, 16, channels)
    assert found.dtype == np.uint8


def test_colours_keep_their_channels_and_pictures_without_alpha_are_opaque() -> None:
    found = fitted(PIL.Image.new("RGB", (8, 8), (10, 20, 30)), "crop", 8, 4)
    assert (found == (10, 20, 30, 255)).all()


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    pixels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "png")
    found = fitted(PIL.Image.open(buffer), "crop", 8)[:, :, 0]
    assert np.abs(found - pixels / 65535 * 255).max() <= 1.0


def test_images_of_another_shape_than_square_are_prepared(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    images = prepare(image_folder({"": 10}), resolution=(16, 24), channels=3)
    assert images.shape == (16, 24, 3)
    assert images.classes == 0
    assert set(images.train.labels) == {-1}


def test_training_images_come_first_each_with_its_label(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet], tmp_path: Path
) -> None:
    folder = image_folder({"a": 10, "b": 5}, size=(8, 8))
    images = prepare(folder, resolution=8, channels=3)
    manifest = pd.read_parquet(tmp_path / "raw" / MANIFEST_FILE)
    assert images.class_names == ("a", "b")
    assert images.description["class_counts"] == [8, 4]
    assert (len(images.train), len(images.held_out)) == (12, 3)
    for split, part in (("train", images.train), ("held_out", images.held_out)):
        rows = manifest[manifest["split"] == split]
        assert part.labels.tolist() == rows["label"].tolist()
        for name, pixels in zip(rows["name"], part.images, strict=True):
            assert np.array_equal(pixels, np.asarray(PIL.Image.open(folder / name)))


def test_the_prepared_set_is_described(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    images = prepare(image_folder({"a": 10}), resolution=8, channels=1, fit="pad")
    stated = {key: images.description[key] for key in ("height", "width", "channels", "fit")}
    assert stated == {"height": 8, "width": 8, "channels": 1, "fit": "pad"}


def test_the_hash_covers_pixels_and_what_they_stand_for(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    def prepared_hash(**settings: Any) -> str:
        chosen = DataSettings(source="image_folder", path=str(folder), resolution=8, **settings)
        raw, prepared = (Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2))
        list_images(chosen, raw)
        return prepare_images(raw, chosen, prepared).sha256

    folder = image_folder({"a": 10, "b": 10})
    found = prepared_hash()
    assert prepared_hash() == found
    assert prepared_hash(split_seed=1) != found
    (folder / "a").rename(folder / "aa")
    assert prepared_hash() != found


def test_images_that_were_set_aside_leave_no_gap(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    folder = image_folder({"a": 100}, size=(8, 8))
    (folder / "a" / "0042.png").write_bytes(b"no image")
    images = prepare(folder, resolution=8, channels=3)
    assert len(images.train) + len(images.held_out) == 99
    assert all(image.any() for image in [*images.train.images, *images.held_out.images])


def test_an_image_that_changed_after_listing_is_an_error(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    folder = image_folder({"a": 10})

    def change() -> None:
        PIL.Image.new("RGB", (20, 20)).save(folder / "a" / "0003.png")

    with pytest.raises(FoundryError, match=r"a/0003\.png changed after it was listed"):
        prepare(folder, meanwhile=change, resolution=8)


def test_an_image_that_is_gone_after_listing_is_an_error(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    folder = image_folder({"a": 10})
    with pytest.raises(FoundryError, match="1 of 10 listed images are gone"):
        prepare(folder, meanwhile=(folder / "a" / "0003.png").unlink, resolution=8)


def test_an_image_that_came_after_listing_is_left_out(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet]
) -> None:
    folder = image_folder({"a": 10})

    def add() -> None:
        PIL.Image.new("RGB", (20, 20)).save(folder / "a" / "new.png")

    images = prepare(folder, meanwhile=add, resolution=8)
    assert len(images.train) + len(images.held_out) == 10


def test_a_label_outside_the_classes_is_an_error(
    image_folder: MakeFolder, prepare: Callable[..., ImageSet], tmp_path: Path
) -> None:
    def mislabel() -> None:
        path = tmp_path / "raw" / MANIFEST_FILE
        manifest = pd.read_parquet(path)
        manifest.loc[4, "label"] = 7
        manifest.to_parquet(path)

    sentence = r"a/0004\.png has label 7, but the labels of the 2 classes are 0 to 1"
    with pytest.raises(FoundryError, match=sentence):
        prepare(image_folder({"a": 5, "b": 5}), meanwhile=mislabel, resolution=8)
    assert list((tmp_path / "prepared").iterdir()) == []


# Prepares a small set and then a large one under a limit on the process's own memory; the last
# lines show that the limit is one.
UNDER_A_MEMORY_LIMIT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from gan_core.config import DataSettings
from gan_core.data.preparation import prepare_images

small, large, allowance_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def prepare(folder):
    settings = DataSettings(**json.loads((folder / "raw" / "raw_images.json").read_text())["data"])
    return prepare_images(folder / "raw", settings, folder / "prepared")

prepare(small)
status = Path("/proc/self/status").read_text()
in_use_bytes = int(status.partition("VmData:")[2].split()[0]) * 1024
limit_bytes = in_use_bytes + allowance_bytes
resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
images = prepare(large)
shape = (len(images.train) + len(images.held_out), *images.shape)
try:
    np.zeros(shape, np.uint8)
except MemoryError:
    print(np.prod(shape))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_does_not_grow_with_the_set(image_folder: MakeFolder, tmp_path: Path) -> None:
    allowance_bytes = 32 << 20
    place = image_folder({"": 250}, size=(8, 8))
    for name, resolution in (("small", 64), ("large", 512)):
        (tmp_path / name / "raw").mkdir(parents=True)
        (tmp_path / name / "prepared").mkdir()
        settings = DataSettings(source="image_folder", path=str(place), resolution=resolution)
        list_images(settings, tmp_path / name / "raw")
    places = str(tmp_path / "small"), str(tmp_path / "large")
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_MEMORY_LIMIT, *places, str(allowance_bytes)],
        cwd=PROJECT,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    written = tmp_path / "large" / "prepared" / IMAGES_FILE
    size_bytes = written.stat().st_size if written.exists() else 0
    written.unlink(missing_ok=True)  # pytest keeps its folders
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5 * allowance_bytes, "the limit did not bite"
    assert size_bytes > int(done.stdout)
    description = json.loads((tmp_path / "large" / "prepared" / "dataset.json").read_text())
    assert description["counts"] == {"train": 200, "held_out": 50}
