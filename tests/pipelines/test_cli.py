"""The command line: its mistakes, each one sentence, and what it tells programs."""

import errno
import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gan_core import samples
from pipelines import registry, tracking
from pipelines.cli import main
from pipelines.command import have_a_home
from pipelines.home import PROJECT
from tests.pipelines.models import release_generator
from tests.running_ui import free_port


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def assert_refused(result: Result, *parts: str) -> None:
    """One sentence on standard error, exit status 2, and nothing for programs."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def assert_nothing_started(home: Path) -> None:
    """Neither the store, nor MLflow's database, nor Dagster's records."""
    written = {file.name for file in home.iterdir()} if home.exists() else set()
    assert written <= {"dagster.yaml"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mnits"], ["no pipeline 'mnits'", "did you mean mnist?", "fashion_mnist"]),
        (["digits", "--set", "training.kimgs=2"], ["training.kimgs is not a setting"]),
        (["digits", "--set", "training.kimg=0"], ["training.kimg is 0", "greater than 0"]),
        (["digits", "--set", "training.loss=hinges"], ["training.loss", "'minimax'"]),
        (["digits", "--set", "network.conditional=[1]"], ["network.conditional is [1]"]),
        (["digits", "--set", "training=5"], ["training is not a setting but a group"]),
        (["digits", "--set", "training.kimg"], ["must have the form key=value"]),
        (["digits", "--set", "training.kimg=[1"], ["not valid YAML"]),
        (["digits", "--set", "data.resolution=30"], ["30x30", "multiples of 4"]),
        (["digits", "--set", "data.path=/etc"], ["data.path cannot be changed for one run"]),
        (
            ["digits", "--set", "feature_network.weights=/etc/passwd"],
            ["feature_network.weights cannot be changed for one run"],
        ),
        (["digits", "--seed", "-1"], ["training.seed is -1", "greater than or equal to 0"]),
    ],
)
def test_a_mistake_in_run_is_one_sentence_and_starts_nothing(
    own_home: Path, arguments: list[str], parts: list[str]
) -> None:
    assert_refused(invoke("run", "--json", *arguments), *parts)
    assert_nothing_started(own_home)


def test_a_mistake_in_evaluate_is_one_sentence(tmp_path: Path) -> None:
    images = str(tmp_path)
    assert_refused(invoke("evaluate", images, "--against", "mnits"), "did you mean mnist?")
    assert_refused(
        invoke("evaluate", images, "--against", "digits", "--json"),
        "digits/training_images was never materialized here",
        "`gan-foundry run digits`",
    )


def test_what_the_user_typed_is_shown_as_it_was_typed(own_home: Path) -> None:
    assert_refused(invoke("run", "[bold]digits[/bold]"), "'[bold]digits[/bold]'")
    assert_refused(invoke("run", "digits[/x]"), "'digits[/x]'")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-n", "-1"], "the number of images is -1, but it must be at least 1"),
        (["-n", "0"], "the number of images is 0"),
        (["--truncation", "1.5"], "truncation is 1.5, but it must be above 0 and at most 1"),
        (["--seed", "-3"], "the seed is -3"),
    ],
)
def test_a_mistake_in_sample_is_one_sentence_and_writes_nothing(
    own_home: Path, tmp_path: Path, arguments: list[str], part: str
) -> None:
    out = tmp_path / "out"
    assert_refused(invoke("sample", "digits", "--out", str(out), "--json", *arguments), part)
    assert not out.exists()
    assert_nothing_started(own_home)


def test_sampling_into_a_folder_in_use_is_refused_and_leaves_it_alone(
    own_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = invoke("sample", "digits", "--out", str(tmp_path))
    assert_refused(result, f"{tmp_path} exists and is not an empty folder")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert_nothing_started(own_home)


def test_asking_for_models_on_a_fresh_machine_makes_no_database(
    own_home: Path, tmp_path: Path
) -> None:
    result = invoke("sample", "digits", "--out", str(tmp_path / "out"))
    assert_refused(result, "no registered model 'digits'", "gan-foundry run NAME")
    assert json.loads(invoke("models", "--json").stdout) == {"models": []}
    assert_refused(invoke("models", "digits", "--json"), "no registered model 'digits'")
    assert_nothing_started(own_home)


def test_sampling_a_model_that_is_not_there_names_those_that_are(
    mlflow_home: Path, tmp_path: Path
) -> None:
    tracking.connect().create_registered_model("mnist")
    out = tmp_path / "out"
    for model in ("digits", "digits@champion", "digits/3"):
        result = invoke("sample", model, "--out", str(out))
        assert_refused(result, "no registered model 'digits'", "registered are mnist")
    assert not out.exists()
    assert not (mlflow_home / "store").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mnist", "no version with the alias 'champion'"),
        ("mnist/3", "mnist has no version 3"),
        ("mnist@best", "no version with the alias 'best'"),
        ("models:/mnist/3", "mnist has no version 3"),
        ("models:/mnist@best", "no version with the alias 'best'"),
        ("models:/mnist/latest", "mnist has no version"),
        ("models:/mnist/newest", "give NAME, NAME@ALIAS or NAME/VERSION"),
    ],
)
def test_sampling_a_version_that_is_not_there_is_refused(
    mlflow_home: Path, tmp_path: Path, model: str, said: str
) -> None:
    tracking.connect().create_registered_model("mnist")
    result = invoke("sample", model, "--out", str(tmp_path / "out"))
    assert_refused(result, said)
    assert not (tmp_path / "out").exists()


def test_the_printed_settings_are_those_of_the_documentation(own_home: Path) -> None:
    result = invoke("settings")
    assert result.exit_code == 0
    assert result.stdout == (PROJECT / "docs" / "settings.md").read_text()
    assert_nothing_started(own_home)


@pytest.mark.parametrize("arguments", [["run"], ["sample", "digits"], ["nothing"]])
def test_a_command_that_is_not_understood_prints_nothing_for_programs(
    own_home: Path, arguments: list[str]
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert_nothing_started(own_home)


def test_an_empty_registry_lists_no_models(mlflow_home: Path) -> None:
    result = invoke("models", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"models": []}
    assert "gan-foundry run digits" in invoke("models").stdout


def test_an_unknown_model_names_those_that_are_registered(mlflow_home: Path) -> None:
    tracking.connect().create_registered_model("mnist")
    result = invoke("models", "digits", "--json")
    assert_refused(result, "no registered model 'digits'", "registered are mnist")


@pytest.fixture
def two_versions(mlflow_home: Path) -> None:
    client = tracking.connect()
    client.create_registered_model("mnist")
    tags = {
        registry.DISTANCE_TAG: "4.25",
        registry.INTERVAL_TAG: "4.0 4.5",
        registry.FLOOR_TAG: "3.5",
        registry.CARD_TAG: "a card",
        registry.DECISION_TAG: "nearer",
    }
    client.create_model_version("mnist", "file:///nowhere", tags=tags)
    client.create_model_version("mnist", "file:///nowhere")
    client.set_registered_model_alias("mnist", "champion", "1")


@pytest.mark.parametrize(
    ("model", "version"),
    [("mnist", 1), ("mnist@champion", 1), ("mnist/2", 2), ("models:/mnist/latest", 2)],
)
def test_a_model_is_fetched_by_the_number_of_its_version(
    two_versions: None, tmp_path: Path, model: str, version: int
) -> None:
    result = invoke("sample", model, "--out", str(tmp_path / "out"))
    # Its files are nowhere.
    assert_refused(result, f"models:/mnist/{version} could not be had from the registry")
    assert not (tmp_path / "out").exists()


def test_a_models_versions_are_one_json_object(two_versions: None) -> None:
    found = json.loads(invoke("models", "mnist", "--json").stdout)
    assert set(found) == {"name", "versions", "ledger"}
    assert found["name"] == "mnist"
    second, first = found["versions"]
    assert second["version"] == 2
    assert second["aliases"] == []
    assert second["frechet_distance"] is None
    assert first.pop("created").endswith("+00:00")
    assert first == {
        "version": 1,
        "aliases": ["champion"],
        "frechet_distance": 4.25,
        "frechet_distance_ci": [4.0, 4.5],
        "floor": 3.5,
        "metric_card": "a card",
        "decision": "nearer",
        "vetoed": None,
        "blessed": None,
        "mlflow_run_id": first["mlflow_run_id"],
        "uri": "models:/mnist/1",
    }


def test_models_that_other_programs_registered_are_listed_too(mlflow_home: Path) -> None:
    client = tracking.connect()
    foreign = {
        registry.DISTANCE_TAG: "n/a",
        registry.FLOOR_TAG: "3rd",
        registry.INTERVAL_TAG: "0.5",
    }
    for name in ("o'brien", "both ' and \"", "plain"):
        client.create_registered_model(name)
        client.create_model_version(name, "runs:/none/model", tags=foreign)
        client.set_registered_model_alias(name, "champion", "1")
    shown = invoke("models")
    assert shown.exit_code == 0, shown.output
    found = json.loads(invoke("models", "--json").stdout)["models"]
    assert [model["name"] for model in found] == ["both ' and \"", "o'brien", "plain"]
    for model in found:
        (version,) = model["versions"]
        assert version["aliases"] == ["champion"]
        assert {version["frechet_distance"], version["floor"]} == {None}
        assert version["frechet_distance_ci"] is None


def test_all_models_are_one_json_object(two_versions: None) -> None:
    found = json.loads(invoke("models", "--json").stdout)
    assert [model["name"] for model in found["models"]] == ["mnist"]
    assert found["models"][0] == json.loads(invoke("models", "mnist", "--json").stdout)


def test_people_see_a_table_of_versions(two_versions: None) -> None:
    shown = invoke("models").stdout
    assert "champion" in shown
    assert "4.25 (4.00 to 4.50)" in shown


def test_a_tracking_server_that_is_down_is_one_sentence(
    own_home: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    assert_refused(invoke("models", "--json"), f"MLflow at {dead_server} cannot be used")


def test_doctor_tells_programs_where_things_lie_and_whether_they_work(own_home: Path) -> None:
    result = invoke("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["healthy"] is True
    assert report["store"] == str(own_home / "store")


def test_doctor_fails_where_something_would_stop_a_run(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "store").write_text("a file in its place")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "cannot be written" in result.stdout


def test_a_home_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(place))
    assert_refused(invoke("run", "digits"), str(place))


@pytest.mark.parametrize("name", ["new%20home", "home?"])
def test_a_home_that_is_another_one_in_an_address_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / name))
    assert_refused(invoke("run", "digits"), f"{name} has a ? or %xx in its path")
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_an_unknown_user_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "~nobody_of_this_name/home")
    assert_refused(
        invoke("run", "digits"), "DAGSTER_HOME is '~nobody_of_this_name/home', which is no path"
    )


@pytest.fixture
def model_folder(tmp_path: Path) -> str:
    return str(release_generator(tmp_path / "release"))


def test_a_sample_with_an_interpolation_holds_pngs_grid_archive_and_animation(
    model_folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["sample", model_folder, "-n", "3", "--interpolation", "2", "--out", str(out)]
    shown = json.loads(invoke(*arguments, "--json").stdout)
    assert {path.name for path in out.iterdir()} == {
        *("grid.png", "samples.npz", "images", "interpolation.gif")
    }
    assert shown["interpolation"] == str(out / "interpolation.gif")
    assert len(list((out / "images").iterdir())) == 3


def test_an_empty_folder_is_filled_where_it_is_and_named_as_it_is(
    model_folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "v[red]"
    out.mkdir()
    number = out.stat().st_ino  # of a container's volume, which cannot be replaced
    result = invoke("sample", model_folder, "-n", "3", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert str(out) in result.stderr
    assert out.stat().st_ino == number
    assert {path.name for path in out.iterdir()} == {"grid.png", "samples.npz", "images"}


def test_a_file_that_one_may_not_read_is_one_sentence(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(own_home / "instance.lock"))

    monkeypatch.setattr("pipelines.instance.filelock.FileLock", forbidden)
    told = f"{own_home / 'instance.lock'} cannot be read or written (Permission denied); let this"
    assert_refused(invoke("run", "digits"), told)
    monkeypatch.setattr("pipelines.mlflow_database.filelock.FileLock", forbidden)
    (own_home / "mlflow").mkdir()
    (own_home / "mlflow" / "mlflow.db").touch()
    assert_refused(invoke("models"), told)


def test_a_user_without_a_home_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", "/home/ann")
    have_a_home()
    assert os.environ["HOME"] == "/home/ann"
    monkeypatch.delenv("HOME")
    have_a_home()
    assert Path.home() == Path(tempfile.gettempdir())


LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(("redirection", "environment"), [("", LATIN), (">&-", {}), (">&-", LATIN)])
def test_a_terminal_of_few_letters_or_none_stops_nothing(
    two_versions: None, redirection: str, environment: dict[str, str]
) -> None:
    program = Path(sys.executable).with_name("gan-foundry")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} models mnist {redirection}"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"champion" in done.stdout) == (not redirection)


def test_a_sample_leaves_what_lies_beside_it_and_the_working_folder(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "out.partial"
    mine.mkdir()
    (mine / "mine.txt").write_text("mine")
    before = set(tmp_path.iterdir())
    out = tmp_path / "out"
    assert invoke("sample", model_folder, "-n", "3", "--out", str(out)).exit_code == 0
    assert set(tmp_path.iterdir()) == {*before, out}
    assert (mine / "mine.txt").read_text() == "mine"

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    result = invoke("sample", model_folder, "--out", ".")
    assert_refused(result, f"--out {empty} is the working folder; name a new one")
    assert list(empty.iterdir()) == []


def test_an_interrupted_sample_leaves_nothing(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samples, "export_samples", interrupted)
    before = set(tmp_path.iterdir())
    assert invoke("sample", model_folder, "--out", str(tmp_path / "out")).exit_code != 0
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("port", ["0", "70000", "-1"])
@pytest.mark.parametrize("words", ["ui --port", "ui --mlflow-port", "serve digits --port"])
def test_a_port_that_does_not_exist_is_a_mistake(words: str, port: str) -> None:
    result = invoke(*words.split(), port)
    assert result.exit_code == 2
    assert "is not in the range 1<=x<=65535" in result.stderr


def test_an_interpolation_that_stands_still_is_refused_before_anything_is_written(
    model_folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = invoke("sample", model_folder, "--interpolation", "1", "--out", str(out))
    assert_refused(result, "the interpolation has 1 stops, but it needs from 2 to 100")
    assert not out.exists()


def test_an_exported_model_tells_its_inputs_and_overwrites_nothing(
    model_folder: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    mine = tmp_path / "tiny.onnx.partial"
    mine.write_text("mine")
    shown = json.loads(invoke("export", model_folder, "--onnx", str(path), "--json").stdout)
    assert shown["inputs"] == ["latents", "labels"]
    assert shown["largest_difference"] < 1e-4
    before = path.read_bytes()
    assert_refused(invoke("export", model_folder, "--onnx", str(path)), "exists; name a new file")
    assert path.read_bytes() == before
    for nowhere in (tmp_path / "no" / "tiny.onnx", mine / "tiny.onnx"):
        refused = invoke("export", model_folder, "--onnx", str(nowhere))
        assert_refused(refused, f"--onnx {nowhere} cannot be written")
    assert mine.read_text() == "mine"
    assert {item.name for item in tmp_path.iterdir()} >= {"tiny.onnx"}


def test_nothing_is_served_before_the_model_is_there(mlflow_home: Path) -> None:
    result = invoke("serve", "digits", "--port", str(free_port()))
    assert_refused(result, "no registered model 'digits'")  # and no address


@pytest.mark.parametrize("model", ["/nowhere/generator", "./generator", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(model: str, own_home: Path, tmp_path: Path) -> None:
    result = invoke("sample", model, "--out", str(tmp_path / "samples"))
    assert_refused(result, f"{model} is no folder; give the folder of a released generator")


def test_without_the_packages_of_the_command_line_the_extra_is_named() -> None:
    program = "import sys; sys.modules['rich.console'] = None\n"
    program += "from pipelines.command import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "models"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: the command line needs rich.console, which is not installed; install this package "
        "with its extra: pip install --editable '.[pipelines]'\n"
    )
