import contextlib
import errno
import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torchvision.datasets

from gan_core.config import DataSettings
from gan_core.data.download import MIRROR_VARIABLE
from gan_core.data.sources import SourceImage, open_source
from gan_core.errors import FoundryError

MakeFolder = Callable[..., Path]


def read(place: Path | str, tmp_path: Path) -> tuple[list[str], list[SourceImage]]:
    """Class names and images of an `image_folder`."""
    source = open_source(DataSettings(source="image_folder", path=str(place)), tmp_path / "source")
    source.download()
    return source.class_names, list(source)


def zip_folder(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def encoded(image: PIL.Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes) -> PIL.Image.Image:
    return SourceImage("x", content, None, None).decode()


def test_digits_are_1797_images_of_ten_classes(tmp_path: Path) -> None:
    source = open_source(DataSettings(source="digits"), tmp_path)
    images = list(source)
    assert len(images) == 1797
    assert source.class_names == list("0123456789")
    assert Counter(image.label for image in images)[3] == 183
    assert {image.split for image in images} == {None}
    first = np.asarray(images[0].decode())
    assert first.shape == (8, 8)
    assert first.dtype == np.uint8
    assert max(int(np.asarray(image.decode()).max()) for image in images) == 255


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in MNIST's file format."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.mark.parametrize(
    ("source_name", "dataset", "folder"),
    [
        ("mnist", "MNIST", "mnist"),
        ("fashion_mnist", "FashionMNIST", "fashion-mnist"),
        ("kmnist", "KMNIST", "kmnist"),
    ],
)
def test_sets_in_mnist_format_are_read_with_their_official_splits(
    source_name: str,
    dataset: str,
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = np.random.default_rng(0)
    pixels = {"train": (20, 28, 28), "t10k": (5, 28, 28)}
    mirror = tmp_path / "mirror" / folder
    mirror.mkdir(parents=True)
    resources, held = [], {}
    for part, shape in pixels.items():
        images = stream.integers(0, 256, shape, dtype=np.uint8)
        labels = stream.integers(0, 10, shape[0], dtype=np.uint8)
        held[part] = images, labels
        for name, content in (("images-idx3", idx(images)), ("labels-idx1", idx(labels))):
            file = mirror / f"{part}-{name}-ubyte.gz"
            file.write_bytes(content)
            resources.append((file.name, hashlib.md5(content, usedforsecurity=False).hexdigest()))
    monkeypatch.setattr(getattr(torchvision.datasets, dataset), "resources", resources)
    monkeypatch.setenv(MIRROR_VARIABLE, mirror.parent.as_uri())

    source = open_source(DataSettings(source=source_name), tmp_path / "source")
    source.download()
    found = list(source)

    assert len(source.class_names) == 10
    for split, part in (("train", "train"), ("held_out", "t10k")):
        of_split = [image for image in found if image.split == split]
        images, labels = held[part]
        assert [image.label for image in of_split] == labels.tolist()
        assert np.array_equal([np.asarray(image.decode()) for image in of_split], images)
    assert len({image.name for image in found}) == 25


def test_mnist_classes_are_named_by_their_digits(tmp_path: Path) -> None:
    assert open_source(DataSettings(source="mnist"), tmp_path).class_names == list("0123456789")


def test_cifar10_is_read_in_colour_with_its_official_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = torchvision.datasets.CIFAR10
    mirror = tmp_path / "mirror" / "cifar10"
    mirror.mkdir(parents=True)
    stream = np.random.default_rng(0)
    names = [name for name, _ in [*dataset.train_list, *dataset.test_list]]
    labels = [int(label) for label in stream.integers(0, 10, len(names))]
    pixels = stream.integers(0, 256, (len(names), 3, 32, 32), dtype=np.uint8)
    content = {"batches.meta": pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})}
    for name, label, image in zip(names, labels, pixels, strict=True):
        content[name] = pickle.dumps({"data": image.reshape(1, -1), "labels": [label]})
    md5 = {
        name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in content.items()
    }
    with tarfile.open(mirror / dataset.filename, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(f"{dataset.base_folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    whole = (mirror / dataset.filename).read_bytes()
    monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(whole, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(dataset, "train_list", [[n, md5[n]] for n, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [[n, md5[n]] for n, _ in dataset.test_list])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5["batches.meta"]})
    monkeypatch.setenv(MIRROR_VARIABLE, mirror.parent.as_uri())

    source = open_source(DataSettings(source="cifar10"), tmp_path / "source")
    source.download()
    found = list(source)

    assert source.class_names == [f"class {i}" for i in range(10)]
    assert [image.split for image in found] == ["train"] * 5 + ["held_out"]
    assert [image.label for image in found] == labels
    assert np.array_equal(np.asarray(found[0].decode()), pixels[0].transpose(1, 2, 0))


@pytest.mark.mirror
@pytest.mark.parametrize("source_name", ["mnist", "fashion_mnist"])
def test_real_sets_of_the_mirror_have_their_published_counts(
    source_name: str, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, mirror)
    source = open_source(DataSettings(source=source_name), tmp_path)
    source.download()
    counts = Counter((image.split, image.label) for image in source)
    assert counts.total() == 70_000
    assert sum(count for (split, _), count in counts.items() if split == "held_out") == 10_000
    assert counts["train", 0] == {"mnist": 5923, "fashion_mnist": 6000}[source_name]


@pytest.mark.mirror
def test_the_colour_zip_of_the_mirror_is_verified_and_read(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, mirror)
    settings = DataSettings(
        source="image_folder",
        archive="cifar10-20pct/cifar10-20pct.zip",
        sha256="de69f30f355c37694543000d8c05ab51b0ad519368e9d1b360fbaceb3be5c04d",
    )
    source = open_source(settings, tmp_path)
    source.download()
    counts = Counter((image.split, image.label) for image in source)
    assert counts == {
        (split, label): 1000 for split in ("train", "held_out") for label in range(10)
    }
    assert np.asarray(next(iter(source)).decode()).shape == (32, 32, 3)


def test_class_folders_are_the_labels(image_folder: MakeFolder, tmp_path: Path) -> None:
    names, images = read(image_folder({"dog": 2, "cat": 3}), tmp_path)
    assert names == ["cat", "dog"]
    assert [image.label for image in images] == [0, 0, 0, 1, 1]
    assert images[0].name == "cat/0000.png"
    assert {image.split for image in images} == {None}


def test_folders_within_a_class_belong_to_it(image_folder: MakeFolder, tmp_path: Path) -> None:
    names, images = read(image_folder({"cat/indoors": 2, "cat/out": 1, "dog": 1}), tmp_path)
    assert names == ["cat", "dog"]
    assert [image.label for image in images] == [0, 0, 0, 1]


def test_links_to_folders_are_followed_but_not_in_circles(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 2})
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "cat" / "0000.png", tmp_path / "elsewhere" / "other.png")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    names, images = read(folder, tmp_path)
    assert names == ["cat", "dog"]
    assert [image.name for image in images] == ["cat/0000.png", "cat/0001.png", "dog/other.png"]


def test_a_name_that_is_not_utf8_is_an_error(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"": 2})
    (folder / "0000.png").rename(os.fsdecode(os.fsencode(folder / "caf") + b"\xe9.png"))
    with pytest.raises(FoundryError, match=r"whose name is not UTF-8, caf\\xe9.png; rename it"):
        read(folder, tmp_path)


def test_a_folder_that_is_closed_to_us_is_an_error(
    image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder({"cat": 2, "dog": 2})
    look = Path.iterdir

    def closed(place: Path) -> Iterator[Path]:  # the tests may run as root, who sees everything
        if place.name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(place)

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(FoundryError, match=r"dog cannot be read \(Permission denied\)"):
        read(folder, tmp_path)


@pytest.mark.parametrize("closed_name", ["images", "cat"])
def test_a_place_whose_kind_is_closed_to_us_is_an_error(
    closed_name: str, image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder({"cat": 2}).rename(tmp_path / "images")
    look = Path.stat

    def closed(place: Path, **options: bool) -> os.stat_result:
        if place.name == closed_name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(place, **options)

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(FoundryError, match=r"images cannot be read \(Permission denied\)"):
        read(folder, tmp_path)


def test_images_without_folders_have_no_labels(image_folder: MakeFolder, tmp_path: Path) -> None:
    names, images = read(image_folder({"": 4}), tmp_path)
    assert names == []
    assert {image.label for image in images} == {None}


def test_train_and_test_folders_are_the_splits(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"train/a": 2, "train/b": 1, "test/a": 1})
    names, images = read(folder, tmp_path)
    assert names == ["a", "b"]
    found = [(image.split, image.label) for image in images]
    assert sorted(found) == [("held_out", 0), ("train", 0), ("train", 0), ("train", 1)]


def test_train_and_test_folders_may_hold_images_without_classes(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    names, images = read(image_folder({"train": 2, "test": 1}), tmp_path)
    assert names == []
    assert Counter(image.split for image in images) == {"train": 2, "held_out": 1}


def test_a_zip_reads_like_the_folder(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"train/a": 2, "train/b": 1, "test/a": 1})
    archive = zip_folder(folder, tmp_path / "images.zip")
    assert read(archive, tmp_path) == read(folder, tmp_path)


def test_a_zip_of_windows_reads_like_the_folder(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"train/a": 2, "train/b": 1, "test/a": 1})
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._0000.png").write_bytes(b"left by an archiver")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("train\\", b"")
        for path in folder.rglob("*.png"):
            info = zipfile.ZipInfo(str(path.relative_to(folder)))
            info.filename = info.filename.replace("/", "\\")
            archive.writestr(info, path.read_bytes())
    assert read(tmp_path / "images.zip", tmp_path) == read(folder, tmp_path)


def test_a_damaged_zip_is_named(image_folder: MakeFolder, tmp_path: Path) -> None:
    archive = zip_folder(image_folder({"a": 1}), tmp_path / "images.zip")
    archive.write_bytes(archive.read_bytes().replace(b"PK\x01\x02", b"PK\xff\x02"))
    with pytest.raises(FoundryError, match=r"images\.zip is a damaged zip file \(Bad .*anew\."):
        read(archive, tmp_path)


def test_names_in_a_zip_may_begin_with_a_dot(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"a": 1, "b": 1})
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.writestr(f"./{path.relative_to(folder)}", path.read_bytes())
    assert read(tmp_path / "images.zip", tmp_path) == read(folder, tmp_path)


def test_jpeg_and_webp_are_read_and_other_files_passed_over(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"": 1})
    picture = PIL.Image.new("RGB", (9, 7))
    (folder / "b.JPG").write_bytes(encoded(picture, "jpeg"))
    (folder / "c.webp").write_bytes(encoded(picture, "webp"))
    (folder / "notes.txt").write_text("not an image")
    (folder / ".thumbnail.png").write_bytes(b"hidden")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "d.png").write_bytes(b"left by an archiver")
    _, images = read(folder, tmp_path)
    assert [image.name for image in images] == ["0000.png", "b.JPG", "c.webp"]
    assert [image.decode().size for image in images[1:]] == [(9, 7), (9, 7)]


def test_loose_images_beside_class_folders_are_an_error(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 2, "": 1})
    with pytest.raises(FoundryError, match=r"mixes class folders .* such as 0000\.png"):
        read(folder, tmp_path)


def test_a_loose_image_within_the_folder_around_class_folders_is_an_error(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"set/cat": 2, "set/dog": 2})
    assert read(folder, tmp_path)[0] == ["cat", "dog"]
    (folder / "set" / "cat" / "0000.png").rename(folder / "set" / "cover.png")
    with pytest.raises(FoundryError, match=r"one folder, set, with images, such as set/cover\.png"):
        read(folder, tmp_path)


def test_an_archive_of_the_mirror_may_have_any_name(
    image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror" / "sets").mkdir(parents=True)
    folder = image_folder({"a": 1, "b": 1})
    archive = zip_folder(folder, tmp_path / "mirror" / "sets" / "a:b c.zip")
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "mirror").as_uri())
    settings = DataSettings(
        source="image_folder",
        archive="sets/a:b c.zip",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
    )
    source = open_source(settings, tmp_path / "source")
    source.download()
    assert source.class_names == ["a", "b"]


def test_an_archive_is_called_by_its_path_alone(image_folder: MakeFolder, tmp_path: Path) -> None:
    archive = zip_folder(image_folder({"a": 1, "b": 1}), tmp_path / "faces.zip")
    settings = DataSettings(
        source="image_folder",
        archive=f"https://example.org/faces.zip?sig={'x' * 300}",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
    )
    (tmp_path / "source").mkdir()
    shutil.copyfile(archive, tmp_path / "source" / "faces.zip")
    source = open_source(settings, tmp_path / "source")
    source.download()  # it is there
    assert source.class_names == ["a", "b"]
    (tmp_path / "source" / "faces.zip").unlink()
    with pytest.raises(FoundryError, match=r"^faces.zip could not be downloaded: .*sig=\*\*\* \("):
        source.download()


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("")
    with pytest.raises(FoundryError, match=r"empty holds no images.*\(1 other files"):
        read(tmp_path / "empty", tmp_path)


def test_a_place_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match=r"data\.path .*nowhere does not exist"):
        read(tmp_path / "nowhere", tmp_path)


def test_a_file_that_is_no_zip_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "faces.zip").write_text("no zip")
    with pytest.raises(FoundryError, match=r"faces\.zip is neither a folder nor a zip"):
        read(tmp_path / "faces.zip", tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_what_is_in_a_file_counts_and_not_its_name(kind: str) -> None:
    assert decoded(encoded(PIL.Image.new("RGB", (8, 4)), kind)).size == (8, 4)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"], ids=lambda mode: mode
)
def test_pictures_of_every_mode_decode(mode: str) -> None:
    kind = "jpeg" if mode == "CMYK" else "png"
    assert decoded(encoded(PIL.Image.new(mode, (9, 7)), kind)).size == (9, 7)


def test_a_photograph_is_turned_upright() -> None:
    picture = PIL.Image.new("RGB", (8, 4))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn clockwise
    upright = decoded(encoded(picture, exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((3, 0)) == (255, 0, 0)


def test_damaged_notes_of_the_camera_do_not_stop_the_reading() -> None:
    exif = PIL.Image.Exif()
    exif[0x010E], exif[0x0112] = "hello", 6
    photograph = bytearray(encoded(PIL.Image.new("RGB", (8, 4)), "jpeg", exif=exif))
    photograph[photograph.index(b"Exif") + 17] = 62
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # To set the image aside is as good as to read it.
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            assert decoded(bytes(photograph)).size in {(8, 4), (4, 8)}
