"""The pipelines' YAML files, and the mistakes that people make in them."""

from pathlib import Path
from typing import Any

import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES

from gan_core.errors import FoundryError
from pipelines.components.gan_pipeline import build_pipeline
from pipelines.home import PROJECT
from pipelines.pipeline_files import (
    COMPONENT_TYPE,
    LONGEST_NAME,
    load_pipeline,
    parse_assignment,
    pipeline_files,
    read_pipeline_file,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    return tmp_path / "faces" / "defs.yaml"


def write(file: Path, attributes: str) -> Path:
    file.write_text(f"type: {COMPONENT_TYPE}\n\nattributes:\n{attributes}\n")
    return file


def error_of(file: Path) -> str:
    with pytest.raises(FoundryError) as caught:
        read_pipeline_file(file)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(pipeline_files()))
def test_every_shipped_pipeline_is_valid_and_says_what_it_is(name: str) -> None:
    settings = load_pipeline(name)
    assert settings.description.endswith(".")


def test_the_pipelines_of_the_readme_are_shipped() -> None:
    assert {"digits", "mnist", "fashion_mnist", "cifar10_20pct"} <= set(pipeline_files())


def test_an_unknown_pipeline_names_the_nearest_and_all_that_exist() -> None:
    with pytest.raises(FoundryError) as caught:
        load_pipeline("mnits")
    text = str(caught.value)
    assert text.startswith("there is no pipeline 'mnits'; did you mean mnist?")
    for name in pipeline_files():
        assert name in text
    assert f"dg scaffold defs {COMPONENT_TYPE} mnits" in text


def test_a_name_like_none_of_them_gets_no_suggestion() -> None:
    with pytest.raises(FoundryError) as caught:
        load_pipeline("zzzzzz")
    assert "did you mean" not in str(caught.value)


def test_invalid_yaml_names_file_and_line(file: Path) -> None:
    file.write_text("type: x\nattributes:\n  data: {source: digits\n  training: 3\n")
    assert error_of(file).startswith(f"{file} line 4 is not valid YAML: ")


def test_a_date_that_there_is_not_is_told(file: Path) -> None:
    write(file, "  description: 2024-13-45")
    assert error_of(file) == (
        f"{file} has a value that YAML cannot read (month must be in 1..12); correct it, or quote "
        "it."
    )


def test_a_section_that_stands_twice_is_refused(file: Path) -> None:
    write(file, "  training: {kimg: 200}\n  data: {source: digits}\n  training: {seed: 1}")
    assert error_of(file) == (
        f"{file} line 6 is not valid YAML: the key 'training' stands there twice; correct it."
    )


def test_a_section_beside_the_attributes_is_refused(file: Path) -> None:
    write(file, "  data: {source: digits}\ntraining: {kimg: 900}")
    assert error_of(file) == (
        f"{file}: 'training' stands beside attributes, where nothing reads it; indent it, so that "
        "it stands below attributes."
    )


def test_a_file_that_is_not_text_is_named(file: Path) -> None:
    file.write_bytes(b"type: \xff\xfe")
    assert error_of(file).startswith(f"{file}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("type: pipelines.GanPipeline\n", "'pipelines.GanPipeline'"),
        ("attributes: {}\n", "None"),
        ("", "None"),
        ("- 1\n", "[1]"),
    ],
)
def test_a_wrong_type_names_file_and_the_right_one(file: Path, content: str, found: str) -> None:
    file.write_text(content)
    assert error_of(file) == f"{file}: type is {found}, but it must be {COMPONENT_TYPE}."


@pytest.mark.parametrize(
    ("attributes", "parts"),
    [
        ("  data: {source: digits, size: 8}", ["data.size", "data.resolution"]),
        ("  data: {source: digits}\n  trainig: {}", ["trainig is not a setting"]),
        ("  data: {resolution: 16}", ["data.source is missing", "digits", "image_folder"]),
        ("  data: {source: imagenet}", ["data.source is 'imagenet'", "'digits'", "'mnist'"]),
        ("  data: {source: digits, resolution: 4}", ["data.resolution is 4", "equal to 8"]),
        ("  data: {source: digits, channels: 9}", ["data.channels is 9", "equal to 4"]),
        (
            "  data: {source: digits}\n  training: {kimg: 0}",
            ["training.kimg is 0", "greater than 0"],
        ),
        ("  data: {source: digits}\n  training: 5", ["training is 5", "mapping"]),
        ("  [digits]", ["['digits']", "mapping"]),
        (
            "  data: {source: digits, resolution: 30}",
            ["data.resolution 30x30", "network.generator_channels", "multiples of 4"],
        ),
        ("  data: {source: image_folder}", ["exactly one of `path` and `archive`"]),
        ("  data: {source: digits, path: x}", ["`path` goes with source image_folder"]),
        ("  data: {source: image_folder, archive: a.zip}", ["`sha256`"]),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(
    file: Path, attributes: str, parts: list[str]
) -> None:
    text = error_of(write(file, attributes))
    assert text.startswith(f"{file}: ")
    for part in parts:
        assert part in text
    assert "\n" not in text


def test_folders_have_names_that_dagster_takes(tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        return error_of(tmp_path / name / "defs.yaml")

    for word in DISALLOWED_NAMES:
        assert f"the folder's name {word!r} is the pipeline's, but Dagster" in refusal(word)
    for name in ("my faces", "a" * (LONGEST_NAME + 1)):
        assert "letters, digits and _ only, 63 at most; rename it" in refusal(name)
    longest = tmp_path / ("a" * LONGEST_NAME) / "defs.yaml"
    longest.parent.mkdir()
    settings = read_pipeline_file(write(longest, "  data: {source: digits, resolution: 16}"))
    assert build_pipeline(longest.parent.name, settings).assets


def test_a_pipeline_is_not_called_as_the_job_of_another(tmp_path: Path) -> None:
    content = "  data: {source: digits, resolution: 16}"
    for name in ("faces_aliases", "faces"):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name / "defs.yaml", content)
        assert read_pipeline_file(file)  # alone
    told = "faces_aliases is the name of the job that moves the aliases of pipeline faces; rename"
    assert told in error_of(tmp_path / "faces_aliases" / "defs.yaml")


def test_a_file_that_is_nested_without_end_is_told(file: Path) -> None:
    file.write_text("[" * 5000)
    assert "is nested too deeply to be read; flatten it" in error_of(file)


def test_a_file_of_the_project_is_named_as_seen_from_the_project() -> None:
    with pytest.raises(FoundryError, match=r"^pipelines/home\.py"):
        read_pipeline_file(PROJECT / "pipelines" / "home.py")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("../pictures", "{folder}/../pictures"),
        ("mine.zip", "{folder}/mine.zip"),
        ("/data/pictures", "/data/pictures"),
        ("~/pictures", "{home}/pictures"),
    ],
)
def test_a_relative_path_is_taken_from_the_files_folder(
    file: Path, written: str, meant: str
) -> None:
    write(file, f"  data: {{source: image_folder, path: {written}}}")
    place = Path(meant.format(folder=file.parent, home=Path.home())).resolve()
    assert read_pipeline_file(file).data.path == str(place)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("~nobody_of_this_name/x", "'~nobody_of_this_name/x'"),
        (r'"a\0b"', r"'a\x00b'"),
    ],
)
def test_what_cannot_be_a_path_names_file_key_and_value(
    file: Path, written: str, shown: str
) -> None:
    write(file, f"  data: {{source: image_folder, path: {written}}}")
    assert error_of(file).startswith(f"{file}: data.path is {shown}, which is no path (")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.kimg=20", "training.kimg", 20),
        ("training.r1_gamma=0.5", "training.r1_gamma", 0.5),
        ("training.precision=bf16", "training.precision", "bf16"),
        ("network.conditional=false", "network.conditional", False),
        ("training.threads=null", "training.threads", None),
        ("network.generator_channels=[8, 4]", "network.generator_channels", [8, 4]),
        ("description=a=b", "description", "a=b"),
        (" training.seed = 3", "training.seed", 3),
    ],
)
def test_an_assignment_is_a_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["training.kimg", "=20", " =20", "", "training.kimg 20"])
def test_what_is_no_assignment_is_shown_the_form(text: str) -> None:
    with pytest.raises(FoundryError, match="must have the form key=value"):
        parse_assignment(text)


@pytest.mark.parametrize("value", ["[8, 4", "2024-13-45"])
def test_an_assignment_that_is_not_yaml_names_key_and_value(value: str) -> None:
    with pytest.raises(FoundryError) as caught:
        parse_assignment(f"network.generator_channels={value}")
    assert str(caught.value).startswith(f"--set network.generator_channels: the value {value!r}")
