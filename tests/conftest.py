"""What tests share: small prepared images, homes of their own, and the mirror where it exists."""

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_core.config import DataSettings, NetworkSettings
from gan_core.training_settings import TrainingSettings

PROJECT = Path(__file__).resolve().parents[1]
MIRROR = PROJECT.parent / "shared" / "data"

gc.set_threshold(50_000)  # as the program does: a twentieth of the time of the pipelines' tests

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job,
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and all that tests start would too


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a Dagster home of its own, and no mirror or server from outside."""
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    for name in ("MLFLOW_TRACKING_URI", "GAN_FOUNDRY_MIRROR"):
        monkeypatch.setenv(name, "")  # recorded, so that what a library sets is taken back too
        monkeypatch.delenv(name)
    return home


@pytest.fixture(scope="session")
def mirror() -> str:
    """Address of the folder of real data sets."""
    if not MIRROR.is_dir():
        pytest.skip(f"the data sets of {MIRROR} are not on this machine")
    return MIRROR.as_uri()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the prepared digits, 16x16 grey, 1,438 to train on and 359 held out."""
    from gan_core.data.manifest import list_images
    from gan_core.data.preparation import prepare_images

    folder = tmp_path_factory.mktemp("digits")
    raw, prepared = folder / "raw", folder / "prepared"
    raw.mkdir()
    prepared.mkdir()
    settings = DataSettings(source="digits", resolution=16, channels=1)
    list_images(settings, raw)
    prepare_images(raw, settings, prepared)
    return prepared


@pytest.fixture(scope="session")
def digit_classifier(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a feature network that has learned the digits for a moment, and its reference."""
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.feature_network import make_feature_network
    from gan_core.evaluation.reference import Reference
    from gan_core.evaluation_settings import FeatureNetworkSettings

    folder = tmp_path_factory.mktemp("classifier")
    images = open_image_set(digits)
    network = make_feature_network(images, FeatureNetworkSettings(feature_dim=16, epochs=2))
    network.save(folder)
    Reference.measure(network, images.train).save(folder)
    return folder


@pytest.fixture
def make_job(digits: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes small training jobs on the digits; arguments are training settings.

    Given `monitoring`, the job has a feature network to measure with.
    """
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.feature_network import FeatureNetwork
    from gan_core.training.job import TrainingJob

    def make(precision: str = "fp32", **training: Any) -> TrainingJob:
        settings = {"kimg": 1.0, "batch_size": 32, "logging_interval_kimg": 0.25, **training}
        classifier = None
        if "monitoring" in training:
            classifier = request.getfixturevalue("digit_classifier")
        return TrainingJob(
            name="digits",
            image_set=digits,
            image_set_sha256=open_image_set(digits).sha256,
            network=NetworkSettings(
                latent_dim=16, generator_channels=(16, 8, 8), discriminator_channels=(8, 8, 16)
            ),
            training=TrainingSettings(**settings),
            device="cpu",
            precision=precision,
            threads=1,
            feature_network=classifier,
            feature_network_sha256=classifier and FeatureNetwork.load(classifier).sha256,
        )

    return make


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of random PNG files: classes as a dictionary of names and counts."""
    from PIL import Image

    def make(classes: dict[str, int], size: tuple[int, int] = (20, 20)) -> Path:
        folder = tmp_path / "images"
        stream = np.random.default_rng(0)
        for name, count in classes.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = stream.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{index:04d}.png")
        return folder

    return make


def subprocess_environment(**more: str) -> dict[str, str]:
    """The environment for programs that a test starts."""
    return {**os.environ, **more}


def copy_project(folder: Path) -> Path:
    """A copy of the project's own files, for what would write into the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    return folder
