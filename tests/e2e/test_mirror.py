"""The 60,000-image sets and the colour zip, from a mirror of real files, with short trainings."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import run_command

pytestmark = [pytest.mark.slow, pytest.mark.mirror]

SHORT = {
    "training.kimg": 1,
    "training.threads": 1,  # another test runs beside this one
    "evaluation.checks.blocking": False,
    "evaluation.samples": 500,
}


@pytest.mark.parametrize(
    ("pipeline", "held_out", "training_images", "epochs", "accuracy"),
    [
        ("mnist", 10_000, 60_000, 3, 0.99),  # as it is shipped
        ("fashion_mnist", 10_000, 60_000, 1, 0.8),
        ("cifar10_20pct", 10_000, 10_000, 1, 0.3),
    ],
)
def test_a_pipeline_from_the_mirror_ends_in_the_registry(
    pipeline: str,
    held_out: int,
    training_images: int,
    epochs: int,
    accuracy: float,
    mirror: str,
    own_home: Path,
) -> None:
    values = {**SHORT, "feature_network.epochs": epochs}
    settings = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    result = run_command(own_home, "run", pipeline, *settings, "--json", GAN_FOUNDRY_MIRROR=mirror)

    assert result.status == 0, result.stderr
    summary = result.json
    assert summary["alias"] == "champion"
    assert summary["evaluation"]["card"]["reference_images"] == held_out
    assert summary["evaluation"]["card"]["samples"] == 500
    assert len(summary["evaluation"]["class_shares"]) == 10
    (network,) = own_home.glob(f"store/{pipeline}/feature_network/*/feature_network.json")
    assert json.loads(network.read_text())["held_out_accuracy"] >= accuracy
    (dataset,) = own_home.glob(f"store/{pipeline}/training_images/*/dataset.json")
    assert f'"train": {training_images}' in dataset.read_text()


def test_without_a_mirror_and_a_network_the_files_and_the_remedy_are_named(own_home: Path) -> None:
    # A proxy that nobody runs stands for the missing network.
    nowhere = "http://127.0.0.1:9"
    result = run_command(own_home, "run", "mnist", HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere)

    assert result.status == 2
    assert "train-images-idx3-ubyte.gz could not be downloaded" in result.stderr
    assert "no connection" in result.stderr
    assert "GAN_FOUNDRY_MIRROR" in result.stderr
    assert list(own_home.glob("store/mnist/raw_images/*/*")) == []
