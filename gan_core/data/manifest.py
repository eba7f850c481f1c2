"""The manifest: one row an image with its name, split, label, size and hash, as a Parquet file.

Making it downloads, verifies and decodes every image once; what does not decode is set aside.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gan_core.config import DataSettings
from gan_core.data.fitting import fit_image
from gan_core.data.sources import DECODE_ERRORS, HELD_OUT, TRAIN, Source, open_source
from gan_core.errors import FoundryError
from gan_core.image_grid import display_scale, make_grid, save_png

MANIFEST_FILE = "manifest.parquet"
SUMMARY_FILE = "raw_images.json"
PREVIEW_FILE = "preview.png"
SOURCE_FOLDER = "source"
PREVIEW_IMAGES = 100
PREVIEW_PER_CLASS = 10
LARGEST_UNDECODABLE_SHARE = 0.01
FEWEST_IMAGES = 2  # of a split: one has no covariance
COLUMNS = ["name", "split", "label", "height", "width", "bytes", "sha256"]


@dataclass(frozen=True)
class RawImages:
    """A listed and verified set of images.

    Attributes:
        manifest: One row an image that decodes, in the source's order; columns `COLUMNS`. A label
            of -1 stands for an image without one.
        class_names: By label; empty without labels.
        set_aside: Images that do not decode, as {"name", "problem"}.
        licence: As the publisher states it.
        sha256: Hash over all rows: two sets with the same hash hold the same images.
    """

    manifest: pd.DataFrame
    class_names: list[str]
    set_aside: list[dict[str, str]]
    licence: str
    sha256: str

    def counts(self) -> dict[str, int]:
        """Images by split."""
        sizes = self.manifest["split"].value_counts()
        return {split: int(sizes.get(split, 0)) for split in (TRAIN, HELD_OUT)}


def list_images(settings: DataSettings, folder: Path) -> RawImages:
    """Download (or find), verify and list a source's images, and write the manifest to a folder.

    Args:
        settings: The source, and how much is held out where it has no split of its own.
        folder: Gets `manifest.parquet`, `raw_images.json`, `preview.png` and the downloads.

    Raises:
        FoundryError: Files cannot be had, a split has fewer than 2 images, or more than 1 % do not
            decode.
    """
    source = open_source(settings, folder / SOURCE_FOLDER)
    source.download()
    rows: list[tuple[Any, ...]] = []
    set_aside: list[dict[str, str]] = []
    preview: dict[int, list[np.ndarray]] = {}
    for image in source:
        try:
            size = image.measure()
        except DECODE_ERRORS as error:
            set_aside.append({"name": image.name, "problem": str(error)})
            continue
        label = -1 if image.label is None else image.label
        rows.append((image.name, image.split, label, *size, image.sha256))
        examples = preview.setdefault(label, [])
        if len(examples) < (PREVIEW_PER_CLASS if image.label is not None else PREVIEW_IMAGES):
            examples.append(fit_image(image.decode(), settings))
    _check_undecodable(settings, set_aside, len(rows))
    manifest = pd.DataFrame(rows, columns=COLUMNS)
    if manifest["split"].isna().all():
        manifest["split"] = _split(manifest, settings.held_out_fraction, settings.split_seed)
    for split in (TRAIN, HELD_OUT):
        if (count := int((manifest["split"] == split).sum())) < FEWEST_IMAGES:
            raise FoundryError(
                f"the {len(manifest)} images of {settings.source} leave {count or 'none'} for the "
                f"{split} split, but a distance needs {FEWEST_IMAGES}; add images or change "
                "data.held_out_fraction."
            )
    identity = manifest[["name", "split", "label", "sha256"]].astype(str)
    lines = map("\t".join, identity.itertuples(index=False, name=None))
    rows_hash = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    raw = RawImages(manifest, source.class_names, set_aside, source.licence, rows_hash)
    manifest.to_parquet(folder / MANIFEST_FILE, index=False)
    _write_preview(preview, folder / PREVIEW_FILE)
    summary = {
        "data": settings.model_dump(mode="json"),
        "class_names": raw.class_names,
        "set_aside": raw.set_aside,
        "licence": raw.licence,
        "sha256": raw.sha256,
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return raw


def _write_preview(examples: dict[int, list[np.ndarray]], file: Path) -> None:
    """A grid of some images of every class, at the pipeline's size."""
    pictures = [image for label in sorted(examples) for image in examples[label]][:PREVIEW_IMAGES]
    grid = make_grid(np.stack(pictures), 10)
    save_png(grid, file, display_scale(grid))


def open_raw_images(folder: Path) -> tuple[RawImages, Source]:
    """The listed set in a folder, and the source that reads its images."""
    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    source = open_source(DataSettings(**summary["data"]), folder / SOURCE_FOLDER)
    fields = {key: summary[key] for key in ("class_names", "set_aside", "licence", "sha256")}
    return RawImages(pd.read_parquet(folder / MANIFEST_FILE), **fields), source


def _check_undecodable(
    settings: DataSettings, set_aside: list[dict[str, str]], decoded: int
) -> None:
    if len(set_aside) > LARGEST_UNDECODABLE_SHARE * (decoded + len(set_aside)):
        names = ", ".join(item["name"] for item in set_aside[:5])
        more = ", …" if len(set_aside) > 5 else ""
        raise FoundryError(
            f"{len(set_aside)} of {decoded + len(set_aside)} images of {settings.source} do not "
            f"decode ({names}{more}), which is more than 1 %; repair or remove them."
        )


def _split(manifest: pd.DataFrame, held_out_fraction: float, seed: int) -> pd.Series:
    """Hold out the same share of every class, chosen by content.

    Equal images always fall on the same side, and adding images moves few of the others. An image
    of more copies than are wanted stays to be learned from, and one at least of each class.
    """
    held_out: set[str] = set()
    orders: list[list[str]] = []
    for _, members in manifest.groupby("label"):
        copies = members["sha256"].value_counts()
        order = sorted(copies.index, key=lambda digest: _rank(seed, digest))
        orders.append(order)
        wanted = round(held_out_fraction * len(members))
        chosen: list[str] = []
        for digest in order:
            if int(copies[digest]) <= wanted and len(chosen) < len(order) - 1:
                chosen.append(digest)
                wanted -= int(copies[digest])
        if not chosen and wanted > 0 and len(order) > 1:  # all are too many: the fewest, then
            chosen.append(min(order, key=lambda digest: int(copies[digest])))
        held_out.update(chosen)
    for order in orders:  # of an image that lies in other classes too, too
        if held_out.issuperset(order):
            held_out.discard(order[-1])
    return manifest["sha256"].isin(held_out).map({True: HELD_OUT, False: TRAIN})


def _rank(seed: int, digest: str) -> str:
    """A random but fixed place for an image in the order in which images are held out."""
    return hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()
