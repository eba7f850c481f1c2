"""How MLflow loads and calls a registered generator.

A copy of this module travels inside every registered model, beside what it needs of the package;
the project is not installed where the model is used.
"""

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FoundryError
from .generator import ReleasedGenerator

TYPES = {"seed": Integral, "truncation": Real}


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

        Raises:
            MlflowException: An input is unknown, of a wrong type or out of its range; over HTTP the
                status is 400, with the same sentence.
        """
        from mlflow.exceptions import MlflowException

        try:
            options = _checked(params or {})
            labels = np.atleast_1d(model_input)
            return self._generator.sample(len(labels), labels=labels, **options)
        except FoundryError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, if each is known and a number of its type."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if name not in TYPES:
            raise FoundryError(f"there is no parameter {name!r}; use {' and '.join(TYPES)}.")
        # To Python, true is a number.
        if isinstance(value, bool | np.bool_) or not isinstance(value, TYPES[name]):
            raise FoundryError(
                f"{name} is {value!r}, but it must be "
                f"{'an integer' if name == 'seed' else 'a number'}."
            )
        found[name] = value
    return found


def _load_pyfunc(data_path: str) -> GeneratorModel:
    """MLflow's entry point: the model stored in a folder."""
    return GeneratorModel(ReleasedGenerator.load(Path(data_path)))
