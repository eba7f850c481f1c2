"""The measurements keep running as the program changes; their numbers mean nothing here."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu_step, training_overhead
from benchmarks.example_loop import train_like_the_example
from gan_core.data.image_set import open_image_set
from gan_core.training.job import TrainingJob
from gan_core.training.trainer import Trainer
from tests.conftest import PROJECT
from tests.gan_core.trainings import after_steps

MakeJob = Callable[..., TrainingJob]

# On machines with a GPU there may be no more than the learning part.
WITHOUT_THE_PIPELINES = """
import sys
sys.modules |= dict.fromkeys(("dagster", "mlflow", "optuna", "pipelines"))
import benchmarks.gpu_step
"""


def test_the_cost_of_watching_is_taken_for_each_activity(make_job: MakeJob) -> None:
    often = {"logging_interval_kimg": 0.05, "grid_interval_kimg": 0.05}
    job = make_job(kimg=0.2, monitoring={"interval_kimg": 0.1, "samples": 16}, **often)
    found = training_overhead.run(job)
    assert set(found["spent"]) == set(training_overhead.ACTIVITIES)
    assert {name for name, seconds in found["spent"].items() if seconds > 0} >= {
        "write_line",
        "write_grid",
        "evaluate",
        "finish",
    }
    assert sum(found["spent"].values()) < found["seconds"]


def test_the_example_trains_the_networks_of_a_job(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    images = open_image_set(job.image_set)
    train_like_the_example(job, images, after_steps(3), tmp_path, r1_gamma=0.1)


@pytest.mark.parametrize("batches", [gpu_step.own_batches, gpu_step.loaded_batches])
def test_steps_of_a_gpu_are_played_and_profiled(
    batches: Callable[..., Callable[[], object]],
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu_step, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_step, "PROFILED_STEPS", 1)
    job = make_job()
    images = open_image_set(job.image_set)
    gpu_step.play(Trainer(job, images), batches(job, images), after_steps(2))
    assert json.loads(capsys.readouterr().out) == {"kernel_seconds_a_step": 0.0}


def test_the_measurement_of_a_gpu_needs_the_learning_part_alone() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_THE_PIPELINES], cwd=PROJECT, check=True)
