import errno
import os
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from gan_core.training.job import JOB_FILE, TrainingJob

MakeJob = Callable[..., TrainingJob]


@pytest.mark.parametrize(
    ("kimg", "batch_size", "images"), [(1.0, 32, 992), (1.0, 10, 1000), (0.001, 64, 64)]
)
def test_the_budget_is_whole_batches(
    kimg: float, batch_size: int, images: int, make_job: MakeJob
) -> None:
    assert make_job(kimg=kimg, batch_size=batch_size).total_images == images


def test_a_job_is_read_as_it_was_written(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(seed=5, adam_betas=(0.5, 0.9))
    job.write(tmp_path)
    assert TrainingJob.read(tmp_path) == job


def test_a_job_that_cannot_be_written_leaves_the_one_before(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(seed=1).write(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_job(seed=2).write(tmp_path)
    assert TrainingJob.read(tmp_path) == make_job(seed=1)


def test_unknown_keys_in_a_job_file_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    make_job().write(tmp_path)
    text = (tmp_path / JOB_FILE).read_text()
    (tmp_path / JOB_FILE).write_text(text.replace('"threads"', '"fibres"'))
    with pytest.raises(pydantic.ValidationError, match="fibres"):
        TrainingJob.read(tmp_path)


def test_jobs_that_train_the_same_have_the_same_fingerprint(make_job: MakeJob) -> None:
    job = make_job()
    moved = job.model_copy(update={"name": "other", "image_set": Path("/elsewhere")})
    assert moved.fingerprint == job.fingerprint


@pytest.mark.parametrize(
    "changed", [{"threads": 2}, {"precision": "bf16"}, {"image_set_sha256": "0" * 64}]
)
def test_jobs_that_train_otherwise_have_another_fingerprint(
    changed: dict[str, object], make_job: MakeJob
) -> None:
    job = make_job()
    assert job.model_copy(update=changed).fingerprint != job.fingerprint
    assert make_job(seed=1).fingerprint != job.fingerprint


def test_what_the_settings_leave_open_can_be_taken_from_another_job(make_job: MakeJob) -> None:
    other = make_job("bf16").model_copy(update={"threads": 8})
    open_job, decided = make_job(), make_job(precision="fp32", threads=1)
    decided = decided.model_copy(
        update={"training": decided.training.model_copy(update={"precision": "fp32", "threads": 1})}
    )
    assert open_job.with_choices_of(other).fingerprint == other.fingerprint
    assert decided.with_choices_of(other) == decided
