"""The winner of a sweep as settings that a person can apply: a YAML file and a diff."""

import difflib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gan_core.config import PipelineSettings, apply_overrides, flat_settings, parse_settings
from gan_core.errors import FoundryError
from pipelines.home import PROJECT
from pipelines.pipeline_files import read_pipeline_file
from pipelines.sweep.study import TrialRecord
from pipelines.sweep.yaml_edit import set_values

WINNER_FILE = "winner.yaml"
DIFF_FILE = "winner.diff"
ATTRIBUTES = "attributes"


@dataclass(frozen=True)
class Winner:
    """A trial that came nearer to the training images than the pipeline's own settings.

    Attributes:
        record: The trial.
        changes: What it has otherwise than the pipeline, by dotted key.
        diff: Of the pipeline's file, for `git apply` in the project's root; None where that file is
            written in a way that cannot be edited, or has changed since, or is gone.
    """

    record: TrialRecord
    changes: Mapping[str, Any]
    diff: str | None


def best_trial(records: list[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the smallest distance, the earliest of equal ones."""
    complete = [record for record in records if record.outcome == "complete"]
    return min(complete, key=lambda record: record.distance or 0.0, default=None)


def choose_winner(
    records: list[TrialRecord], settings: PipelineSettings, file: Path
) -> Winner | None:
    """The best trial, or None where the pipeline's own settings, the first trial, are.

    Args:
        records: All trials.
        settings: Of the pipeline.
        file: Its `defs.yaml`.
    """
    best = best_trial(records)
    own = flat_settings(settings)
    changes = {k: v for k, v in best.values.items() if v != own[k]} if best else {}
    if best is None or not changes:
        return None
    return Winner(best, changes, _diff(file, settings, changes))


def write_winner(folder: Path, winner: Winner | None) -> list[Path]:
    """Write the winner's files into the sweep's folder; without one, remove those that are there.

    Returns:
        The files.
    """
    yaml_file, diff_file = folder / WINNER_FILE, folder / DIFF_FILE
    if winner is None:
        yaml_file.unlink(missing_ok=True)
        diff_file.unlink(missing_ok=True)
        return []
    nested = {ATTRIBUTES: _nested(winner.changes)}
    yaml_file.write_text(yaml.safe_dump(nested, sort_keys=False), encoding="utf-8")
    if winner.diff is None:
        diff_file.unlink(missing_ok=True)
        return [yaml_file]
    diff_file.write_text(winner.diff, encoding="utf-8", newline="")
    return [yaml_file, diff_file]


def _diff(file: Path, settings: PipelineSettings, changes: Mapping[str, Any]) -> str | None:
    shown = str(file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else file.name)
    try:
        read_pipeline_file(file)  # a sweep takes long: it may have become anything, or be gone
        with file.open(encoding="utf-8", newline="") as opened:
            before = opened.read()
        after = set_values(before, _plain(changes), ATTRIBUTES)
        read = parse_settings(yaml.safe_load(after)[ATTRIBUTES], shown)
        understood = _recipe(read) == _recipe(apply_overrides(settings, changes, "the winner"))
    except (OSError, yaml.YAMLError, KeyError, FoundryError):
        understood = False
    if not understood:
        return None
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{shown}", f"b/{shown}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    """With their ends; a line ends where `patch` thinks so."""
    return io.StringIO(text).readlines()


def _recipe(settings: PipelineSettings) -> tuple[Any, Any]:
    return settings.network, settings.training


def _plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values that YAML knows."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changes.items()}


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in _plain(changes).items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested
