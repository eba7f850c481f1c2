"""The winner as settings that a person applies to the pipeline's file."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan_core.config import PipelineSettings, apply_overrides
from pipelines.home import PROJECT
from pipelines.pipeline_files import pipeline_files, read_pipeline_file
from pipelines.sweep.study import TrialRecord
from pipelines.sweep.winner import choose_winner, write_winner
from pipelines.sweep.yaml_edit import set_values

APPLY = {"git": ["git", "apply"], "patch": ["patch", "-p1", "--no-backup-if-mismatch", "-i"]}
CHANGES: dict[str, Any] = {
    "training.generator_learning_rate": 0.00171,
    "training.ema_halflife_kimg": 5.46,
    "training.loss": "hinge",
    "training.augmentation.probability": 1e-05,
    "network.discriminator_channels": (16, 64, 256),
    "network.spectral_norm": True,
}


def record(index: int, distance: float, values: dict[str, Any]) -> TrialRecord:
    return TrialRecord(index, "complete", distance, values, 10.0, 1.0, None)


def write_diff(folder: Path, settings: PipelineSettings, file: Path) -> Path:
    winner = choose_winner([record(0, 9.0, {}), record(1, 8.0, CHANGES)], settings, file)
    write_winner(folder, winner)
    return folder / "winner.diff"


@pytest.mark.parametrize("command", APPLY.values(), ids=APPLY)
@pytest.mark.parametrize("name", sorted(pipeline_files()))
def test_the_diff_applies_to_the_pipelines_file_and_gives_the_winners_settings(
    name: str, command: list[str], tmp_path: Path
) -> None:
    file = pipeline_files()[name]
    settings = read_pipeline_file(file)
    copy = tmp_path / "project" / file.relative_to(PROJECT)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(file, copy)
    diff = write_diff(tmp_path, settings, file)
    subprocess.run([*command, str(diff)], cwd=tmp_path / "project", check=True)
    assert read_pipeline_file(copy) == apply_overrides(settings, CHANGES, "the winner")


COMMENTED = """\
# Faces of the family.
type: pipelines.components.GanPipeline

attributes:   # all of it
  data: {source: digits, resolution: 16, channels: 1}
  network: {latent_dim: 32}
  training:
    kimg: 20        # an evening
    # Tried 1e-3 and 3e-3.
    generator_learning_rate: 2.0e-3  # Adam's

    monitoring:
      # often
      interval_kimg: 2
    adam_betas:
      - 0.0
      - 0.99
  samples:
    count: 4"""


def test_comments_and_order_and_what_is_not_changed_stay() -> None:
    changed = set_values(
        COMMENTED,
        {
            "training.generator_learning_rate": 0.001,
            "training.adam_betas": [0.5, 0.9],
            "training.r1_gamma": 1.0,
            "training.monitoring.samples": 100,
            "network.spectral_norm": True,
            "samples.seed": 3,
            "gate.tolerance": 0.2,
        },
        "attributes",
    )
    assert (
        changed
        == """\
# Faces of the family.
type: pipelines.components.GanPipeline

attributes:   # all of it
  gate:
    tolerance: 0.2
  data: {source: digits, resolution: 16, channels: 1}
  network: {spectral_norm: true, latent_dim: 32}
  training:
    kimg: 20        # an evening
    # Tried 1e-3 and 3e-3.
    generator_learning_rate: 0.001  # Adam's

    monitoring:
      # often
      interval_kimg: 2
      samples: 100
    adam_betas: [0.5, 0.9]
    r1_gamma: 1.0
  samples:
    count: 4
    seed: 3"""
    )


@pytest.mark.parametrize("text", [COMMENTED, COMMENTED.replace("\n", "\r\n") + "\r\n"])
def test_files_without_a_last_line_end_or_with_two_of_them_can_be_patched(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "faces" / "defs.yaml"
    file.parent.mkdir()
    file.write_bytes(text.encode())
    settings = read_pipeline_file(file)
    write_diff(tmp_path, settings, file)
    subprocess.run(["git", "apply", "../winner.diff"], cwd=file.parent, check=True)
    changed = read_pipeline_file(file)
    assert changed == apply_overrides(settings, CHANGES, "the winner")
    assert (b"\r\n" in file.read_bytes()) == ("\r\n" in text)


def test_the_winners_file_has_only_what_differs(tmp_path: Path) -> None:
    file = pipeline_files()["digits"]
    own = {"training.r1_gamma": 0.3, "training.r2_gamma": 0.3}
    values = {"training.r1_gamma": 0.3, "training.r2_gamma": 0.7}
    winner = choose_winner(
        [record(0, 9.0, own), record(1, 8.0, values)], read_pipeline_file(file), file
    )
    write_winner(tmp_path, winner)
    found = yaml.safe_load((tmp_path / "winner.yaml").read_text())
    assert found == {"attributes": {"training": {"r2_gamma": 0.7}}}


def test_where_the_own_settings_are_the_best_there_is_no_diff_and_an_old_one_goes(
    tmp_path: Path,
) -> None:
    file = pipeline_files()["digits"]
    settings = read_pipeline_file(file)
    write_diff(tmp_path, settings, file)
    own = {"training.loss": settings.training.loss}
    for other in (9.0, 9.5):  # as good is not better
        winner = choose_winner([record(0, 9.0, own), record(1, other, CHANGES)], settings, file)
        assert winner is None
    assert write_winner(tmp_path, None) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="gone"),
        pytest.param(b"", id="empty"),
        pytest.param(b"- training\n", id="a list"),
        pytest.param(b"training\n", id="a word"),
        pytest.param(b"? [a, b]\n: c\n", id="a list as a key"),
        pytest.param(b"attributes: {data: \xe9}\n", id="not UTF-8"),
        pytest.param(b"attributes: {\n", id="not YAML"),
        pytest.param(b"attributes:\n- training\n", id="a list of attributes"),
    ],
)
def test_whatever_became_of_the_file_meanwhile_the_winner_is_told_without_a_diff(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "faces" / "defs.yaml"
    file.parent.mkdir()
    if content is not None:
        file.write_bytes(content)
    settings = read_pipeline_file(pipeline_files()["digits"])
    winner = choose_winner([record(1, 8.0, CHANGES)], settings, file)
    assert winner is not None
    assert winner.diff is None
    assert [path.name for path in write_winner(tmp_path, winner)] == ["winner.yaml"]


def test_a_file_that_cannot_be_edited_leaves_the_settings_without_a_diff(tmp_path: Path) -> None:
    file = tmp_path / "faces" / "defs.yaml"
    file.parent.mkdir()
    file.write_text(
        "type: pipelines.components.GanPipeline\n"
        "attributes:\n"
        "  data: {source: digits, resolution: 16, channels: 1}\n"
        "  training: &t {r1_gamma: 0.3}\n"
    )
    settings = apply_overrides(read_pipeline_file(file), {"training.r1_gamma": 0.5}, "x")
    winner = choose_winner([record(1, 8.0, {"training.r2_gamma": 1.0})], settings, file)
    assert winner is not None
    assert winner.diff is None  # the file has changed since
    assert [path.name for path in write_winner(tmp_path, winner)] == ["winner.yaml"]
