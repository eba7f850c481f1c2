"""What evaluations during a training lead to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from gan_core.released_files import WEIGHTS_FILE
from gan_core.training import course
from gan_core.training.alarms import Measurement
from gan_core.training.checkpoint import load_tensors, read_progress
from gan_core.training.job import (
    CHECKPOINT_FILE,
    RELEASE_FOLDER,
    SNAPSHOT_FOLDER,
    TrainingJob,
)
from gan_core.training.loop import train
from gan_core.training.processes import Processes
from gan_core.training.trainer import Trainer
from tests.gan_core.trainings import after_steps, journal_rows, never, released_bytes, run_job

MakeJob = Callable[..., TrainingJob]
Stop = Callable[[], str | None]
EVERY_STEP = {"interval_kimg": 0.001, "samples": 2}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the evaluations of a training find what a test wants."""

    def find(**columns: list[Any]) -> None:
        healthy = {"distance": 10.0, "class_coverage": 1.0, "diversity": 0.3}
        count = len(next(iter(columns.values())))
        rows: Iterator[dict[str, Any]] = iter(
            {**healthy, **{name: values[index] for name, values in columns.items()}}
            for index in range(count)
        )

        class Told:
            def __init__(self, *_: object) -> None:
                pass

            def measure(
                self, _: object, images: int, accuracy: float | None, should_stop: Stop
            ) -> Measurement | str:
                if reason := should_stop():
                    return reason
                values = {"discriminator_accuracy": accuracy, **next(rows)}
                return Measurement(images=images, **values)

        monkeypatch.setattr(course, "Monitor", Told)

    return find


def test_the_distance_is_measured_at_its_interval_from_the_same_latents(
    make_job: MakeJob, tmp_path: Path
) -> None:
    run_job(make_job(monitoring={"interval_kimg": 0.4, "samples": 100}), tmp_path)
    rows = journal_rows(tmp_path, "evaluation")
    assert [row["images"] for row in rows] == [416, 800, 992]
    for row in rows:
        assert row["distance"] > 0
        assert 0 <= row["class_coverage"] <= 1
        assert row["diversity"] > 0
        assert 0 <= row["discriminator_accuracy"] <= 1


def test_a_training_that_is_not_measured_has_no_evaluations(
    make_job: MakeJob, tmp_path: Path
) -> None:
    run_job(make_job(kimg=0.3, monitoring={"interval_kimg": 0}), tmp_path / "off")
    run_job(make_job(kimg=0.3), tmp_path / "without a network")
    assert not journal_rows(tmp_path / "off", "evaluation")
    assert not journal_rows(tmp_path / "without a network", "evaluation")


def test_measuring_does_not_change_what_is_learned(make_job: MakeJob, tmp_path: Path) -> None:
    run_job(make_job(kimg=0.3), tmp_path / "unmeasured")
    monitoring = {**EVERY_STEP, "release": "last"}
    run_job(make_job(kimg=0.3, monitoring=monitoring), tmp_path / "measured")
    assert released_bytes(tmp_path / "measured") == released_bytes(tmp_path / "unmeasured")


def test_the_snapshot_with_the_smallest_distance_is_released(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[9.0, 4.0, 7.0])
    run_job(make_job(kimg=0.096, monitoring=EVERY_STEP), tmp_path / "best")
    (end,) = journal_rows(tmp_path / "best", "end")
    assert end["released_kimg"] == 0.064
    snapshot = load_tensors(*(tmp_path / "best" / SNAPSHOT_FOLDER).iterdir())
    released = ReleasedGenerator.load(tmp_path / "best" / RELEASE_FOLDER)._module.state_dict()
    for name, value in released.items():
        assert torch.equal(value, snapshot[f"average/{name}"])


def test_only_the_best_snapshot_is_kept(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[9.0, 4.0, 7.0, 3.0, 5.0])
    job = make_job(kimg=0.16, monitoring=EVERY_STEP)
    run_job(job, tmp_path)
    assert [path.name for path in (tmp_path / SNAPSHOT_FOLDER).iterdir()] == [
        "images-000000000128.safetensors"
    ]


def test_a_training_without_progress_ends_early_and_says_so(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[9.0, 4.0, 7.0, 4.0, 5.0])
    monitoring = {**EVERY_STEP, "patience_evaluations": 3}
    assert run_job(make_job(monitoring=monitoring), tmp_path) is None
    (end,) = journal_rows(tmp_path, "end")
    assert (end["reason"], end["images"], end["released_kimg"]) == ("plateau", 160, 0.064)
    # It is over: starting it again changes nothing.
    rows, weights = journal_rows(tmp_path), released_bytes(tmp_path)
    assert run_job(make_job(monitoring=monitoring), tmp_path) is None
    assert (journal_rows(tmp_path), released_bytes(tmp_path)) == (rows, weights)


def test_a_training_that_ends_before_its_first_line_has_one_all_the_same(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[4.0, 5.0, 5.0])
    monitoring = {**EVERY_STEP, "patience_evaluations": 2}
    assert run_job(make_job(monitoring=monitoring, logging_interval_kimg=50), tmp_path) is None
    (line,) = journal_rows(tmp_path, "progress")
    (end,) = journal_rows(tmp_path, "end")
    assert (line["images"], end["images"], end["reason"]) == (96, 96, "plateau")
    assert line["discriminator_loss"] > 0


def test_what_is_released_early_has_a_grid_beside_that_of_the_moment(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[4.0, 5.0, 5.0])
    monitoring = {**EVERY_STEP, "patience_evaluations": 2}
    run_job(make_job(monitoring=monitoring, grid_interval_kimg=0.032), tmp_path)
    grids = [(row["images"], row["file"]) for row in journal_rows(tmp_path, "grid")]
    assert [images for images, _ in grids] == [0, 32, 64, 96, 96]
    _, best, _, shown, released = ((tmp_path / file).read_bytes() for _, file in grids)
    assert released == best
    assert released != shown


def test_a_stop_in_the_evaluation_that_ends_the_training_changes_no_line(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    monitoring = {**EVERY_STEP, "patience_evaluations": 2}
    job = make_job(monitoring=monitoring, learning_rate_decay_start=0.0)
    found(distance=[9.0, 10.0, 10.0])
    run_job(job, tmp_path / "undisturbed")
    found(distance=[9.0, 10.0, 10.0])
    assert run_job(job, tmp_path / "stopped", after_steps(5)) == "enough"  # asked twice a step
    assert len(journal_rows(tmp_path / "stopped", "evaluation")) == 2
    run_job(job, tmp_path / "stopped")
    assert journal_rows(tmp_path / "stopped") == journal_rows(tmp_path / "undisturbed")


def test_a_roll_back_begins_patience_anew(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[5.0, *[10.0] * 4])
    monitoring = {**EVERY_STEP, "patience_evaluations": 3}
    run_job(make_job(kimg=0.16, monitoring=monitoring), tmp_path)
    (alarm,) = journal_rows(tmp_path, "alarm")
    (end,) = journal_rows(tmp_path, "end")
    assert (alarm["reaction"], alarm["images"]) == ("roll_back", 128)
    assert (end["reason"], end["images"]) == ("budget", 160)


def test_a_noted_alarm_is_a_line_and_changes_nothing(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    monitoring = {**EVERY_STEP, "release": "last"}
    found(diversity=[0.3, *[0.1] * 4])
    run_job(make_job(kimg=0.16, monitoring=monitoring), tmp_path / "alarmed")
    found(diversity=[0.3] * 5)
    run_job(make_job(kimg=0.16, monitoring=monitoring), tmp_path / "quiet")
    (alarm,) = journal_rows(tmp_path / "alarmed", "alarm")
    assert (alarm["name"], alarm["reaction"], alarm["images"]) == ("diversity", "note", 128)
    assert "alike" in alarm["message"]
    assert released_bytes(tmp_path / "alarmed") == released_bytes(tmp_path / "quiet")


@pytest.mark.parametrize("release", ["best", "last"])
def test_an_alarm_that_stops_ends_the_training_with_the_best_snapshot(
    release: str, make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(class_coverage=[1.0, *[0.5] * 3], distance=[5.0, 6.0, 7.0, 8.0])
    monitoring = {**EVERY_STEP, "release": release}
    job = make_job(monitoring=monitoring, alarms={"coverage": "stop"})
    assert run_job(job, tmp_path) is None
    (end,) = journal_rows(tmp_path, "end")
    assert (end["reason"], end["images"], end["released_kimg"]) == ("alarm", 128, 0.032)
    weights = released_bytes(tmp_path)
    assert run_job(job, tmp_path) is None  # the release alone is made again
    assert released_bytes(tmp_path) == weights


@pytest.mark.parametrize("kimg", [0.192, 0.064])
@pytest.mark.parametrize("asked", [2, 20])
def test_a_stop_cuts_an_evaluation_off_and_the_training_goes_on_to_the_same_bits(
    kimg: float, asked: int, make_job: MakeJob, tmp_path: Path
) -> None:
    monitoring = {"interval_kimg": 0.064, "samples": 1000}
    job = make_job(kimg=kimg, monitoring=monitoring, logging_interval_kimg=0.032)
    assert run_job(job, tmp_path / "whole") is None

    def stop_while_measuring() -> str | None:
        nonlocal asked
        measured = journal_rows(tmp_path / "cut", "evaluation")
        shown = journal_rows(tmp_path / "cut", "progress")
        asked -= bool(shown and shown[-1]["images"] == 64 and not measured)
        return "enough" if asked < 0 else None

    assert run_job(job, tmp_path / "cut", stop_while_measuring) == "enough"
    progress = read_progress(tmp_path / "cut" / CHECKPOINT_FILE)
    assert progress is not None
    assert (progress.images, progress.evaluation_is_due) == (64, True)
    assert journal_rows(tmp_path / "cut", "evaluation") == []
    # Again, before anything else is done.
    assert run_job(job, tmp_path / "cut", after_steps(0)) == "enough"

    assert run_job(job, tmp_path / "cut") is None
    assert journal_rows(tmp_path / "cut") == journal_rows(tmp_path / "whole")
    assert released_bytes(tmp_path / "cut") == released_bytes(tmp_path / "whole")


def test_a_raised_budget_continues_a_stopped_training_from_its_best_snapshot(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    settings = {
        "monitoring": {**EVERY_STEP, "release": "last"},
        "alarms": {"coverage": "stop"},
        "learning_rate_decay_start": 1.0,
    }
    found(class_coverage=[1.0, *[0.5] * 3], distance=[5.0, 6.0, 7.0, 8.0])
    run_job(make_job(kimg=0.16, **settings), tmp_path)
    best = released_bytes(tmp_path)
    trainer = Trainer(make_job(kimg=0.192, **settings), open_image_set(make_job().image_set))
    trainer.restore(tmp_path)
    trainer.released().save(tmp_path)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == best
    assert (trainer.progress.images, trainer.progress.watch.roll_backs) == (128, 1)
    found(class_coverage=[1.0] * 2, distance=[6.0, 6.0])
    run_job(make_job(kimg=0.192, **settings), tmp_path)
    (raised,) = journal_rows(tmp_path, "budget_raised")
    assert (raised["images"], raised["from_kimg"]) == (128, 0.032)


def test_a_raised_budget_begins_patience_anew(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    monitoring = {**EVERY_STEP, "patience_evaluations": 2}
    found(distance=[4.0, 5.0, 5.0])
    run_job(make_job(kimg=0.16, monitoring=monitoring), tmp_path)
    found(distance=[5.0] * 5)
    run_job(make_job(kimg=0.32, monitoring=monitoring), tmp_path)
    ends = [(row["reason"], row["images"]) for row in journal_rows(tmp_path, "end")]
    assert ends == [("plateau", 96), ("plateau", 160)]


def test_a_roll_back_returns_to_the_best_snapshot_with_lower_rates(
    make_job: MakeJob,
    tmp_path: Path,
    found: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    returned = []

    def note(self: Trainer, folder: Path, images: int) -> None:
        original(self, folder, images)
        snapshot = load_tensors(*(folder / SNAPSHOT_FOLDER).iterdir())
        same = [
            torch.equal(value, snapshot[f"{player}/{name}"])
            for player in ("generator", "discriminator")
            for name, value in getattr(self.game, player).state_dict().items()
        ]
        returned.append((images, all(same)))

    original = Trainer.return_to_snapshot
    monkeypatch.setattr(Trainer, "return_to_snapshot", note)
    found(distance=[5.0, *[10.0] * 5])
    settings = {"learning_rate_decay_start": 1.0, "logging_interval_kimg": 0.001}
    run_job(make_job(kimg=0.192, monitoring=EVERY_STEP, **settings), tmp_path)
    assert returned == [(32, True)]
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["name"], alarm["reaction"], alarm["images"]) == ("distance", "roll_back", 128)
    factors = [row["learning_rate_factor"] for row in journal_rows(tmp_path, "progress")]
    assert factors == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert (progress.rate_factor, progress.watch.roll_backs) == (0.5, 1)


def test_after_a_roll_back_at_the_end_the_snapshots_images_are_told(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[5.0, 10.0])
    monitoring = {**EVERY_STEP, "release": "last"}
    alarms = {"evaluations": 1}
    run_job(make_job(kimg=0.064, monitoring=monitoring, alarms=alarms), tmp_path)
    assert [row["reaction"] for row in journal_rows(tmp_path, "alarm")] == ["roll_back"]
    (end,) = journal_rows(tmp_path, "end")
    assert (end["images"], end["released_kimg"]) == (64, 0.032)


def test_roll_backs_without_end_are_a_stop(
    make_job: MakeJob, tmp_path: Path, found: Callable[..., None]
) -> None:
    found(distance=[5.0, *[10.0] * 30])
    run_job(make_job(monitoring=EVERY_STEP, alarms={"most_roll_backs": 2}), tmp_path)
    reactions = [row["reaction"] for row in journal_rows(tmp_path, "alarm")]
    assert reactions == ["roll_back", "roll_back", "stop"]
    assert journal_rows(tmp_path, "end")[0]["reason"] == "alarm"


def break_weights_at(
    steps: set[int], monkeypatch: pytest.MonkeyPatch, *, afterwards: bool = False
) -> None:
    """Put a NaN into the generator before the steps of these numbers, or after them."""
    original, taken = Trainer.step, iter(range(10**6))

    def step(self: Trainer, *arguments: Any) -> None:
        broken = next(taken) in steps
        if afterwards:
            original(self, *arguments)
        if broken:
            with torch.no_grad():
                self.game.generator.project.weight[0, 0] = torch.nan
        if not afterwards:
            original(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step)


def test_a_broken_loss_ends_the_training_and_the_last_good_state_stays(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({5}, monkeypatch)
    job = make_job(
        checkpoint_interval_seconds=1e-6,
        logging_interval_kimg=0.096,
        monitoring={"interval_kimg": 0.064, "samples": 8},
    )
    with pytest.raises(FoundryError, match=r"is nan at 0.192 kimg, and so is the tensor gener"):
        run_job(job, tmp_path)
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["name"], alarm["reaction"]) == ("non_finite", "stop")
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert progress.images == 160
    tensors = load_tensors(tmp_path / CHECKPOINT_FILE)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    assert len(list((tmp_path / SNAPSHOT_FOLDER).iterdir())) == 1


def test_a_broken_loss_is_seen_when_it_is_time_for_a_checkpoint(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({5}, monkeypatch)
    job = make_job(
        kimg=1,
        checkpoint_interval_seconds=1e-6,
        logging_interval_kimg=10,
        monitoring={"interval_kimg": 0},
    )
    with pytest.raises(FoundryError, match=r"is nan at 0.192 kimg, and so is the tensor gener"):
        run_job(job, tmp_path)
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["name"], alarm["reaction"]) == ("non_finite", "stop")
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert progress.images == 160


def test_at_a_checkpoint_the_chief_alone_looks_for_a_broken_loss(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each process has a clock of its own: another one would end the training before the chief.
    break_weights_at({5}, monkeypatch)
    job = make_job(
        kimg=1,
        checkpoint_interval_seconds=1e-6,
        logging_interval_kimg=0.288,
        monitoring={"interval_kimg": 0},
    )
    with pytest.raises(FoundryError, match=r"is nan at 0.288 kimg"):
        train(job, tmp_path, never, Processes(rank=1))


def test_a_broken_loss_that_is_to_be_rolled_back_waits_for_its_line(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({5}, monkeypatch)
    job = make_job(
        kimg=0.4,
        checkpoint_interval_seconds=1e-6,
        logging_interval_kimg=0.288,
        monitoring={"interval_kimg": 0.128, "samples": 8},
        alarms={"non_finite": "roll_back", "distance": "note"},
    )
    assert run_job(job, tmp_path) is None
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["reaction"], alarm["images"]) == ("roll_back", 256)  # where it is measured


def test_a_broken_loss_can_be_rolled_back_and_the_training_ends_well(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({5}, monkeypatch)
    job = make_job(
        kimg=0.4,
        logging_interval_kimg=0.064,
        monitoring={"interval_kimg": 0.064, "samples": 8},
        alarms={"non_finite": "roll_back", "distance": "note"},
    )
    assert run_job(job, tmp_path) is None
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["name"], alarm["reaction"], alarm["images"]) == ("non_finite", "roll_back", 192)
    last = journal_rows(tmp_path, "progress")[-1]
    assert last["images"] == 384
    assert all(v == v for v in last.values())  # no NaN  # noqa: PLR0124
    assert (tmp_path / RELEASE_FOLDER).exists()


def test_without_a_snapshot_a_broken_loss_cannot_be_rolled_back(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({1}, monkeypatch)
    with pytest.raises(FoundryError) as caught:
        run_job(make_job(alarms={"non_finite": "roll_back"}), tmp_path)
    assert str(caught.value).endswith(
        "lower training.generator_learning_rate and training.discriminator_learning_rate (there "
        "was no snapshot to return to; training.monitoring.interval_kimg is 50). The last good "
        "checkpoint is kept."
    )


def test_when_roll_backs_do_not_help_a_broken_loss_ends_the_training(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({3, 5, 7}, monkeypatch)
    job = make_job(
        logging_interval_kimg=0.032,
        monitoring={"interval_kimg": 0.064, "samples": 8},
        alarms={"non_finite": "roll_back", "most_roll_backs": 2, "distance": "note"},
    )
    with pytest.raises(FoundryError, match="2 of at most 2 roll-backs were made"):
        run_job(job, tmp_path)


def test_a_stop_while_the_weights_are_broken_keeps_the_last_good_checkpoint(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    run_job(job, tmp_path, after_steps(2))
    break_weights_at({1}, monkeypatch)
    assert run_job(job, tmp_path, after_steps(3)) == "enough"
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert progress.images == 64


def test_weights_that_the_last_step_broke_are_not_released(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({2}, monkeypatch, afterwards=True)
    sentence = r"diverged: the tensor generator/project.weight holds a NaN .* at 0.096 kimg; lower"
    with pytest.raises(FoundryError, match=sentence):
        run_job(make_job(kimg=0.096), tmp_path)
    assert not (tmp_path / RELEASE_FOLDER).exists()


def test_weights_that_a_step_broke_are_not_measured_but_rolled_back(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({3}, monkeypatch, afterwards=True)
    job = make_job(
        kimg=0.128,
        logging_interval_kimg=0.032,
        monitoring={"interval_kimg": 0.064, "samples": 8},
        alarms={"non_finite": "roll_back"},
    )
    assert run_job(job, tmp_path) is None
    (alarm,) = journal_rows(tmp_path, "alarm")
    assert (alarm["name"], alarm["reaction"], alarm["images"]) == ("non_finite", "roll_back", 128)
    assert [row["images"] for row in journal_rows(tmp_path, "evaluation")] == [64]
    (end,) = journal_rows(tmp_path, "end")
    assert end["released_kimg"] == 0.064
    released = ReleasedGenerator.load(tmp_path / RELEASE_FOLDER)._module.state_dict()
    assert all(value.isfinite().all() for value in released.values())


def test_a_stop_after_a_roll_back_at_the_end_does_not_hide_what_is_released(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights_at({3}, monkeypatch)
    job = make_job(
        kimg=0.128,
        logging_interval_kimg=0.032,
        monitoring={"interval_kimg": 0.064, "samples": 8, "release": "last"},
        alarms={"non_finite": "roll_back"},
    )

    def stop_after_alarm() -> str | None:
        return "enough" if journal_rows(tmp_path, "alarm") else None

    assert run_job(job, tmp_path, stop_after_alarm) == "enough"
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert (progress.images, progress.evaluation_is_due) == (128, True)
    assert run_job(job, tmp_path) is None
    (end,) = journal_rows(tmp_path, "end")
    assert (end["images"], end["released_kimg"]) == (128, 0.064)
