import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from gan_core.errors import FoundryError
from gan_core.generator import GROUP, ReleasedGenerator
from gan_core.interpolation import walk
from gan_core.samples import (
    ANIMATION_FILE,
    ARCHIVE_FILE,
    GRID_FILE,
    IMAGE_FOLDER,
    export_animation,
    export_samples,
)

MakeGenerator = Callable[..., ReleasedGenerator]


def test_every_sample_is_a_png_with_a_grid_and_an_archive_beside_them(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    generator = make_generator()
    grid = export_samples(generator, 40, seed=7, truncation=0.9, folder=tmp_path)
    archive = np.load(tmp_path / ARCHIVE_FILE, allow_pickle=False)
    names = sorted(path.name for path in (tmp_path / IMAGE_FOLDER).iterdir())
    assert names == [f"{index:05d}.png" for index in range(40)]
    for index, pixels in enumerate(archive["images"]):
        picture = PIL.Image.open(tmp_path / IMAGE_FOLDER / f"{index:05d}.png")
        assert np.array_equal(np.asarray(picture), pixels[:, :, 0])
    assert grid.shape == (4 * 17 - 1, 10 * 17 - 1, 1)
    assert PIL.Image.open(tmp_path / GRID_FILE).width % grid.shape[1] == 0
    assert (archive["seed"], archive["truncation"]) == (7, 0.9)
    assert archive["labels"].tolist() == 4 * list(range(10))
    assert archive["latents"].shape == (40, 16)


def test_seed_and_labels_of_the_archive_make_its_images_again(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    generator = make_generator()
    export_samples(generator, 40, seed=7, truncation=0.9, folder=tmp_path)
    archive = np.load(tmp_path / ARCHIVE_FILE)
    again = generator.sample(
        40,
        seed=int(archive["seed"]),
        labels=archive["labels"],
        truncation=float(archive["truncation"]),
    )
    assert np.array_equal(again, archive["images"])


@pytest.mark.parametrize("conditional", [True, False])
def test_latents_of_the_archive_make_its_images_again(
    conditional: bool, make_generator: MakeGenerator, tmp_path: Path
) -> None:
    generator = make_generator(conditional=conditional)
    export_samples(generator, 2 * GROUP, seed=7, truncation=0.9, folder=tmp_path)
    archive = np.load(tmp_path / ARCHIVE_FILE)
    latents = torch.from_numpy(archive["latents"]).split(GROUP)
    labels = torch.from_numpy(archive["labels"]).split(GROUP)
    parts = [generator.images(*part) for part in zip(latents, labels, strict=True)]
    assert np.array_equal(np.concatenate(parts), archive["images"])


def test_an_unconditional_generator_exports_samples_without_classes(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    grid = export_samples(make_generator(conditional=False), 5, 7, 1.0, tmp_path)
    assert set(np.load(tmp_path / ARCHIVE_FILE)["labels"]) == {-1}
    assert grid.shape == (16, 3 * 17 - 1, 1), "whole rows"


@pytest.mark.parametrize("conditional", [True, False])
def test_a_walk_is_an_endless_animation_that_ends_where_it_began(
    make_generator: MakeGenerator, tmp_path: Path, conditional: bool
) -> None:
    generator = make_generator(conditional=conditional)
    export_animation(generator, 2, seed=7, truncation=0.9, path=tmp_path / ANIMATION_FILE)
    with PIL.Image.open(tmp_path / ANIMATION_FILE) as picture:
        assert (picture.n_frames, picture.info["loop"]) == (48, 0)
    frames = list(walk(generator, 3, 8, seed=7, truncation=0.9))
    steps = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise([*frames, frames[0]])]
    assert len(frames) == 24
    assert max(steps) < 5 * np.median(steps)


@pytest.mark.parametrize("stops", [-1, 1, 101])
def test_a_walk_needs_somewhere_to_go(
    make_generator: MakeGenerator, tmp_path: Path, stops: int
) -> None:
    with pytest.raises(FoundryError, match=f"has {stops} stops, but it needs from 2 to 100"):
        export_animation(make_generator(), stops, 7, 1.0, tmp_path / ANIMATION_FILE)
    assert not list(tmp_path.iterdir())
