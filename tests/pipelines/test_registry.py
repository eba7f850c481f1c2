"""What is registered: files, signature, versions, aliases, and the rule for the champion."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_core.config import PipelineSettings
from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator, load_generator
from pipelines import registry
from pipelines.home import PROJECT
from pipelines.model_card import model_card
from pipelines.portable_settings import without_places
from pipelines.tracking import TrackedRun, open_run
from tests.gan_core.evaluation_samples import make_evaluation
from tests.pipelines.models import CARD, SETTINGS, release_generator


@pytest.fixture
def run(mlflow_home: Path) -> TrackedRun:
    return open_run("tiny", SETTINGS, "key1", {})


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return release_generator(tmp_path / "release")


@pytest.fixture
def registered(run: TrackedRun, release: Path) -> int:
    return registry.register_generator(
        "tiny", release, run, CARD, '{"data": {}}', {registry.WEIGHTS_TAG: "abc", "floor": "1.5"}
    )


def downloaded(tmp_path: Path) -> Path:
    """The files that a consumer of the first version gets."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts("models:/tiny/1", dst_path=str(tmp_path / "d")))


def test_a_registered_generator_makes_the_images_of_the_released_one(
    registered: int, release: Path
) -> None:
    expected = ReleasedGenerator.load(release).sample(5, seed=7)
    np.testing.assert_array_equal(load_generator("models:/tiny/1").sample(5, seed=7), expected)


def test_a_version_says_what_it_is(run: TrackedRun, registered: int) -> None:
    (version,) = registry.versions(run.client, "tiny")
    assert (version.model, version.version, version.run_id) == ("tiny", registered, run.run_id)
    assert version.uri == "models:/tiny/1"
    assert version.tags["floor"] == "1.5"
    assert run.client.get_model_version("tiny", "1").description == CARD


def test_the_signature_names_labels_seed_truncation_and_the_images_shape(registered: int) -> None:
    import mlflow

    signature = mlflow.models.get_model_info("models:/tiny/1").signature
    assert [(item.type, item.shape) for item in signature.inputs] == [(np.dtype("int64"), (-1,))]
    assert [(item.type, item.shape) for item in signature.outputs] == [
        (np.dtype("uint8"), (-1, 8, 12, 3))
    ]
    assert {item.name: item.default for item in signature.params} == {"seed": 0, "truncation": 1.0}


def test_mlflow_alone_predicts_with_pickle_switched_off(
    registered: int, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    labels = np.array([1, 0, 1])
    model = mlflow.pyfunc.load_model("models:/tiny/1")
    images = model.predict(labels, params={"seed": 7, "truncation": 0.5})
    generator = ReleasedGenerator.load(release)
    expected = generator.sample(3, seed=7, labels=labels, truncation=0.5)
    np.testing.assert_array_equal(images, expected)


def test_the_files_are_weights_description_card_and_code_without_a_pickle(
    registered: int, tmp_path: Path
) -> None:
    folder = downloaded(tmp_path)
    data = {file.name for file in (folder / "data" / "generator").iterdir()}
    assert data == {"generator.safetensors", "config.json", "README.md", "settings.json"}
    assert (folder / "data" / "generator" / "README.md").read_text() == CARD
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert suffixes <= {"", ".json", ".md", ".py", ".safetensors", ".txt", ".yaml"}


def test_the_files_name_no_place_of_this_machine(
    registered: int, tmp_path: Path, own_home: Path
) -> None:
    places = [str(PROJECT), str(own_home), str(tmp_path), sys.prefix, "/tmp/"]  # noqa: S108
    folder = downloaded(tmp_path)
    found = []
    for file in (file for file in folder.rglob("*") if file.is_file()):
        for line in file.read_text(errors="replace").splitlines():
            if any(place in line for place in places):
                found.append(f"{file.name}: {line}")
    assert found == []


def test_versions_come_newest_first_with_their_aliases(run: TrackedRun, release: Path) -> None:
    assert registry.versions(run.client, "tiny") == []
    run.client.create_registered_model("tiny")
    for _ in range(11):  # more than one digit: 10 comes before 9
        run.client.create_model_version("tiny", str(release))
    run.client.set_registered_model_alias("tiny", registry.CHAMPION, "9")
    run.client.set_registered_model_alias("tiny", "favourite", "9")
    run.client.set_registered_model_alias("tiny", registry.CHALLENGER, "10")
    found = registry.versions(run.client, "tiny")
    assert [version.version for version in found] == list(range(11, 0, -1))
    aliases = {version.version: version.aliases for version in found if version.aliases}
    assert aliases == {9: ("champion", "favourite"), 10: ("challenger",)}


def test_a_version_is_found_by_its_weights_and_by_its_number(
    run: TrackedRun, release: Path
) -> None:
    run.client.create_registered_model("tiny")
    for weights in ("abc", "def"):
        run.client.create_model_version("tiny", str(release), tags={registry.WEIGHTS_TAG: weights})
    assert registry.find_version(run.client, "tiny", "abc").version == 1
    assert registry.find_version(run.client, "tiny", "ghi") is None
    assert registry.get_version(run.client, "tiny", 2).tags[registry.WEIGHTS_TAG] == "def"
    with pytest.raises(FoundryError, match=r"tiny has no version 3; it has 1, 2\."):
        registry.get_version(run.client, "tiny", 3)


def test_a_version_is_found_by_its_alias(run: TrackedRun, release: Path) -> None:
    run.client.create_registered_model("tiny")
    for _ in range(2):
        run.client.create_model_version("tiny", str(release))
    with pytest.raises(
        FoundryError, match=r"no version with the alias 'best'; its aliases are none"
    ):
        registry.version_of(run.client, "tiny", "best")
    run.client.set_registered_model_alias("tiny", registry.CHAMPION, "2")
    assert registry.version_of(run.client, "tiny", registry.CHAMPION).version == 2
    with pytest.raises(FoundryError, match=r"the alias 'best'; its aliases are champion"):
        registry.version_of(run.client, "tiny", "best")


def test_one_models_versions_are_not_anothers(run: TrackedRun, release: Path) -> None:
    for name in ("mnist", "fashion_mnist"):
        run.client.create_registered_model(name)
    run.client.create_model_version("mnist", str(release))
    assert registry.versions(run.client, "fashion_mnist") == []
    assert registry.models(run.client) == ["fashion_mnist", "mnist"]


def test_an_absent_model_is_a_sentence(run: TrackedRun) -> None:
    with pytest.raises(
        FoundryError, match=r"models:/tiny@champion could not be had from the registry"
    ):
        load_generator("models:/tiny@champion")


IMPORT_CARRIED = """
import json, sys
import numpy as np
sys.modules["gan_core"] = sys.modules["pipelines"] = None  # importing them raises
sys.path.insert(0, sys.argv[1])
serving = __import__(sys.argv[2] + ".serving").serving
images = serving._load_pyfunc(sys.argv[3]).predict(np.array([1, 0]), {"seed": 7})
print(json.dumps(images.tolist()))
"""


def test_the_carried_code_works_where_the_project_is_not_installed(
    tmp_path: Path, release: Path
) -> None:
    package = registry.carried_package(tmp_path / "code")
    command = [sys.executable, "-I", "-c", IMPORT_CARRIED]
    done = subprocess.run(
        [*command, package.parent, package.name, release],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ReleasedGenerator.load(release).sample(2, seed=7, labels=[1, 0])
    np.testing.assert_array_equal(json.loads(done.stdout), expected)


def test_carried_code_is_named_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = registry.carried_package(tmp_path / "a").name
    assert registry.carried_package(tmp_path / "b").name == name
    monkeypatch.setattr(registry, "CARRIED_FILES", registry.CARRIED_FILES[:-1])
    assert registry.carried_package(tmp_path / "c").name != name


DATA = {
    "source": "digits",
    "licence": "CC BY 4.0",
    "sha256": "5ha",
    "height": 16,
    "width": 16,
    "channels": 1,
    "class_names": ["0", "1"],
    "counts": {"train": 1438, "held_out": 359},
}


def test_the_card_tells_quality_with_its_measure_data_recipe_and_use() -> None:
    card = model_card("digits", SETTINGS, make_evaluation(0.9), DATA, "weights hash")
    measured = make_evaluation(0.9).card.line
    for part in ("**4.13**", "3.40 (the floor)", measured, "CC BY 4.0", "1438", "2 classes"):
        assert part in card
    assert "| class coverage | 0.9 | 0.81 to 0.99 |" in card
    assert "- collapse: passed." in card
    assert "`gan-foundry reproduce digits VERSION`" in card
    assert 'load_generator("models:/digits@champion")' in card
    assert "| `training.kimg` | 100.0 |" in card
    assert "weights hash" in card


def test_the_card_of_images_without_classes_claims_none() -> None:
    data = {**DATA, "class_names": []}
    card = model_card("digits", SETTINGS, make_evaluation(None), data, "weights hash")
    assert "no classes" in card
    assert "class coverage" not in card


def test_what_leaves_this_machine_names_no_folder_of_it() -> None:
    data = {"source": "image_folder", "path": "/home/me/faces", "resolution": 16}
    network = {"kind": "inception", "weights": "/home/me/inception.pth"}
    settings = PipelineSettings.model_validate({"data": data, "feature_network": network})
    portable = without_places(settings)
    assert (portable.data.path, portable.feature_network.weights) == ("faces", "inception.pth")
    assert without_places(SETTINGS) == SETTINGS


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("faces/faces #1.zip", "faces/faces #1.zip"),
        ("file:///home/me/my%20faces.zip", "my faces.zip"),
        ("https://host/faces.zip", "https://host/faces.zip"),
        ("https://ann:secret@host:81/faces.zip?token=secret#part", "https://host:81/faces.zip"),
    ],
)
def test_what_leaves_this_machine_opens_no_closed_address(address: str, public: str) -> None:
    data = {"source": "image_folder", "archive": address, "sha256": "0" * 64, "resolution": 16}
    assert without_places(PipelineSettings.model_validate({"data": data})).data.archive == public


def test_what_leaves_this_machine_names_no_person() -> None:
    people = {
        "notifications": {"email_to": ["a@b.org"]},
        "operation": {"owners": ["d@b.org"], "retries": 3},
    }
    settings = PipelineSettings.model_validate({"data": {"source": "digits"}, **people})
    portable = without_places(settings)
    assert "b.org" not in portable.model_dump_json()
    assert portable.operation.retries == 3
