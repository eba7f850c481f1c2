"""What a feature network is and which weights it has, as its files say: without PyTorch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict

WEIGHTS_FILE = "feature_network.safetensors"
CONFIG_FILE = "feature_network.json"


class FeatureNetworkConfig(BaseModel):
    """What a feature network is, and how it came about.

    Attributes:
        kind: `classifier`, `random` or `inception`.
        feature_dim: Dimensions of the feature space.
        shape: Height and width in pixels, and channels, of its input.
        classes: Classes of the image set that it tells apart; 0 if it was not trained on them.
        trained_on_sha256: Hash of the image set whose training split it learned from.
        held_out_accuracy: Share of held-out images it classifies rightly; None if it does not.
        seed: Of initialisation and training; None for `inception`.
        weights_sha256: Of the published file of weights; `inception` only.
        resize: What it does to the images first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    feature_dim: int
    shape: tuple[int, int, int]
    classes: int
    trained_on_sha256: str | None
    held_out_accuracy: float | None
    seed: int | None
    weights_sha256: str | None = None
    resize: str = "none"

    @property
    def name(self) -> str:
        """For people; a random network is always named so."""
        if self.kind == "random":
            return f"random R{self.feature_dim} (seed {self.seed})"
        return "inception-2015-12-05" if self.kind == "inception" else self.kind

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of the network saved in a folder."""
        return cls(**json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))


def saved_weights_sha256(folder: Path) -> str:
    """Hash of the weights of the network saved in a folder, as `FeatureNetwork.sha256`."""
    published = FeatureNetworkConfig.read(folder).weights_sha256
    return published or hash_weights(safetensors.numpy.load_file(folder / WEIGHTS_FILE))


def hash_weights(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names and contents of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
