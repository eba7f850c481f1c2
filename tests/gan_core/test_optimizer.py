import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gan_core.optimizer import Adam
from gan_core.training.job import TrainingJob
from tests.conftest import PROJECT

TRAIN = """
import sys
from pathlib import Path
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.feature_network import make_feature_network
from gan_core.evaluation_settings import FeatureNetworkSettings
from gan_core.training.job import TrainingJob
from gan_core.training.__main__ import main

folder = Path(sys.argv[1])
job = TrainingJob.read(folder)
assert main([str(folder)]) == 0
settings = FeatureNetworkSettings(feature_dim=8, epochs=1)
make_feature_network(open_image_set(job.image_set), settings)
sys.exit("torch._dynamo" in sys.modules)
"""


def make_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 1))


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    stream = torch.Generator().manual_seed(steps)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (step + 1)
        loss = network(torch.randn(4, 2, 4, 4, generator=stream)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors(part)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("fused", [True, False])
def test_updates_and_state_are_those_of_pytorchs_adam(fused: bool) -> None:
    ours, theirs = make_network(), make_network()
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.5, 0.9), "fused": fused}
    optimizers = [Adam(ours.parameters(), **options)]
    optimizers.append(torch.optim.Adam(theirs.parameters(), **options))
    for network, optimizer in zip((ours, theirs), optimizers, strict=True):
        train(network, optimizer, 5)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(found, expected)
        assert found.grad is None

    again = Adam(theirs.parameters(), **options)
    again.load_state_dict(optimizers[1].state_dict())
    states = [tensors(optimizer.state_dict()["state"]) for optimizer in (*optimizers, again)]
    assert len(states[0]) == 3 * len(list(ours.parameters()))
    for found, expected, loaded in zip(*states, strict=True):
        assert torch.equal(found, expected)
        assert torch.equal(loaded, expected)


def test_an_update_of_weights_is_nothing_that_gradients_flow_through() -> None:
    network = make_network()
    train(network, Adam(network.parameters(), fused=True), 1)
    assert all(parameter.grad_fn is None for parameter in network.parameters())


def test_a_training_does_not_load_the_compiler(
    make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    job = make_job(
        kimg=0.1,
        loss="relativistic",
        r2_gamma=0.1,
        learning_rate_warmup_kimg=0.05,
        monitoring={"interval_kimg": 0.05, "samples": 32},
    )
    network = job.network.model_copy(update={"spectral_norm": True})
    job.model_copy(update={"network": network}).write(tmp_path)
    program = [sys.executable, "-c", TRAIN, str(tmp_path)]
    assert subprocess.run(program, cwd=PROJECT, check=False).returncode == 0
