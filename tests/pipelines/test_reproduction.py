"""A registered version trained again from what the registry alone recorded."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from click.testing import CliRunner

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError
from gan_core.generator import REGISTERED_FOLDER
from pipelines import home, registry, reproduction, tracking
from pipelines.cli import main
from pipelines.reproduction import reproduce
from pipelines.run import RunInterruptedError
from tests.pipelines.models import MODEL, register_versions
from tests.pipelines.tiny_pipeline import (
    TinyPipeline,
    metadata,
    open_pipeline,
    tiny_settings,
    write_stripes,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_stripes(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def pipeline(mlflow_home: Path, images: Path) -> Iterator[TinyPipeline]:
    """A pipeline of one's own images that has registered its first version."""
    with open_pipeline("stripes", tiny_settings(images)) as found:
        assert metadata(found.run())["registered_model"]["version"] == 1
        yield found


def describe_here(monkeypatch: pytest.MonkeyPatch, settings: PipelineSettings) -> None:
    """Let the project have the pipeline of the version, with these settings."""
    monkeypatch.setattr(reproduction, "pipeline_files", lambda: {"stripes"})
    monkeypatch.setattr(reproduction, "load_pipeline", lambda _: settings)


def set_tag(name: str, value: str) -> None:
    tracking.connect().set_model_version_tag("stripes", "1", name, value)


def test_the_same_bits_come_of_what_the_registry_recorded(
    pipeline: TinyPipeline, images: Path, tmp_path: Path
) -> None:
    moved = images.rename(tmp_path / "elsewhere")
    result = CliRunner().invoke(
        main, ["reproduce", "stripes", "1", "--images", str(moved), "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["same_weights"] is True
    assert found["weights_sha256"] == found["registered_weights_sha256"]
    assert found["frechet_distance"] == pytest.approx(found["registered_frechet_distance"])
    assert "the weights are the same bits" in result.stderr
    # Nothing of it stays, and the model is as it was.
    assert not home.reproduction_folder("stripes", 1).exists()
    assert len(registry.versions(tracking.connect(), "stripes")) == 1


def test_images_are_looked_for_where_the_pipeline_has_them(
    pipeline: TinyPipeline, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe_here(monkeypatch, tiny_settings(images.rename(tmp_path / "elsewhere")))
    assert reproduce("stripes", 1).same_weights


def test_so_is_an_archive_whose_address_the_version_does_not_tell(
    mlflow_home: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = Path(shutil.make_archive(str(tmp_path / "stripes"), "zip", images))
    sha256 = hashlib.sha256(zipped.read_bytes()).hexdigest()
    changes = {"data.path": None, "data.archive": zipped.as_uri(), "data.sha256": sha256}
    settings = apply_overrides(tiny_settings(images), changes, "test")
    with open_pipeline("stripes", settings) as pipeline:
        pipeline.run()
    (recorded,) = mlflow_home.glob("mlflow/**/settings.json")
    assert json.loads(recorded.read_text())["data"]["archive"] == "stripes.zip"
    describe_here(monkeypatch, settings)
    assert reproduce("stripes", 1).same_weights


def test_a_training_that_was_continued_is_continued_again(
    pipeline: TinyPipeline, images: Path
) -> None:
    last = {"training__monitoring__release": "last"}
    pipeline.run(**last)
    shown = metadata(pipeline.run(training__kimg=0.64, **last))["registered_model"]
    version = registry.get_version(tracking.connect(), "stripes", shown["version"])
    assert version.tags[registry.BUDGETS_TAG] == "0.32 0.64"
    assert reproduce("stripes", version.version, images).same_weights


def test_a_training_that_began_with_a_champion_begins_with_that_version_again(
    pipeline: TinyPipeline, images: Path
) -> None:
    again = {"training__start_from": "champion", "training__seed": 5}
    assert metadata(pipeline.run(**again))["registered_model"]["version"] == 2
    set_alias = tracking.connect().set_registered_model_alias
    set_alias("stripes", registry.CHAMPION, "2")
    before = recorded_runs()
    assert reproduce("stripes", 2, images).same_weights
    assert recorded_runs() == before


def recorded_runs() -> list[dict[str, Any]]:
    """What MLflow has of the pipeline's trainings."""
    client = tracking.connect()
    experiment = client.get_experiment_by_name("stripes")
    return [run.to_dictionary() for run in client.search_runs([experiment.experiment_id])]


def test_other_weights_are_judged_by_their_distance(pipeline: TinyPipeline, images: Path) -> None:
    set_tag(registry.WEIGHTS_TAG, "of another machine")
    set_tag(registry.MACHINE_TAG, "another processor, torch 1.0")
    command = ["reproduce", "stripes", "1", "--images", str(images), "--json"]
    near = CliRunner().invoke(main, command)
    assert near.exit_code == 0, near.output
    found = json.loads(near.stdout)
    assert (found["same_weights"], found["within_interval"]) == (False, True)
    assert "where it was another processor, torch 1.0; the distance is" in near.stderr
    set_tag(registry.INTERVAL_TAG, "0.0 0.000001")
    far = CliRunner().invoke(main, command)
    assert far.exit_code == 1
    assert json.loads(far.stdout)["within_interval"] is False
    assert "OUTSIDE 0.00 to 0.00" in far.stderr


def test_images_that_are_not_there_or_changed_are_a_sentence(
    pipeline: TinyPipeline, images: Path
) -> None:
    with pytest.raises(FoundryError, match=r"in a folder 'images'; say where they are with --im"):
        reproduce("stripes", 1)
    next((images / "across").glob("*.png")).unlink()
    with pytest.raises(FoundryError, match=r"the images of stripes version 1 have changed since"):
        reproduce("stripes", 1, images)


def test_settings_of_another_version_are_a_sentence(
    pipeline: TinyPipeline, mlflow_home: Path
) -> None:
    (recorded,) = (mlflow_home / "mlflow").rglob(f"{REGISTERED_FOLDER}/{registry.SETTINGS_FILE}")
    recorded.write_text(recorded.read_text().replace('"kimg":', '"kilo_images":'))
    with pytest.raises(FoundryError) as caught:
        reproduce("stripes", 1)
    assert str(caught.value).startswith(
        "stripes version 1 was registered with settings that this version of the project does not "
        "know (training.kilo_images is not a setting; "
    )


def test_what_was_registered_by_other_means_is_a_sentence(mlflow_home: Path) -> None:
    with pytest.raises(FoundryError, match=r"no registered model 'giant'; registered are none yet"):
        reproduce("giant", 1)
    register_versions(1)
    with pytest.raises(FoundryError, match=r"tiny version 1 was registered without gan_foundry"):
        reproduce(MODEL, 1)
    with pytest.raises(FoundryError, match=r"tiny has no version 2; it has 1\."):
        reproduce(MODEL, 2)


def test_a_copy_whose_name_is_no_pipelines_is_a_sentence(pipeline: TinyPipeline) -> None:
    client = tracking.connect()
    client.copy_model_version("models:/stripes/1", "prod-stripes")
    with pytest.raises(FoundryError, match=r"prod-stripes has a name that no pipeline can have"):
        reproduce("prod-stripes", 1)


def test_an_interrupted_reproduction_says_how_it_goes_on(
    pipeline: TinyPipeline, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise RunInterruptedError("run stripes again")

    monkeypatch.setattr(reproduction, "_train_again", interrupted)
    with pytest.raises(RunInterruptedError, match=r"`gan-foundry reproduce stripes 1` again goes"):
        reproduce("stripes", 1, images)


def test_a_version_is_reproduced_by_one_process_at_a_time(
    pipeline: TinyPipeline, images: Path
) -> None:
    folder = home.reproduction_folder("stripes", 1)
    folder.parent.mkdir()
    with (
        filelock.FileLock(f"{folder}.lock"),
        pytest.raises(FoundryError, match=r"stripes version 1 is being reproduced by another"),
    ):
        reproduce("stripes", 1, images)
    assert not folder.exists()
