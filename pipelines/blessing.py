"""The infrastructure blessing: does a registered version work where this project is not?

A fresh process, in which importing the project fails and unpickling is switched off, fetches the
version from the registry as any consumer would, and makes the evaluation's images again.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_core.errors import FoundryError
from pipelines import home

TIMEOUT_SECONDS = 300
# Another device may round a pixel the other way; on a CPU the images are the same bits.
MOST_LEVELS_APART = 2

PROGRAM = """
import sys
for name in ("gan_core", "pipelines"):
    sys.modules[name] = None  # importing it raises
import mlflow, numpy
uri, seed, labels, images = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)  # looking for some takes a second
made = model.predict(numpy.load(labels), params={"seed": int(seed)})
numpy.save(images, made, allow_pickle=False)
"""


@dataclass(frozen=True)
class Reference:
    """Images that the evaluation saw.

    Attributes:
        images: uint8, shape (n, height, width, channels).
        labels: int64, shape (n,).
        seed: Of their latents.
        device: Where they were made.
        generator: Key of the training that they came from.
    """

    images: np.ndarray
    labels: np.ndarray
    seed: int
    device: str
    generator: str

    def save(self, path: Path) -> None:
        """Write them as `.npz`."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            return cls(
                images=found["images"],
                labels=found["labels"],
                seed=int(found["seed"]),
                device=str(found["device"]),
                generator=str(found["generator"]),
            )


def bless(uri: str, reference: Reference) -> None:
    """Make sure that a registered version makes the images of its evaluation in a bare process.

    Args:
        uri: `models:/<name>/<version>`.
        reference: What it must make.

    Raises:
        FoundryError: It does not load there, or its images are others.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        labels, images = folder / "labels.npy", folder / "images.npy"
        np.save(labels, reference.labels, allow_pickle=False)
        arguments = [uri, str(reference.seed), str(labels), str(images)]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", PROGRAM, *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "MLFLOW_TRACKING_URI": home.tracking_uri(),
                    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                    "TMPDIR": temporary,  # MLflow leaves what it downloads
                },
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FoundryError(
                f"{uri} made no images within {TIMEOUT_SECONDS} s in a process of its own; it "
                "stays without an alias."
            ) from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FoundryError(
                f"{uri} cannot be used without this project ({last}); it stays without an alias."
            )
        made = np.load(images, allow_pickle=False)
    _require_same(uri, made, reference)


def _require_same(uri: str, made: np.ndarray, reference: Reference) -> None:
    allowed = 0 if reference.device == "cpu" else MOST_LEVELS_APART
    same_shape = made.shape == reference.images.shape
    apart = np.abs(made.astype(int) - reference.images).max() if same_shape else 255
    if apart > allowed:
        raise FoundryError(
            f"{uri} makes other images in a process of its own than in its evaluation (up to "
            f"{apart} of 255 levels apart); it stays without an alias."
        )
