"""The training process: started, followed, stopped, and its end understood."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
import torch

from gan_core.config import PipelineSettings
from gan_core.data.image_set import DESCRIPTION_FILE
from gan_core.errors import AlreadyTrainingError, FoundryError
from gan_core.training.__main__ import OWNER_FILE
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import (
    CHECKPOINT_FILE,
    ENGINE_VERSION,
    JOB_FILE,
    JOURNAL_FILE,
    WRITER_LOCK_FILE,
    TrainingJob,
)
from gan_core.training.journal import read_journal
from gan_core.training.loop import train
from pipelines.launch import (
    TrainingCrashedError,
    continue_smaller_budget,
    run_job,
    write_job,
)
from tests.conftest import PROJECT, subprocess_environment
from tests.gan_core.trainings import wait_until
from tests.pipelines.small_disk import on_a_small_disk

MakeJob = Callable[..., TrainingJob]
Rows = list[dict[str, Any]]
MEMORY_BYTES = 3 * 2**29  # more than PyTorch needs to start, less than a step of the largest batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "training"
    place.mkdir()
    return place


def journal(folder: Path) -> Rows:
    return [row for _, row in read_journal(folder / JOURNAL_FILE)]


def trainer_of(folder: Path) -> int:
    return int((folder / OWNER_FILE).read_text())


def no_rows(rows: Rows) -> None:
    raise AssertionError(f"nothing was to be trained: {rows}")


def test_every_journal_row_is_passed_on_once_and_in_order(make_job: MakeJob, folder: Path) -> None:
    make_job().write(folder)
    passed: Rows = []
    run_job(folder, passed.extend)
    assert passed == journal(folder)
    assert [row["kimg"] for row in passed if row["event"] == "progress"][-1] == pytest.approx(0.992)


def test_a_mistake_of_the_user_becomes_its_sentence(folder: Path) -> None:
    with pytest.raises(FoundryError) as caught:
        run_job(folder, no_rows)
    assert str(caught.value) == f"{folder} holds no job.json; give the folder of a training job."


def test_a_crash_shows_the_end_of_the_log(make_job: MakeJob, folder: Path, tmp_path: Path) -> None:
    job = make_job()
    lost = tmp_path / "lost images"
    lost.mkdir()
    shutil.copy(job.image_set / DESCRIPTION_FILE, lost)
    job.model_copy(update={"image_set": lost}).write(folder)
    with pytest.raises(TrainingCrashedError, match="ended with status 1") as caught:
        run_job(folder, no_rows)
    assert "FileNotFoundError" in str(caught.value)
    assert str(lost) in str(caught.value)


RUN_JOB = """
import shutil, sys
from pathlib import Path
from gan_core.errors import AlreadyTrainingError, FoundryError
from pipelines.launch import run_job

folder = Path(sys.argv[1])
shutil.copy(sys.argv[2], folder)
try:
    run_job(folder, lambda rows: None)
except FoundryError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("size", "training"),
    [
        pytest.param("60k", {}, id="for a checkpoint"),
        pytest.param("12k", {}, id="for its own log"),
        pytest.param(
            "60k",
            {"launcher": "torchrun", "processes": 2, "checkpoint_interval_seconds": 1e-6},
            id="of several processes",
        ),
    ],
)
def test_a_disk_that_is_too_full_during_training_is_one_sentence(
    make_job: MakeJob, tmp_path: Path, size: str, training: dict[str, Any]
) -> None:
    make_job(**training).write(tmp_path)
    told = on_a_small_disk(RUN_JOB, tmp_path / "training", size, tmp_path / JOB_FILE)
    assert f"the disk of {tmp_path}/training is full" in told


def test_an_interrupted_training_says_that_running_again_continues(
    make_job: MakeJob, folder: Path
) -> None:
    make_job(kimg=100_000.0).write(folder)

    def interrupt(rows: Rows) -> None:
        with contextlib.suppress(ProcessLookupError):  # its last rows come when it is over
            os.kill(trainer_of(folder), signal.SIGTERM)

    with pytest.raises(FoundryError, match="interrupted; run the pipeline again"):
        run_job(folder, interrupt)
    assert read_progress(folder / CHECKPOINT_FILE) is not None


def test_a_caller_who_is_interrupted_leaves_no_process_but_a_checkpoint(
    make_job: MakeJob, folder: Path
) -> None:
    make_job(kimg=100_000.0).write(folder)
    trainers = []

    def interrupt(rows: Rows) -> None:
        trainers.append(psutil.Process(trainer_of(folder)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(folder, interrupt)
    assert len(trainers) == 1
    assert not trainers[0].is_running()
    assert read_progress(folder / CHECKPOINT_FILE) is not None


def test_a_continued_training_passes_on_what_is_trained_again(
    make_job: MakeJob, folder: Path
) -> None:
    job = make_job()
    job.write(folder)
    asked = iter([None] * 20)
    assert train(job, folder, lambda: next(asked, "stopped by the test")) is not None
    kept_bytes = read_progress(folder / CHECKPOINT_FILE).journal_bytes
    # A killed trainer leaves rows behind its last checkpoint, which are cut off and written again.
    with (folder / JOURNAL_FILE).open("a") as file:
        file.write('{"event": "progress", "lost": "%s"}\n' % ("x" * 50))
    passed: Rows = []
    run_job(folder, passed.extend)
    trained_again = [row for _, row in read_journal(folder / JOURNAL_FILE, kept_bytes)]
    assert trained_again[-1]["event"] == "end"
    assert [row for row in passed if row in trained_again] == trained_again


def test_a_journal_that_is_still_written_to_is_left_alone(
    make_job: MakeJob, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of several processes may outlive the one that started it.
    make_job().write(folder)
    (folder / JOURNAL_FILE).write_text('{"event": "progress"}\n')
    monkeypatch.setattr("pipelines.launch.STOP_SECONDS", 0.1)
    with filelock.FileLock(folder / WRITER_LOCK_FILE), pytest.raises(AlreadyTrainingError) as told:
        run_job(folder, no_rows)
    assert str(told.value) == (
        f"the training in {folder} is already run by a process that an earlier attempt left; "
        "wait for it or stop it."
    )
    assert (folder / JOURNAL_FILE).read_text() == '{"event": "progress"}\n'


RUN_WITH_LITTLE_MEMORY = f"""
import resource, sys
from pathlib import Path
from pipelines.launch import TrainingCrashedError, run_job

resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY_BYTES}, {MEMORY_BYTES}))
try:
    run_job(Path(sys.argv[1]), lambda rows: None)
except TrainingCrashedError as error:
    print(error)
"""


def test_a_training_that_memory_does_not_hold_is_one_sentence(
    make_job: MakeJob, folder: Path
) -> None:
    make_job(batch_size=65536).write(folder)
    one = subprocess_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    told = subprocess.run(
        [sys.executable, "-c", RUN_WITH_LITTLE_MEMORY, folder],
        cwd=PROJECT,
        env=one,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == (
        "the training does not fit into the memory of this CPU: its training.batch_size is 65536, "
        "of which it holds 65536 at a time; make it smaller, or training.accumulation_steps "
        "larger.\n"
    )


STEP_OF_A_RUN = """
import multiprocessing, sys, time
from pathlib import Path
from pipelines.launch import run_job
from pipelines.run_limits import PRELOADED

def step(folder):
    run_job(Path(folder), print)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.step_server"])
    context.Process(target=step, args=(sys.argv[1],)).start()
    time.sleep(600)
"""


def test_when_the_process_of_a_run_is_killed_its_step_ends_the_training_with_a_checkpoint(
    make_job: MakeJob, folder: Path, tmp_path: Path
) -> None:
    make_job(kimg=1e6).write(folder)
    script = tmp_path / "run.py"
    script.write_text(STEP_OF_A_RUN)
    run = subprocess.Popen(
        [sys.executable, script, folder],
        env=subprocess_environment(PYTHONPATH=str(PROJECT)),
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: any(row["event"] == "progress" for row in journal(folder)), "training")
    trainer = psutil.Process(trainer_of(folder))
    (server,) = (child for child in psutil.Process(run.pid).children() if child.children())
    server.terminate()  # as of a signal to the whole group: the server of the forks stays
    time.sleep(1)
    assert server.status() != psutil.STATUS_ZOMBIE
    assert trainer.is_running()
    run.kill()
    run.wait()
    wait_until(lambda: not trainer.is_running(), "the end of the trainer", 15)
    assert read_progress(folder / CHECKPOINT_FILE) is not None


def test_a_killed_training_says_so(make_job: MakeJob, folder: Path) -> None:
    make_job(kimg=1e6).write(folder)

    def kill(rows: Rows) -> None:
        os.kill(trainer_of(folder), signal.SIGKILL)

    with pytest.raises(TrainingCrashedError, match="was killed, by somebody or, where memory is"):
        run_job(folder, kill)


def test_an_earlier_attempts_choices_are_kept(make_job: MakeJob, folder: Path) -> None:
    job = make_job(precision="bf16")
    job.write(folder)
    settings = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
    moved = folder / "moved images"
    write_job(folder, "digits", settings, image_set=moved, image_set_sha256="another hash")
    assert TrainingJob.read(folder) == job.model_copy(update={"image_set": moved})


def test_a_job_may_be_continued_by_another_number_of_processes(
    make_job: MakeJob, folder: Path
) -> None:
    job = make_job()
    job.write(folder)
    settings = PipelineSettings.model_validate(
        {
            "data": {"source": "digits", "resolution": 16},
            "training": {"launcher": "torchrun", "processes": 2},
        }
    )
    again = write_job(folder, "digits", settings, image_set=folder, image_set_sha256="hash")
    assert (again.training.processes, again.training.launcher) == (2, "torchrun")
    assert again.fingerprint == job.fingerprint


def finished(make_job: MakeJob, folder: Path, **training: Any) -> TrainingJob:
    """A job that was trained in a folder to its end."""
    folder.mkdir()
    job = make_job(**training)
    job.write(folder)
    assert train(job, folder, lambda: None) is None
    return job


def test_a_larger_budget_begins_with_the_largest_finished_training_of_the_same_job(
    make_job: MakeJob, tmp_path: Path
) -> None:
    finished(make_job, tmp_path / "a", kimg=0.1)
    shorter = finished(make_job, tmp_path / "b", kimg=0.2)
    finished(make_job, tmp_path / "longer", kimg=0.5)
    finished(make_job, tmp_path / "other", kimg=0.25, seed=1)
    finished(make_job, tmp_path / "unfinished.partial", kimg=0.25)
    (tmp_path / "c.partial").mkdir()
    job = make_job(kimg=0.4)
    job.write(tmp_path / "c.partial")
    assert continue_smaller_budget(job, tmp_path / "c.partial") == (job, shorter)
    run_job(tmp_path / "c.partial", lambda rows: None)
    rows = [row for _, row in read_journal(tmp_path / "c.partial" / JOURNAL_FILE)]
    assert [row["images"] for row in rows if row["event"] == "end"] == [192, 384]
    for row in rows:
        if row["event"] == "grid":
            assert (tmp_path / "c.partial" / row["file"]).exists()
    # What has begun is not begun again.
    assert continue_smaller_budget(job, tmp_path / "c.partial") is None


def test_a_larger_budget_keeps_what_was_left_to_the_machine(
    make_job: MakeJob, tmp_path: Path
) -> None:
    shorter = finished(make_job, tmp_path / "a", kimg=0.1)
    (tmp_path / "c.partial").mkdir()
    elsewhere = make_job("bf16", kimg=0.2).model_copy(update={"threads": 4})
    same = make_job(kimg=0.2)
    assert continue_smaller_budget(elsewhere, tmp_path / "c.partial") == (same, shorter)
    assert TrainingJob.read(tmp_path / "c.partial") == same
    run_job(tmp_path / "c.partial", lambda rows: None)

    (tmp_path / "d.partial").mkdir()
    decided = elsewhere.training.model_copy(update={"threads": 4})
    job = elsewhere.model_copy(update={"training": decided})
    assert continue_smaller_budget(job, tmp_path / "d.partial") is None
    # What the machine would choose as well may be said.
    said = same.training.model_copy(update={"threads": 1, "precision": "fp32", "device": "cpu"})
    job = same.model_copy(update={"training": said})
    assert continue_smaller_budget(job, tmp_path / "d.partial") == (job, shorter)


def test_a_larger_budget_continues_what_was_left_to_the_machine_as_well(
    make_job: MakeJob, tmp_path: Path
) -> None:
    left = finished(make_job, tmp_path / "b", kimg=0.1)
    said = finished(make_job, tmp_path / "a", kimg=0.2, threads=1)
    for name, settings, shorter in (("c", {}, left), ("d", {"threads": 1}, said)):
        folder = tmp_path / f"{name}.partial"
        folder.mkdir()
        job = make_job(kimg=0.3, **settings)
        assert continue_smaller_budget(job, folder) == (job, shorter)


def test_a_training_of_another_version_of_this_program_is_not_continued(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("gan_core.training.job.ENGINE_VERSION", ENGINE_VERSION - 1)
        finished(make_job, tmp_path / "a", kimg=0.1)
    (tmp_path / "c.partial").mkdir()
    assert continue_smaller_budget(make_job(kimg=0.2), tmp_path / "c.partial") is None


def test_a_training_whose_checkpoint_cannot_be_read_is_not_continued(
    make_job: MakeJob, tmp_path: Path
) -> None:
    finished(make_job, tmp_path / "a", kimg=0.1)
    (tmp_path / "a" / CHECKPOINT_FILE).write_bytes(b"torn")
    (tmp_path / "c.partial").mkdir()
    assert continue_smaller_budget(make_job(kimg=0.2), tmp_path / "c.partial") is None


CONTINUE = """
import shutil, sys
from pathlib import Path
from gan_core.errors import AlreadyTrainingError, FoundryError
from gan_core.training.job import TrainingJob
from pipelines.launch import continue_smaller_budget
from pipelines.store import open_stage

place = Path(sys.argv[1])
shutil.copytree(sys.argv[2], place / "a")
job = TrainingJob.read(Path(sys.argv[3]))
try:
    with open_stage(place / "c", resumable=True) as folder:
        continue_smaller_budget(job, folder.working)
except FoundryError as error:
    print(error)
print("begun:", (place / "c.partial" / "checkpoint.safetensors").exists())
"""


@pytest.mark.parametrize("missing", ["checkpoint", "grids"])
def test_on_a_full_disk_a_larger_budget_is_one_sentence_and_not_half_begun(
    make_job: MakeJob, tmp_path: Path, missing: str
) -> None:
    finished(make_job, tmp_path / "a", kimg=0.1)
    make_job(kimg=0.2).write(tmp_path)
    pages = {path: -(-path.stat().st_size // 4096) for path in (tmp_path / "a").rglob("*.*")}
    grids = sum(count for path, count in pages.items() if path.suffix == ".png")
    room = {"grids": grids // 2, "checkpoint": grids + 4}[missing]
    size = f"{4 * (sum(pages.values()) + room)}k"
    told = on_a_small_disk(CONTINUE, tmp_path / "small", size, tmp_path / "a", tmp_path)
    assert f"the disk of {tmp_path}/small is full" in told
    assert "begun: False" in told


def test_a_journal_that_was_cut_short_is_told_and_not_filled_up(
    make_job: MakeJob, folder: Path
) -> None:
    job = make_job(logging_interval_kimg=0.032)
    job.write(folder)
    asked = iter([None] * 20)
    assert train(job, folder, lambda: next(asked, "stopped by the test")) is not None
    os.truncate(folder / JOURNAL_FILE, 100)
    with pytest.raises(FoundryError, match=r"has 100 bytes, but its checkpoint counted \d+"):
        run_job(folder, lambda rows: None)


def test_without_a_smaller_budget_a_training_begins_at_the_beginning(
    make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "c.partial").mkdir()
    assert continue_smaller_budget(make_job(), tmp_path / "c.partial") is None
    assert list((tmp_path / "c.partial").iterdir()) == []


def test_what_is_left_to_the_machine_is_written_into_the_job(folder: Path) -> None:
    settings = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
    write_job(folder, "digits", settings, image_set=folder / "images", image_set_sha256="hash")
    job = TrainingJob.read(folder)
    assert job.device in {"cpu", "cuda"}
    assert job.precision in {"fp32", "bf16"}
    assert job.threads == len(os.sched_getaffinity(0))


def test_asking_for_a_gpu_that_is_not_there_is_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = PipelineSettings.model_validate(
        {"data": {"source": "digits", "resolution": 16}, "training": {"device": "cuda"}}
    )
    with pytest.raises(FoundryError, match=r"training\.device is cuda, but .* use auto or cpu"):
        write_job(folder, "digits", settings, image_set=folder / "images", image_set_sha256="hash")
    assert not (folder / JOB_FILE).exists()


def test_a_training_that_began_on_a_gpu_asks_for_it_back(
    folder: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job().model_copy(update={"device": "cuda"}).write(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
    with pytest.raises(FoundryError, match=r"began on a GPU, .* or set training\.device to cpu"):
        write_job(folder, "digits", settings, image_set=folder / "images", image_set_sha256="hash")
