"""Trainings whose batches are shared by several processes."""

import datetime
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
import torch
from torch import nn

from gan_core.released_files import WEIGHTS_FILE
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import (
    CHECKPOINT_FILE,
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_MEMORY,
    EXIT_USER_ERROR,
    KILLED,
    RELEASE_FOLDER,
    TrainingJob,
)
from gan_core.training.processes import (
    ALONE,
    Processes,
    SharedBatchNorm2d,
    joined_processes,
    share_batch_statistics,
)
from gan_core.training.torchrun import LOG_FOLDER, WATCH_SECONDS, _pass_on_signal
from tests.gan_core.trainings import (
    journal_rows,
    run_job,
    start_training,
    wait_until,
)

MakeJob = Callable[..., TrainingJob]

# Small steps: adversarial training is chaotic, and soon makes a difference of the last digits a
# large one, as it does between one thread and two.
SETTINGS: dict[str, Any] = {
    "generator_learning_rate": 1e-4,
    "discriminator_learning_rate": 1e-4,
    "learning_rate_decay_start": 1.0,
    "monitoring": {"interval_kimg": 0.4, "samples": 64},
    "augmentation": {"transforms": ("translation",), "strength": "adaptive"},
    "horizontal_flips": True,
    "accumulation_steps": 2,
}
SHARED = {"launcher": "torchrun", "processes": 2}


def train_in_processes(job: TrainingJob, folder: Path) -> None:
    """Run a job as `python -m gan_core.training` does."""
    folder.mkdir(exist_ok=True)
    job.write(folder)
    process = start_training(folder)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert "Warning" not in told, told


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / RELEASE_FOLDER / WEIGHTS_FILE)


def assert_same_course(folder: Path, other: Path) -> None:
    """The two trainings differ by rounding alone."""
    rows, others = journal_rows(folder), journal_rows(other)
    assert [row["event"] for row in rows] == [row["event"] for row in others]
    for row, second in zip(rows[1:], others[1:], strict=True):
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        assert numbers == pytest.approx({k: second[k] for k in numbers}, rel=2e-2, abs=2e-3)
    for name, value in weights(folder).items():
        assert torch.allclose(value, weights(other)[name], atol=2e-3), name


def test_two_processes_train_as_one_and_one_continues_what_two_began(
    make_job: MakeJob, tmp_path: Path
) -> None:
    assert run_job(make_job(**SETTINGS), tmp_path / "one") is None
    train_in_processes(make_job(**SETTINGS, **SHARED), tmp_path / "two")
    assert_same_course(tmp_path / "two", tmp_path / "one")
    (start,) = journal_rows(tmp_path / "two", "start")
    assert start["processes"] == 2

    half = {**SETTINGS, "kimg": 0.5}
    train_in_processes(make_job(**half, **SHARED), tmp_path / "both")
    assert run_job(make_job(**SETTINGS), tmp_path / "both") is None
    (end, second_end) = journal_rows(tmp_path / "both", "end")
    assert (end["images"], second_end["images"]) == (512, 992)
    for name, value in weights(tmp_path / "both").items():
        assert torch.allclose(value, weights(tmp_path / "one")[name], atol=2e-3), name


def gradients_of_a_rank(rank: int, folder: Path) -> None:
    """What three processes average: in one go, and where each step is the first of an attempt."""
    warnings.simplefilter("error")
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(7, 7) for _ in range(6)])
    inputs = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(rank))
    found = []
    with joined_processes(rank, 3, f"file://{folder / 'store'}", "cpu") as processes:
        for attempts in (1, 2):
            wrapped = processes.wrap(network)
            for step in range(2):
                if step and attempts == 2:
                    wrapped = processes.wrap(network)
                network.zero_grad()
                wrapped(inputs[step]).square().mean().backward()
            found.append(
                torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
            )
    torch.save(found, folder / f"{rank}.pt")
    assert "torch._dynamo" not in sys.modules  # the compiler, which takes seconds to load


def test_gradients_of_three_processes_do_not_depend_on_the_attempt(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(gradients_of_a_rank, (tmp_path,), nprocs=3)
    for rank in range(3):
        undisturbed, continued = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(undisturbed, continued)


def test_all_processes_return_to_a_snapshot_that_was_just_taken(
    make_job: MakeJob, tmp_path: Path
) -> None:
    watched = {
        "monitoring": {"interval_kimg": 0.1, "samples": 16},
        # Given in each evaluation that has a line before it, also in the best so far.
        "alarms": {
            "evaluations": 1,
            "discriminator": "roll_back",
            "discriminator_accuracy": 0.501,
            "most_roll_backs": 100,
        },
    }
    train_in_processes(make_job(**{**SETTINGS, **watched}, **SHARED), tmp_path)
    best = {row["images"] for row in journal_rows(tmp_path, "evaluation") if row["is_best"]}
    alarms = journal_rows(tmp_path, "alarm")
    rolled_back = {row["images"] for row in alarms if row["reaction"] == "roll_back"}
    assert best & rolled_back


def test_a_reason_to_stop_is_kept_until_torchrun_listens() -> None:
    heard: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("noted"))
    try:
        _pass_on_signal(lambda: "a reason")
        time.sleep(3 * WATCH_SECONDS)
        assert heard == []
        signal.signal(signal.SIGTERM, lambda *_: heard.append("passed on"))
        wait_until(lambda: heard, "the signal", 10)
        assert heard == ["passed on"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_a_checkpoint_when_their_launcher_is_told_to_or_killed(
    number: signal.Signals, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    make_job(kimg=100_000.0, **SHARED).write(tmp_path)
    process = start_training(tmp_path)
    wait_until(lambda: journal_rows(tmp_path, "progress"), "training")
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, told = process.communicate(timeout=25)  # torchrun kills its workers after 30 seconds
    assert process.returncode == (EXIT_INTERRUPTED if number == signal.SIGTERM else -number), told
    wait_until(lambda: not any(map(psutil.Process.is_running, workers)), "the workers' end", 10)
    progress = read_progress(tmp_path / CHECKPOINT_FILE)
    assert progress is not None
    assert progress.images > 0
    assert not list(temporary.glob("torchrun*"))


def test_a_killed_process_of_several_is_told_as_too_little_memory(
    make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(kimg=100_000.0, **SHARED).write(tmp_path)
    process = start_training(tmp_path)
    wait_until(lambda: journal_rows(tmp_path, "progress"), "training")
    workers = psutil.Process(process.pid).children(recursive=True)
    trainers = [each for each in workers if "--multiprocessing-fork" in each.cmdline()]
    assert len(trainers) == SHARED["processes"]
    trainers[-1].kill()
    _, told = process.communicate(timeout=25)
    assert process.returncode == EXIT_OUT_OF_MEMORY, told
    assert told.splitlines()[-1] == f"error: {KILLED}"
    wait_until(lambda: not any(map(psutil.Process.is_running, workers)), "the workers' end", 10)


def test_what_a_user_can_mend_is_told_by_the_launcher_which_leaves_no_files(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    # Where an earlier test loaded the compiler, it has named its folder here.
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    make_job(**SHARED).model_copy(update={"image_set_sha256": "0" * 64}).write(tmp_path)
    process = start_training(tmp_path)
    _, told = process.communicate()
    assert process.returncode == EXIT_USER_ERROR, told
    last = told.splitlines()[-1]
    assert last.startswith("error: the images in")
    assert last.endswith("materialize training_images and the generator again.")
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / LOG_FOLDER).exists()


def test_the_parts_of_all_processes_together_are_those_of_one() -> None:
    rows = torch.arange(24).reshape(12, 2)
    shares = [Processes(rank, 2).own_part(rows, 3) for rank in range(2)]
    for part in range(3):
        together = torch.cat([share.chunk(3)[part] for share in shares])
        assert torch.equal(together, rows.chunk(3)[part])


def test_a_process_alone_has_the_whole_batch() -> None:
    rows = torch.arange(6)
    assert torch.equal(ALONE.own_part(rows), rows)
    assert ALONE.agree("x") == "x"
    assert ALONE.is_chief


def test_normalisation_is_shared_without_changing_what_is_stored() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    nn.init.normal_(module[1][0].weight)  # type: ignore[index]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    share_batch_statistics(module)
    assert isinstance(module[1][0], SharedBatchNorm2d)  # type: ignore[index]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert list(module.state_dict()) == list(before)


def test_shared_normalisation_keeps_its_digits_far_from_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = (300 + 0.1 * torch.randn(8, 3, 4, 4)).requires_grad_()
    exact = features.detach().double().requires_grad_()
    shared, usual = SharedBatchNorm2d(3), nn.BatchNorm2d(3).double()
    upstream = torch.randn(8, 3, 4, 4)
    with joined_processes(0, 1, f"file://{tmp_path / 'store'}", "cpu"):
        # The others wait while the chief evaluates, which may take hours.
        group = torch.distributed.distributed_c10d._get_default_group()
        waits = group._get_backend(torch.device("cpu")).options._timeout
        assert waits > datetime.timedelta(days=1)
        out = shared(features)
        out.backward(upstream)
    expected = usual(exact)
    expected.backward(upstream.double())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(shared.running_var.double(), usual.running_var, rtol=1e-3, atol=0)  # type: ignore[union-attr]
    assert features.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(features.grad.double(), exact.grad, rtol=1e-3, atol=1e-2)
