"""A registered version is tried as a consumer would use it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from pipelines import registry
from pipelines.blessing import Reference, bless
from pipelines.tracking import open_run
from tests.pipelines.models import CARD, SETTINGS, release_generator

LABELS = np.array([1, 0, 1], np.int64)


@pytest.fixture
def reference(mlflow_home: Path, tmp_path: Path) -> Reference:
    """What version 1 of the model `tiny`, which it registers, must make."""
    release = release_generator(tmp_path / "release")
    registry.register_generator(
        "tiny", release, open_run("tiny", SETTINGS, "key1", {}), CARD, "{}", {}
    )
    images = ReleasedGenerator.load(release).sample(3, seed=7, labels=LABELS)
    return Reference(images, LABELS, 7, "cpu", "key1")


def test_a_version_that_makes_its_images_elsewhere_is_blessed(
    reference: Reference, tmp_path: Path
) -> None:
    reference.save(tmp_path / "reference.npz")
    bless("models:/tiny/1", Reference.load(tmp_path / "reference.npz"))


def test_a_version_that_makes_other_images_is_not(reference: Reference) -> None:
    other = reference.images.copy()
    other[2, 0, 0, 0] += 2
    with pytest.raises(FoundryError, match=r"makes other images .* \(up to 2 of 255 levels apart"):
        bless("models:/tiny/1", replace(reference, images=other))
    # On a GPU a pixel may be rounded the other way.
    bless("models:/tiny/1", replace(reference, images=other, device="cuda:0"))


def test_a_version_that_needs_this_project_is_not(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = mlflow.pyfunc.save_model

    def save_without_code(*arguments: Any, **options: Any) -> None:
        save(*arguments, **{**options, "loader_module": "gan_core.serving", "code_paths": None})

    monkeypatch.setattr(mlflow.pyfunc, "save_model", save_without_code)
    run = open_run("tiny", SETTINGS, "key2", {})
    registry.register_generator("tiny", tmp_path / "release", run, CARD, "{}", {})
    labels, seed = reference.labels, reference.seed
    images = mlflow.pyfunc.load_model("models:/tiny/2").predict(labels, params={"seed": seed})
    np.testing.assert_array_equal(images, reference.images)  # here it works
    with pytest.raises(FoundryError, match=r"tiny/2 cannot be used without this .*gan_core"):
        bless("models:/tiny/2", reference)


def test_a_version_that_does_not_load_is_not(reference: Reference) -> None:
    with pytest.raises(FoundryError, match=r"tiny/2 cannot be used without this project \("):
        bless("models:/tiny/2", reference)
