"""What of a training's journal reaches Dagster's pages, and how often."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import PIL.Image
import pytest

from gan_core.config import PipelineSettings
from pipelines.assets import tracked_training
from pipelines.assets.generator import describe_progress, draw_curves
from pipelines.assets.stage import StageContext
from pipelines.assets.tracked_training import JournalFollower

SETTINGS = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})


class Log:
    """Dagster's event log: the lines and observations of a stage."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.observations: list[dg.AssetObservation] = []
        self.log = SimpleNamespace(info=self.lines.append, warning=self.lines.append)
        self.log_event = self.observations.append

    @property
    def events(self) -> int:
        return len(self.lines) + len(self.observations)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(tracked_training, "time", found)
    return found


@pytest.fixture
def follower(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> JournalFollower:
    stage = StageContext("digits", "generator", "1", SETTINGS, log)  # type: ignore[arg-type]
    monkeypatch.setattr(JournalFollower, "_ship_durable", lambda _: True)
    return JournalFollower(stage, "key", tmp_path)


def progress(kimg: float) -> dict[str, Any]:
    return {
        "event": "progress",
        "kimg": kimg,
        "total_kimg": 150.0,
        "images_per_second": 1000.0,
        "generator_loss": 0.7,
        "discriminator_loss": 0.6,
    }


def test_a_training_of_minutes_gives_one_event_in_five_seconds_at_most(
    follower: JournalFollower, clock: Clock, log: Log
) -> None:
    times = []
    for poll in range(600):  # two minutes of polling five times a second
        before = log.events
        follower([progress(poll / 5), progress(poll / 5 + 0.1)])
        times += [clock.now] * (log.events - before)
        clock.now += 0.2
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 5
    assert 20 <= log.events <= 24
    assert len(log.observations) == 4


def test_an_observation_shows_numbers_the_time_left_and_the_latest_grid(
    follower: JournalFollower, clock: Clock, log: Log, tmp_path: Path
) -> None:
    for name in ("first.png", "second.png"):
        PIL.Image.new("L", (8, 8)).save(tmp_path / name)
    grids = [{"event": "grid", "file": name} for name in ("first.png", "second.png")]
    follower([*grids, progress(50)])
    clock.now += 31
    follower([progress(51)])
    with_grid, without = log.observations
    assert with_grid.asset_key == dg.AssetKey(["digits", "generator"])
    assert with_grid.description is not None
    assert with_grid.description.startswith("50.0 of 150.0 kimg, 1000 img/s")
    shown = {name: found.value for name, found in with_grid.metadata.items()}
    assert shown["seconds_left"] == 100.0
    assert shown["generator_loss"] == 0.7
    assert shown["latest_grid"].startswith("![latest samples](data:image/png;base64,")
    assert "latest_grid" not in without.metadata  # it is the same


def test_a_loss_that_no_step_of_a_line_had_is_left_out(
    follower: JournalFollower, clock: Clock, log: Log
) -> None:
    row = progress(50)
    del row["generator_loss"]
    follower([row])
    (shown,) = log.observations
    assert shown.description == (
        "50.0 of 150.0 kimg, 1000 img/s, discriminator loss 0.600, 100 s left"
    )
    assert "generator_loss" not in shown.metadata
    found = describe_progress([progress(49), row])
    assert found == {
        "images_per_second": 1000.0,
        "generator_loss": 0.7,
        "discriminator_loss": 0.6,
    }
    assert describe_progress([]) == {}
    assert draw_curves([progress(49), row]).startswith(b"\x89PNG")


def test_alarms_are_told_at_once(follower: JournalFollower, log: Log) -> None:
    alarm = {"event": "alarm", "kimg": 3.0, "message": "the distance rose", "reaction": "note"}
    follower([progress(3), alarm])
    assert log.lines == ["alarm at 3 kimg: the distance rose; noted"]
