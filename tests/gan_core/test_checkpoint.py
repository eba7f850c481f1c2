import json
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from gan_core.errors import FoundryError
from gan_core.training.checkpoint import (
    Progress,
    load_tensors,
    module_tensors,
    optimizer_tensors,
    read_progress,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from gan_core.training.job import CHECKPOINT_FILE, TrainingJob
from tests.gan_core.trainings import after_steps, run_job

MakeJob = Callable[..., TrainingJob]


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).float()
    optimizer.zero_grad()
    network(inputs).square().mean().backward()
    optimizer.step()


def player() -> tuple[nn.Module, torch.optim.Optimizer]:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    network = layers.to(memory_format=torch.channels_last)
    return network, torch.optim.Adam(network.parameters(), fused=True)


def test_network_and_optimiser_continue_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    network, optimizer = player()
    step(network, optimizer)
    tensors = {
        **module_tensors("network", network),
        **optimizer_tensors("optimizer", optimizer),
    }
    progress = Progress(
        job_fingerprint="job", images=7, seconds=1.5, journal_bytes=3, steps_since_line=2
    )
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, progress)

    other, other_optimizer = player()
    stored = load_tensors(tmp_path / "checkpoint.safetensors")
    restore_module("network", other, stored)
    restore_optimizer("optimizer", other_optimizer, stored)
    assert read_progress(tmp_path / "checkpoint.safetensors") == progress

    for _ in range(3):
        step(network, optimizer)
        step(other, other_optimizer)
    expected, found = network.state_dict(), other.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_without_a_checkpoint_there_is_no_progress(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "checkpoint.safetensors") is None


@contextmanager
def small_files() -> Iterator[None]:
    """No file can grow beyond 4 kB: writing goes wrong as it does on a full disk.

    The limit is the whole process's, pytest's own output included, so it holds for one call only.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"a": torch.ones(3)}, Progress(job_fingerprint="job", images=1))
    with small_files(), pytest.raises(OSError, match="File too large"):
        save_checkpoint(path, {"a": torch.zeros(3000)}, Progress(job_fingerprint="job", images=2))
    progress = read_progress(path)
    assert progress is not None
    assert progress.images == 1
    assert torch.equal(load_tensors(path)["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for images in range(2):
        save_checkpoint(path, {"a": torch.ones(3)}, Progress(job_fingerprint="job", images=images))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["another version's", "damaged", "no checkpoint"])
def test_what_is_no_checkpoint_of_this_version_is_one_sentence(
    content: str, make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    job = make_job()
    run_job(job, tmp_path, after_steps(1))
    file = tmp_path / CHECKPOINT_FILE
    if content == "another version's":
        with safetensors.safe_open(file, "pt") as opened:
            progress = {**json.loads(opened.metadata()["progress"]), "momentum": 1}
        safetensors.torch.save_file(load_tensors(file), file, {"progress": json.dumps(progress)})
    elif content == "damaged":
        file.write_bytes(file.read_bytes()[:100])
    else:
        safetensors.torch.save_file(load_tensors(file), file)
    sentence = f"{re.escape(str(file))} is damaged or of another version .* remove {tmp_path} to"
    with pytest.raises(FoundryError, match=sentence):
        run_job(job, tmp_path)


def test_a_job_with_other_settings_never_continues_a_training(
    make_job: MakeJob, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    job = make_job()
    run_job(job, folder, after_steps(3))
    checkpoint = (folder / CHECKPOINT_FILE).read_bytes()
    for other in (make_job(r1_gamma=0.5), make_job(precision="bf16")):
        with pytest.raises(FoundryError, match=f"job {job.fingerprint}, .* {other.fingerprint}"):
            run_job(other, folder)
    assert (folder / CHECKPOINT_FILE).read_bytes() == checkpoint
    assert run_job(job, folder) is None


def test_an_optimiser_that_goes_back_keeps_its_state_where_it_lies(tmp_path: Path) -> None:
    network, optimizer = player()
    step(network, optimizer)
    before = {
        name: value.clone() for name, value in optimizer_tensors("optimizer", optimizer).items()
    }
    places = {n: t.data_ptr() for n, t in optimizer_tensors("optimizer", optimizer).items()}
    step(network, optimizer)
    restore_optimizer("optimizer", optimizer, before)
    for name, value in optimizer_tensors("optimizer", optimizer).items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() == places[name]


def test_what_was_taken_before_the_first_update_has_no_moments() -> None:
    network, optimizer = player()
    at_first = optimizer_tensors("optimizer", optimizer)
    step(network, optimizer)
    for state in optimizer.state.values():
        state["exp_avg_sq"].fill_(float("nan"))
    restore_optimizer("optimizer", optimizer, at_first)
    for state in optimizer.state.values():
        assert all((value == 0).all() for value in state.values())
