"""The registered model's own code: MLflow stores this file with the model and runs it to load it.

It must not import this project, which is not installed where the model is used: what it needs of
`gan_core` travels with the model as a package whose name stands in the model's configuration.
"""

import importlib
from pathlib import Path
from typing import Any

import mlflow
import numpy as np


class GeneratorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Class labels in, images out.

    Input: int64, shape (n,); an unconditional generator does not read the values. Parameters:
    `seed` and `truncation`. Output: uint8, shape (n, height, width, channels).
    """

    def load_context(self, context: Any) -> None:
        """Rebuild the generator from its safetensors."""
        carried = importlib.import_module(context.model_config["package"] + ".generator")
        self._generator = carried.ReleasedGenerator.load(Path(context.artifacts["generator"]))

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Generate one image for each label."""
        labels = np.asarray(model_input)
        chosen = params or {}
        return self._generator.sample(
            len(labels),
            labels=labels,
            seed=chosen.get("seed", 0),
            truncation=chosen.get("truncation", 1.0),
        )


mlflow.models.set_model(GeneratorModel())
