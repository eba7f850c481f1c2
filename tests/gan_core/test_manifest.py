import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.config import DataSettings
from gan_core.data.manifest import (
    COLUMNS,
    MANIFEST_FILE,
    SUMMARY_FILE,
    RawImages,
    _split,
    list_images,
    open_raw_images,
)
from gan_core.data.sources import HELD_OUT, TRAIN
from gan_core.errors import FoundryError

MakeFolder = Callable[..., Path]


def list_folder(place: Path, raw: Path, **data: float) -> RawImages:
    raw.mkdir(exist_ok=True)
    return list_images(DataSettings(source="image_folder", path=str(place), **data), raw)


def test_manifest_has_a_row_with_every_column_for_each_image(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 6, "dog": 4}, size=(20, 12))
    raw = list_folder(folder, tmp_path / "raw")
    stored = pd.read_parquet(tmp_path / "raw" / MANIFEST_FILE)
    assert list(stored.columns) == COLUMNS
    pd.testing.assert_frame_equal(stored, raw.manifest, check_dtype=False)
    row = stored.set_index("name").loc["dog/0002.png"]
    assert (row["label"], row["height"], row["width"]) == (1, 12, 20)
    assert row["bytes"] == (folder / "dog" / "0002.png").stat().st_size
    assert len(row["sha256"]) == 64
    assert set(stored["split"]) == {TRAIN, HELD_OUT}


def test_listed_images_open_again_with_their_source(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    listed = list_folder(image_folder({"cat": 6, "dog": 4}), tmp_path / "raw")
    opened, source = open_raw_images(tmp_path / "raw")
    assert opened.sha256 == listed.sha256
    assert opened.class_names == ["cat", "dog"]
    assert opened.counts() == {TRAIN: 8, HELD_OUT: 2}
    assert [image.name for image in source] == list(opened.manifest["name"])


def test_the_same_images_have_the_same_hash_wherever_they_lie(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 5, "dog": 5})
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            file.write(path, path.relative_to(folder))
    first = list_folder(folder, tmp_path / "a")
    assert first.sha256 == list_folder(archive, tmp_path / "b").sha256
    (folder / "cat" / "0000.png").write_bytes((folder / "dog" / "0000.png").read_bytes())
    assert first.sha256 != list_folder(folder, tmp_path / "c").sha256


def test_official_splits_are_kept(image_folder: MakeFolder, tmp_path: Path) -> None:
    folder = image_folder({"train/a": 5, "test/a": 3})
    raw = list_folder(folder, tmp_path / "raw", held_out_fraction=0.9)
    assert raw.counts() == {TRAIN: 5, HELD_OUT: 3}


def test_an_image_that_does_not_decode_is_named_and_set_aside(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 100}, size=(4, 4))
    (folder / "cat" / "0042.png").write_bytes(b"no image")
    raw = list_folder(folder, tmp_path / "raw")
    assert raw.set_aside == [{"name": "cat/0042.png", "problem": "it is of no known format"}]
    assert "cat/0042.png" not in set(raw.manifest["name"])
    assert len(raw.manifest) == 99
    summary = json.loads((tmp_path / "raw" / SUMMARY_FILE).read_text())
    assert summary["set_aside"] == raw.set_aside


def test_more_than_one_percent_of_undecodable_images_is_an_error(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 100}, size=(4, 4))
    whole = (folder / "cat" / "0042.png").read_bytes()
    (folder / "cat" / "0042.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "0043.png").write_bytes(b"")
    with pytest.raises(FoundryError, match=r"2 of 100 .*cat/0042.png, cat/0043.png.*1 %"):
        list_folder(folder, tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_of_a_zip_is_set_aside(
    kind: int, image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 100}, size=(4, 4))
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", kind) as file:
        for path in sorted(folder.rglob("*.png")):
            file.writestr(str(path.relative_to(folder)), path.read_bytes() + bytes(400))
        damaged = file.getinfo("cat/0042.png")
    content = bytearray(archive.read_bytes())
    start = damaged.header_offset + 30 + len(damaged.filename)
    content[start : start + 20] = b"\xff" * 20
    archive.write_bytes(content)
    raw = list_folder(archive, tmp_path / "raw")
    assert [item["name"] for item in raw.set_aside] == ["cat/0042.png"]


def test_a_zip_that_names_an_image_twice_lists_it_once(
    image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = image_folder({"cat": 10}, size=(4, 4))
    archive = tmp_path / "images.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w") as file:
        warnings.simplefilter("ignore")
        for path in [*sorted(folder.rglob("*.png")), folder / "cat" / "0003.png"]:
            file.write(path, path.relative_to(folder))
    raw = list_folder(archive, tmp_path / "raw")
    assert raw.manifest["name"].is_unique


@pytest.mark.parametrize(
    ("counts", "left"),
    [
        ({"": 1}, "leave 1 for the train split"),
        ({"": 2}, "leave none for the held_out split"),
        ({"": 3}, "leave 1 for the held_out split"),
        ({"train": 1, "test": 5}, "leave 1 for the train split"),
    ],
)
def test_too_few_images_to_split_is_an_error(
    counts: dict[str, int], left: str, image_folder: MakeFolder, tmp_path: Path
) -> None:
    with pytest.raises(FoundryError, match=f"{left}, but a distance needs 2; add images"):
        list_folder(image_folder(counts), tmp_path / "raw")


def frame(labels: list[int], hashes: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "sha256": hashes})


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=200),
    st.sampled_from([0.1, 0.2, 0.5]),
    st.integers(0, 100),
)
def test_every_class_is_held_out_in_the_same_share(
    labels: list[int], fraction: float, seed: int
) -> None:
    images = frame(labels, [f"{index}" for index in range(len(labels))])
    split = _split(images, fraction, seed)
    for label, members in images.groupby("label"):
        held_out = (split[members.index] == HELD_OUT).sum()
        assert abs(held_out - fraction * len(members)) <= 0.5, label


@given(st.lists(st.integers(0, 30), min_size=5, max_size=100), st.integers(0, 100))
def test_equal_images_fall_on_the_same_side(contents: list[int], seed: int) -> None:
    images = frame([0] * len(contents), [str(content) for content in contents])
    sides = _split(images, 0.2, seed).groupby(images["sha256"]).nunique()
    assert (sides == 1).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=5, max_size=100),
    st.integers(0, 100),
)
def test_equal_images_in_two_classes_fall_on_the_same_side(
    rows: list[tuple[int, int]], seed: int
) -> None:
    images = frame([label for label, _ in rows], [str(content) for _, content in rows])
    sides = _split(images, 0.2, seed).groupby(images["sha256"]).nunique()
    assert (sides == 1).all()


def test_an_image_of_many_copies_is_learned_from() -> None:
    hashes = ["not available"] * 40 + [f"{index}" for index in range(60)]
    images = frame([0] * 100, hashes)
    for seed in range(50):
        split = _split(images, 0.2, seed)
        assert (split[:40] == TRAIN).all()
        assert (split == HELD_OUT).sum() == 20


def test_where_all_have_too_many_copies_the_fewest_are_held_out() -> None:
    images = frame([0] * 12, ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    split = _split(images, 0.2, 0)
    assert (split == HELD_OUT).sum() == 4


def test_the_image_that_fits_is_held_out_wherever_it_ranks() -> None:
    for hashes in (["a"] * 9 + ["b"], ["a"] * 50 + ["c"] * 50 + ["b"]):
        for seed in range(20):
            split = _split(frame([0] * len(hashes), hashes), 0.2, seed)
            assert [name for name, side in zip(hashes, split, strict=True) if side == HELD_OUT] == [
                "b"
            ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=30),
    st.integers(0, 100),
)
def test_every_class_is_learned_from(rows: list[tuple[int, int]], seed: int) -> None:
    images = frame([label for label, _ in rows], [str(content) for _, content in rows])
    split = _split(images, 0.5, seed)
    for label, members in images.groupby("label"):
        assert (split[members.index] == TRAIN).any(), label


def test_added_images_move_few_of_the_others() -> None:
    hashes = [f"{index}" for index in range(1100)]
    before = _split(frame([0] * 1000, hashes[:1000]), 0.2, 0)
    after = _split(frame([0] * 1100, hashes), 0.2, 0)
    assert (before != after[:1000]).sum() <= 30


def test_the_split_depends_on_its_seed_and_not_on_the_order() -> None:
    images = frame([0] * 200, [f"{index}" for index in range(200)])
    split = _split(images, 0.2, 0)
    assert split.equals(_split(images, 0.2, 0))
    assert not split.equals(_split(images, 0.2, 1))
    shuffled = images.iloc[np.random.default_rng(0).permutation(200)]
    assert split.equals(_split(shuffled, 0.2, 0).sort_index())
