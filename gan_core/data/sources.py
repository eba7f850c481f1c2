"""Sources of images: each downloads or finds its files, and reads its images one by one.

What the images are made into is the business of `preparation`.
"""

import contextlib
import hashlib
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import PIL.ImageOps

from gan_core.config import DataSettings
from gan_core.data.download import RemoteFile, fetch
from gan_core.errors import FoundryError

TRAIN, HELD_OUT = "train", "held_out"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")  # as Pillow calls them
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    PIL.Image.DecompressionBombError,
)
UNREADABLE = (  # what reading a file, or an archive's entry, raises
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
DAMAGED_EXIF = (TypeError, ValueError, KeyError, SyntaxError, OSError, struct.error)
SPLIT_FOLDERS = {"train": TRAIN, "test": HELD_OUT}
SPLIT_LIKE_FOLDERS = {"train", "training", "test", "testing", "val", "valid", "validation"}


@dataclass(frozen=True)
class SourceImage:
    """One image as its source holds it.

    Attributes:
        name: Unique within the source; for files the path below the source's folder.
        content: The file's bytes, or the pixels of a data set that is one array.
        split: `train` or `held_out` where the source has an official split.
        label: Index into the source's `class_names`, or None.
    """

    name: str
    content: bytes | np.ndarray
    split: str | None
    label: int | None

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        data = self.content
        return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()

    def measure(self) -> tuple[int, int, int]:
        """Height and width in pixels, and size in bytes; a file is decoded for it.

        Raises:
            One of `DECODE_ERRORS`: It does not decode.
        """
        if isinstance(self.content, np.ndarray):
            height, width = self.content.shape[:2]
            return height, width, self.content.nbytes
        picture = self.decode()
        return picture.height, picture.width, len(self.content)

    def decode(self) -> PIL.Image.Image:
        """The picture, upright.

        Raises:
            One of `DECODE_ERRORS`: It does not decode.
        """
        if isinstance(self.content, np.ndarray):
            return PIL.Image.fromarray(self.content)
        image = _open(self.content)
        image.load()
        try:
            return PIL.ImageOps.exif_transpose(image)
        except DAMAGED_EXIF:
            return image  # the picture is whole; which way was up is not known


def _open(content: bytes) -> PIL.Image.Image:
    """The picture in a file, not decoded yet.

    Those that it should be are tried first: Pillow tries forty before it comes to WebP.
    """
    if not content:
        raise PIL.UnidentifiedImageError("it is empty, damaged, encrypted or closed to us")
    try:
        return PIL.Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
    except PIL.UnidentifiedImageError:
        pass
    try:
        return PIL.Image.open(io.BytesIO(content))  # its name is that of another format
    except PIL.UnidentifiedImageError:  # whose text names an address in this memory
        raise PIL.UnidentifiedImageError("it is of no known format") from None


class Source(ABC):
    """Where images come from.

    Args:
        settings: The pipeline's data settings.
        folder: Where downloaded files lie, or shall lie.
    """

    licence: ClassVar[str] = "not stated"

    def __init__(self, settings: DataSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder

    def download(self) -> None:  # noqa: B027  # most sources of one's own have nothing to fetch
        """Bring all files into the folder, verified.

        Raises:
            FoundryError: A file cannot be had or is not the published one.
        """

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes by label; empty for a source without labels."""

    @abstractmethod
    def __iter__(self) -> Iterator[SourceImage]:
        """All images in a fixed order, read one at a time."""


class Digits(Source):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries."""

    licence = "CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository)"

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def __iter__(self) -> Iterator[SourceImage]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        # scikit-learn counts the ink of 4x4 cells: 0 to 16.
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        for index, (image, label) in enumerate(zip(pixels, bunch.target, strict=True)):
            yield SourceImage(f"{index:04d}", image, None, int(label))


class _TorchvisionSource(Source):
    """A data set that torchvision reads, from files verified against torchvision's checksums."""

    dataset_name: ClassVar[str]

    @property
    def dataset_class(self) -> Any:
        import torchvision.datasets

        return getattr(torchvision.datasets, self.dataset_name)

    def _open(self, *, train: bool) -> Any:
        return self.dataset_class(self.folder, train=train, download=False)

    def __iter__(self) -> Iterator[SourceImage]:
        for split, train in ((TRAIN, True), (HELD_OUT, False)):
            dataset = self._open(train=train)
            images, labels = np.asarray(dataset.data), np.asarray(dataset.targets)
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield SourceImage(f"{split}/{index:05d}", image, split, int(label))


class Mnist(_TorchvisionSource):
    """MNIST and the sets that are published in its file format."""

    dataset_name = "MNIST"
    mirror_folder: ClassVar[str] = "mnist"
    licence = "CC BY-SA 3.0 (Y. LeCun, C. Cortes)"

    def download(self) -> None:
        from torchvision.datasets.utils import extract_archive

        dataset = self.dataset_class
        raw = self.folder / self.dataset_name / "raw"
        for name, md5 in dataset.resources:
            remote = RemoteFile(
                f"{self.mirror_folder}/{name}",
                f"md5:{md5}",
                tuple(base + name for base in dataset.mirrors),
            )
            extract_archive(str(fetch(remote, raw)), str(raw))

    @property
    def class_names(self) -> list[str]:
        return [str(name).partition(" - ")[0] for name in self.dataset_class.classes]


class FashionMnist(Mnist):
    """Fashion-MNIST."""

    dataset_name = "FashionMNIST"
    mirror_folder = "fashion-mnist"
    licence = "MIT (Zalando SE)"


class Kmnist(Mnist):
    """Kuzushiji-MNIST."""

    dataset_name = "KMNIST"
    mirror_folder = "kmnist"
    licence = "CC BY-SA 4.0 (ROIS-DS Center for Open Data in the Humanities)"


class Cifar10(_TorchvisionSource):
    """CIFAR-10."""

    dataset_name = "CIFAR10"
    licence = "not stated (A. Krizhevsky 2009)"

    def download(self) -> None:
        from torchvision.datasets.utils import extract_archive

        dataset = self.dataset_class
        remote = RemoteFile(f"cifar10/{dataset.filename}", f"md5:{dataset.tgz_md5}", (dataset.url,))
        extract_archive(str(fetch(remote, self.folder)), str(self.folder))

    @property
    def class_names(self) -> list[str]:
        return list(self._open(train=False).classes)


class ImageFolder(Source):
    """One's own PNG, JPEG and WebP files: a folder or a zip, with class subfolders or without.

    If the first level is exactly `train` and `test`, they are the splits and the level below may
    be classes; else the first level may be classes.
    """

    licence = "as the owner of the images states"

    def download(self) -> None:
        if self.settings.archive is not None:
            address = self.settings.archive
            direct = "://" in address
            remote = RemoteFile(
                _file_name(address) if direct else address,
                f"sha256:{self.settings.sha256}",
                (address,) if direct else (),
            )
            fetch(remote, self.folder)

    @property
    def place(self) -> Path:
        """The folder or zip that holds the images."""
        if self.settings.archive is not None:
            address = self.settings.archive
            name = _file_name(address) if "://" in address else address.rpartition("/")[2]
            return self.folder / name
        return Path(str(self.settings.path)).expanduser()

    @cached_property
    def _files(self) -> dict[PurePosixPath, Path | zipfile.ZipInfo]:
        """The image files, by their path below the place."""
        place = self.place
        with _readable(place):
            exists, is_folder = place.exists(), place.is_dir()
            is_archive = place.is_file() and zipfile.is_zipfile(place)
        found: dict[PurePosixPath, Path | zipfile.ZipInfo]
        if is_folder:
            found = {
                PurePosixPath(item.relative_to(place).as_posix()): item
                for item in files_below(place)
            }
        elif is_archive:
            try:
                with zipfile.ZipFile(place) as archive:
                    infos = archive.infolist()
            except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
                raise FoundryError(
                    f"data.path {place} is a damaged zip file ({error}); bring it anew."
                ) from None
            # Some programs of Windows write its separator.
            names = {info.filename.replace("\\", "/"): info for info in infos}
            found = {PurePosixPath(name): info for name, info in names.items() if name[-1:] != "/"}
        elif exists:
            raise FoundryError(
                f"data.path {place} is neither a folder nor a zip file; give a folder of PNG, "
                "JPEG or WebP files, or a zip of them."
            )
        else:
            raise FoundryError(f"data.path {place} does not exist; give a folder or a zip file.")
        images = {name: found[name] for name in sorted(found) if _is_image(name)}
        for name in images:
            _require_utf8(place, name)
        if not images:
            raise FoundryError(
                f"{place} holds no images; put PNG, JPEG or WebP files there "
                f"({len(found)} other files were found)."
            )
        return images

    @cached_property
    def _wrapped(self) -> bool:
        """Whether one folder is around all class folders, as archivers like to make them."""
        names = list(self._files)
        if len({name.parts[0] for name in names}) > 1:
            return False
        inside = {len(name.parts) > 2 for name in names}
        if len(inside) > 1:
            loose = next(name for name in names if len(name.parts) == 2)
            raise FoundryError(
                f"{self.place} has one folder, {loose.parts[0]}, with images, such as {loose}, "
                "beside folders of images; move every image into a folder of its class, or all of "
                "them out of these."
            )
        return inside == {True}

    def _parts(self, name: PurePosixPath) -> tuple[str, ...]:
        return name.parts[1:] if self._wrapped else name.parts

    @cached_property
    def _has_splits(self) -> bool:
        roots = {self._parts(name)[0] for name in self._files}
        if roots == set(SPLIT_FOLDERS):
            return True
        if like_splits := sorted(root for root in roots if root.lower() in SPLIT_LIKE_FOLDERS):
            raise FoundryError(
                f"{self.place} has a folder {like_splits[0]!r} at the top; a split is exactly the "
                "two folders `train` and `test`, and anything else is a class: rename the folders."
            )
        return False

    def _class_folder(self, name: PurePosixPath) -> str | None:
        folders = self._parts(name)[:-1]
        depth = 1 if self._has_splits else 0
        return folders[depth] if len(folders) > depth else None

    @property
    def class_names(self) -> list[str]:
        folders = {self._class_folder(name) for name in self._files}
        if None in folders and len(folders) > 1:
            loose = next(name for name in self._files if self._class_folder(name) is None)
            raise FoundryError(
                f"{self.place} mixes class folders with images outside them, such as {loose}; "
                "move every image into a class folder, or none."
            )
        return sorted(folder for folder in folders if folder is not None)

    def __iter__(self) -> Iterator[SourceImage]:
        labels = {name: label for label, name in enumerate(self.class_names)}
        place = self.place
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(place)) if place.is_file() else None
            for name, file in self._files.items():
                folder = self._class_folder(name)
                yield SourceImage(
                    str(name),
                    _read(archive, file),
                    SPLIT_FOLDERS[self._parts(name)[0]] if self._has_splits else None,
                    None if folder is None else labels[folder],
                )


def _file_name(address: str) -> str:
    """What an archive is called here: the last part of its address, without what is asked there."""
    return re.split("[?#]", address)[0].rpartition("/")[2] or "archive"


def files_below(folder: Path, around: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files below a folder, those behind symbolic links to other folders too.

    Hidden folders, and what a file system's repair found, are passed over.

    Args:
        folder: Where to look.
        around: The folders that it lies in, by device and number: a link to one leads nowhere.

    Raises:
        FoundryError: A folder cannot be read.
    """
    with _readable(folder):
        status = folder.stat()
        items = [(item, item.is_dir(), item.is_file()) for item in sorted(folder.iterdir())]
    here = (status.st_dev, status.st_ino)
    if here in around:
        return
    for item, is_folder, is_file in items:
        if is_folder and not item.name.startswith((".", "lost+found")):
            yield from files_below(item, around | {here})
        elif is_file:
            yield item


@contextlib.contextmanager
def _readable(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FoundryError(
            f"{place} cannot be read ({error.strerror}); give yourself access to it, or move it "
            "away from the images."
        ) from None


def _require_utf8(place: Path, name: PurePosixPath) -> None:
    try:
        str(name).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise FoundryError(
            f"{place} holds an image whose name is not UTF-8, {shown}; rename it."
        ) from None


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _read(archive: zipfile.ZipFile | None, file: Path | zipfile.ZipInfo) -> bytes:
    """A file's bytes; none if it cannot be read: damaged, encrypted or closed to us.

    Such a file does not decode, and is counted with those that do not.
    """
    try:
        if archive is None or isinstance(file, Path):
            return Path(str(file)).read_bytes()
        return archive.read(file)
    except UNREADABLE:
        return b""


SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "kmnist": Kmnist,
    "cifar10": Cifar10,
    "image_folder": ImageFolder,
}


def open_source(settings: DataSettings, folder: Path) -> Source:
    """The source that the settings name, with its downloads in the folder."""
    return SOURCES[settings.source](settings, folder)
