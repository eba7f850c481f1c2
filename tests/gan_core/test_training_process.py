import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gan_core.training import loop
from gan_core.training.__main__ import main
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import (
    CHECKPOINT_FILE,
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    JOB_FILE,
    RELEASE_FOLDER,
    TrainingJob,
)
from tests.conftest import PROJECT, subprocess_environment
from tests.gan_core.trainings import (
    journal_rows,
    start_training,
    wait_until,
    wait_until_training,
)

MakeJob = Callable[..., TrainingJob]
Start = Callable[..., "subprocess.Popen[str]"]

# What a signal or a dead parent leaves the training to write its checkpoint.
PATIENCE_SECONDS = 5.0


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts training processes, which do not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(folder: Path, *options: str) -> subprocess.Popen[str]:
        processes.append(start_training(folder, *options))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def long_job(make_job: MakeJob, tmp_path: Path) -> Path:
    """A folder with a job that no test waits for."""
    folder = tmp_path / "long"
    folder.mkdir()
    make_job(kimg=10_000, checkpoint_interval_seconds=3600).write(folder)
    return folder


def checkpoint_images(folder: Path) -> int:
    progress = read_progress(folder / CHECKPOINT_FILE)
    assert progress is not None
    return progress.images


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_with_a_checkpoint(
    number: signal.Signals, long_job: Path, start: Start
) -> None:
    process = start(long_job)
    wait_until_training(long_job)
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == EXIT_INTERRUPTED
    assert f"stopped with a checkpoint: received {number.name}" in told
    assert checkpoint_images(long_job) >= journal_rows(long_job, "progress")[-1]["images"]


def test_a_signal_before_the_first_checkpoint_does_not_speak_of_one(
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's process keeps its own
    monkeypatch.setattr(loop, "train", lambda *_: "received SIGTERM")
    make_job().write(tmp_path)
    assert main([str(tmp_path)]) == EXIT_INTERRUPTED
    assert "stopped before the first checkpoint: received SIGTERM" in capsys.readouterr().err


def test_a_second_trainer_of_a_job_is_refused_by_name(long_job: Path, start: Start) -> None:
    first = start(long_job)
    wait_until_training(long_job)
    second = start(long_job)
    _, told = second.communicate(timeout=60)
    assert second.returncode == EXIT_USER_ERROR
    assert f"already being trained by process {first.pid}" in told
    assert "Traceback" not in told
    assert first.poll() is None, "the first trainer goes on"


# Starts the training as a parent does, tells its process id, and waits to be killed.
PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "gan_core.training", sys.argv[1], "--parent", str(os.getpid())]
print(subprocess.Popen(command).pid, flush=True)
time.sleep(600)
"""


def test_a_training_whose_parent_has_died_ends_with_a_checkpoint(long_job: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(long_job)],
        cwd=PROJECT,
        env=subprocess_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    trainer = psutil.Process(int(parent.stdout.readline()))
    try:
        wait_until_training(long_job)
        assert trainer.is_running()
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        wait_until(lambda: not is_alive(trainer), "the end of the trainer", PATIENCE_SECONDS)
        assert time.monotonic() - killed < PATIENCE_SECONDS
    finally:
        parent.kill()
        if is_alive(trainer):
            trainer.kill()
        parent.communicate()
    assert checkpoint_images(long_job) >= journal_rows(long_job, "progress")[-1]["images"]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_training_goes_on_while_its_parent_lives(
    make_job: MakeJob, tmp_path: Path, start: Start
) -> None:
    make_job(kimg=0.2).write(tmp_path)
    process = start(tmp_path, "--parent", str(os.getpid()))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert (tmp_path / RELEASE_FOLDER).is_dir()


def test_a_folder_without_a_job_is_refused(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path)
    _, told = process.communicate(timeout=60)
    assert process.returncode == EXIT_USER_ERROR
    assert f"error: {tmp_path} holds no {JOB_FILE}" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"image_set": "gone"},
            "error: gone holds no prepared images; materialize training_",
        ),
        ({"device": "tpu"}, "job.json describes no job of this version of the program (device: In"),
    ],
)
def test_a_job_that_cannot_be_trained_here_is_one_sentence(
    changes: dict[str, str],
    sentence: str,
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's process keeps its own
    values = json.loads(make_job().model_dump_json())
    (tmp_path / JOB_FILE).write_text(json.dumps({**values, **changes}))
    assert main([str(tmp_path)]) == EXIT_USER_ERROR
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1


def test_a_full_disk_is_one_sentence(
    long_job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "train", fill_the_disk)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's process keeps its own
    assert main([str(long_job)]) == EXIT_DISK_FULL
    told = capsys.readouterr().err
    assert told.startswith(f"error: the disk of {long_job} is full")
    assert told.count("\n") == 1
