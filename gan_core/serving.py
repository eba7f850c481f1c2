"""How MLflow loads and calls a registered generator.

A copy of this module travels inside every registered model, beside what it needs of the package;
the project is not installed where the model is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .generator import ReleasedGenerator


class GeneratorModel:
    """Class labels in, images out."""

    def __init__(self, generator: ReleasedGenerator) -> None:
        self._generator = generator

    def predict(
        self, model_input: np.ndarray, params: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Generate one image for each label.

        Args:
            model_input: Class labels, int64, shape (n,); an unconditional generator does not read
                their values.
            params: `seed` (default 0) and `truncation` (default 1.0).

        Returns:
            uint8, shape (n, height, width, channels).
        """
        labels = np.atleast_1d(model_input)
        return self._generator.sample(len(labels), labels=labels, **dict(params or {}))


def _load_pyfunc(data_path: str) -> GeneratorModel:
    """MLflow's entry point: the model stored in a folder."""
    return GeneratorModel(ReleasedGenerator.load(Path(data_path)))
