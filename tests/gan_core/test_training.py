from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from gan_core.device import choose_precision
from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from gan_core.losses import LOSSES
from gan_core.networks import convolution
from gan_core.training.job import (
    CHECKPOINT_FILE,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    TrainingJob,
)
from gan_core.training.step import SCALARS, AdversarialGame
from tests.gan_core.trainings import after_steps, journal_rows, released_bytes, run_job

MakeJob = Callable[..., TrainingJob]

# The whole training makes 31 steps.
STOPS = (1, 6, 0, 9, 7)
MONITORED = {"interval_kimg": 0.2, "samples": 64}
AUGMENTED: dict[str, Any] = {
    "transforms": ("translation", "cutout", "color", "affine"),
    "probability": 0.7,
}
ALARMED = {"evaluations": 1, "discriminator": "roll_back", "discriminator_accuracy": 0.501}
GAMES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    **{loss: {"loss": loss} for loss in LOSSES if loss != "non_saturating"},
    "no average": {"ema_halflife_kimg": 0.0},
    "average with ramp-up": {"ema_halflife_kimg": 0.3, "ema_rampup": 0.5},
    "no penalty": {"r1_gamma": 0.0},
    "R2": {"loss": "relativistic", "r1_gamma": 0.2, "r2_gamma": 0.2},
    "WGAN-GP": {
        "loss": "wasserstein",
        "r1_gamma": 0.0,
        "wgan_gp_weight": 10.0,
        "discriminator_steps": 3,
    },
    "lazy penalty": {"penalty_interval_steps": 4},
    "accumulation": {"accumulation_steps": 4},
    "many checkpoints": {"checkpoint_interval_seconds": 1e-6, "grid_interval_kimg": 0.3},
    "momentum": {"adam_betas": (0.5, 0.9), "learning_rate_decay_start": 1.0},
    "separate rates": {"generator_learning_rate": 1e-3, "discriminator_learning_rate": 4e-3},
    "warm-up": {"learning_rate_warmup_kimg": 0.5},
    "flips": {"horizontal_flips": True},
    "fixed augmentation": {"augmentation": AUGMENTED},
    "adaptive augmentation": {
        "augmentation": {**AUGMENTED, "strength": "adaptive", "adjustment_kimg": 1.0}
    },
    "best snapshot": {"monitoring": MONITORED},
    "last snapshot": {"monitoring": {**MONITORED, "release": "last"}},
    "early stop": {"monitoring": {**MONITORED, "patience_evaluations": 2}},
    "roll-back": {
        "monitoring": MONITORED,
        "alarms": ALARMED,
    },
    "all at once": {
        "loss": "relativistic",
        "r2_gamma": 0.1,
        "penalty_interval_steps": 2,
        "accumulation_steps": 2,
        "discriminator_steps": 2,
        "learning_rate_warmup_kimg": 0.2,
        "horizontal_flips": True,
        "augmentation": {**AUGMENTED, "strength": "adaptive", "adjustment_kimg": 1.0},
        "monitoring": MONITORED,
        "alarms": ALARMED,
    },
}
WHERE_BF16_IS_SLOW = {"as it comes", "WGAN-GP", "fixed augmentation", "all at once"}
NETWORKS: dict[str, dict[str, Any]] = {
    "unconditional": {"conditional": False},
    "resnet": {"family": "resnet"},
    "spectral norm": {"spectral_norm": True},
    "resnet, spectral norm, unconditional": {
        "family": "resnet",
        "spectral_norm": True,
        "conditional": False,
        "blocks_per_resolution": 2,
    },
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", GAMES)
def test_a_training_that_was_stopped_ends_with_the_same_bits_and_journal(
    name: str, precision: str, make_job: MakeJob, tmp_path: Path
) -> None:
    emulated = precision == "bf16" and choose_precision("auto", "cpu") == "fp32"
    if emulated and name not in WHERE_BF16_IS_SLOW:
        pytest.skip("bf16 is emulated on this machine, and slow: a few games stand for all")
    game = GAMES[name]
    job = make_job(precision, **game)
    assert run_job(job, tmp_path / "undisturbed") is None
    for steps in STOPS:
        assert run_job(job, tmp_path / "stopped", after_steps(steps)) == "enough"
    assert run_job(job, tmp_path / "stopped") is None
    assert released_bytes(tmp_path / "stopped") == released_bytes(tmp_path / "undisturbed")
    assert journal_rows(tmp_path / "stopped") == journal_rows(tmp_path / "undisturbed")
    if "alarms" in game:
        assert "roll_back" in {
            row["reaction"] for row in journal_rows(tmp_path / "stopped", "alarm")
        }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_training_of_other_networks_that_was_stopped_ends_with_the_same_bits(
    network: dict[str, Any], precision: str, make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(precision, kimg=0.3)
    job = job.model_copy(update={"network": job.network.model_copy(update=network)})
    run_job(job, tmp_path / "undisturbed")
    run_job(job, tmp_path / "stopped", after_steps(4))
    run_job(job, tmp_path / "stopped")
    assert released_bytes(tmp_path / "stopped") == released_bytes(tmp_path / "undisturbed")


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
def test_a_training_by_products_that_was_stopped_ends_with_the_same_bits(
    family: str, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What wide networks do in bf16 on AMX, here in fp32 with small ones on any machine.
    monkeypatch.setattr(convolution, "learns_by_products", lambda *_: True)
    job = make_job(kimg=0.3, r1_gamma=0.3, r2_gamma=0.3)
    job = job.model_copy(update={"network": job.network.model_copy(update={"family": family})})
    run_job(job, tmp_path / "undisturbed")
    run_job(job, tmp_path / "stopped", after_steps(4))
    run_job(job, tmp_path / "stopped")
    assert released_bytes(tmp_path / "stopped") == released_bytes(tmp_path / "undisturbed")


def test_a_training_stopped_before_its_first_step_writes_its_first_rows_once(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(kimg=0.2)
    run_job(job, tmp_path, after_steps(0))
    run_job(job, tmp_path)
    assert len(journal_rows(tmp_path, "start")) == 1
    assert [row["images"] for row in journal_rows(tmp_path, "grid")] == [0, job.total_images]


def test_a_finished_training_that_is_started_again_changes_nothing(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(kimg=0.3)
    run_job(job, tmp_path)
    weights, rows = released_bytes(tmp_path), journal_rows(tmp_path)
    assert run_job(job, tmp_path) is None
    assert (released_bytes(tmp_path), journal_rows(tmp_path)) == (weights, rows)


def test_the_journal_tells_the_whole_training(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    run_job(job, tmp_path)
    (start,) = journal_rows(tmp_path, "start")
    (end,) = journal_rows(tmp_path, "end")
    progress = journal_rows(tmp_path, "progress")
    assert start["generator_parameters"] > 0
    assert start["precision"] == "fp32"
    assert end["images"] == job.total_images == 992
    # A line at the first whole batch after every quarter of a kimg, and at the end.
    assert [row["images"] for row in progress] == [256, 512, 768, 992]
    for row in progress:
        assert set(SCALARS) <= set(row)
        assert 0 < row["real_probability"] < 1
        assert row["total_kimg"] == 0.992
    assert [row["learning_rate_factor"] for row in progress[:2]] == [1.0, 1.0]
    assert 0 < progress[-1]["learning_rate_factor"] < progress[2]["learning_rate_factor"] < 1


def test_journal_rows_are_means_over_the_steps_since_the_last(
    make_job: MakeJob, tmp_path: Path
) -> None:
    settings = {"kimg": 0.256, "learning_rate_decay_start": 1.0}
    run_job(make_job(**settings, logging_interval_kimg=0.001), tmp_path / "every step")
    run_job(make_job(**settings, logging_interval_kimg=0.128), tmp_path / "every four")
    steps = journal_rows(tmp_path / "every step", "progress")
    means = journal_rows(tmp_path / "every four", "progress")
    assert (len(steps), len(means)) == (8, 2)
    for name in SCALARS:
        expected = np.mean([row[name] for row in steps[4:]])
        assert means[1][name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("interval_kimg", [0.096, 0.224, 0.001])
def test_what_only_some_steps_have_is_their_mean(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_kimg: float
) -> None:
    reported: list[dict[str, float]] = []
    original = AdversarialGame.step

    def step(self: AdversarialGame, *arguments: Any, **which: bool) -> torch.Tensor:
        scalars = original(self, *arguments, **which)
        values = dict(zip(SCALARS, scalars.tolist(), strict=True))
        values["r1_penalty"] /= 3  # as much as a step is scaled up
        values["generator_loss"] /= 5
        if not which["with_penalty"]:
            del values["r1_penalty"]
        if not which["with_generator"]:
            del values["generator_loss"]
        reported.append(values)
        return scalars

    monkeypatch.setattr(AdversarialGame, "step", step)
    lazy = {"penalty_interval_steps": 3, "discriminator_steps": 5}
    run_job(make_job(kimg=0.96, **lazy, logging_interval_kimg=interval_kimg), tmp_path)
    rows = journal_rows(tmp_path, "progress")
    assert (len(reported), rows[-1]["images"]) == (30, 960)
    start = 0
    for row in rows:
        end = row["images"] // 32
        for name in ("r1_penalty", "generator_loss", "discriminator_loss"):
            had = [values[name] for values in reported[start:end] if name in values]
            assert (name in row) == bool(had)
            assert not had or row[name] == pytest.approx(np.mean(had), rel=1e-5)
        start = end


def test_grids_show_the_same_latents_with_a_column_a_class(
    make_job: MakeJob, tmp_path: Path
) -> None:
    run_job(make_job(kimg=0.5, grid_interval_kimg=0.2), tmp_path)
    rows = journal_rows(tmp_path, "grid")
    assert [row["images"] for row in rows] == [0, 224, 416, 512]
    for row in rows:
        assert PIL.Image.open(tmp_path / row["file"]).size == (10 * 17 - 1, 8 * 17 - 1)


def test_what_is_released_loads_and_samples(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(kimg=0.2)
    run_job(job, tmp_path)
    generator = ReleasedGenerator.load(tmp_path / RELEASE_FOLDER)
    assert generator.sample(3).shape == (3, 16, 16, 1)
    assert generator.config.pipeline == "digits"
    assert sum(generator.config.class_counts) == 1438


def test_the_same_seed_trains_the_same_generator_and_another_seed_another(
    make_job: MakeJob, tmp_path: Path
) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run_job(make_job(kimg=0.2, seed=seed), tmp_path / name)
    assert released_bytes(tmp_path / "one") == released_bytes(tmp_path / "same")
    assert released_bytes(tmp_path / "one") != released_bytes(tmp_path / "other")


def test_a_training_that_diverges_names_the_quantity_and_the_remedy(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job()
    huge = job.training.model_copy(update={"generator_learning_rate": 1e30})
    with pytest.raises(
        FoundryError,
        match=r"diverged: discriminator_loss is nan at 0.25\d* kimg, and so is the tensor "
        r"generator/embedding.weight; lower training.generator_learning_rate",
    ):
        run_job(job.model_copy(update={"training": huge}), tmp_path)
    assert not (tmp_path / RELEASE_FOLDER).exists()


def test_other_images_than_the_jobs_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(kimg=0.2).model_copy(update={"image_set_sha256": "0" * 64})
    with pytest.raises(FoundryError, match="0" * 16):
        run_job(job, tmp_path)


def test_a_journal_that_was_lost_is_not_filled_with_nothing(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(kimg=0.5)
    run_job(job, tmp_path, after_steps(9))
    (tmp_path / JOURNAL_FILE).unlink()
    with pytest.raises(FoundryError, match="has 0 bytes, but its checkpoint counted"):
        run_job(job, tmp_path)


def test_a_stopped_training_leaves_a_checkpoint_and_no_generator(
    make_job: MakeJob, tmp_path: Path
) -> None:
    run_job(make_job(), tmp_path, after_steps(2))
    assert (tmp_path / CHECKPOINT_FILE).exists()
    assert not (tmp_path / RELEASE_FOLDER).exists()


def test_a_raised_budget_continues_where_the_smaller_one_ended(
    make_job: MakeJob, tmp_path: Path
) -> None:
    steady = {"learning_rate_decay_start": 1.0}
    run_job(make_job(kimg=0.3, **steady), tmp_path / "raised")
    assert run_job(make_job(kimg=0.9, **steady), tmp_path / "raised") is None
    run_job(make_job(kimg=0.9, **steady), tmp_path / "at once")
    # Without a decay towards the end of the budget, the two are the same training.
    assert released_bytes(tmp_path / "raised") == released_bytes(tmp_path / "at once")
    (raised,) = journal_rows(tmp_path / "raised", "budget_raised")
    assert (raised["from_kimg"], raised["total_kimg"]) == (0.288, 0.896)
    assert [row["kimg"] for row in journal_rows(tmp_path / "raised", "end")] == [0.288, 0.896]


def test_a_raised_budget_has_its_own_schedule_and_survives_a_stop(
    make_job: MakeJob, tmp_path: Path
) -> None:
    for folder, steps in (("undisturbed", None), ("stopped", 3)):
        run_job(make_job(kimg=0.3), tmp_path / folder)
        larger = make_job(kimg=0.6)
        if steps is not None:
            run_job(larger, tmp_path / folder, after_steps(steps))
        run_job(larger, tmp_path / folder)
    assert released_bytes(tmp_path / "stopped") == released_bytes(tmp_path / "undisturbed")
    assert journal_rows(tmp_path / "stopped") == journal_rows(tmp_path / "undisturbed")


def test_a_lowered_budget_is_refused(make_job: MakeJob, tmp_path: Path) -> None:
    run_job(make_job(kimg=0.6), tmp_path)
    with pytest.raises(FoundryError, match=r"trained for 0.608 kimg, but .* training.kimg is 0.3"):
        run_job(make_job(kimg=0.3), tmp_path)
