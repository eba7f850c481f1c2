"""Numbers with their uncertainty: the bootstrap (Efron 1979) that all metrics share.

An interval says how far a number would move with other samples and other held-out images, as many
as these. A bias that the number has at this count is not in it.
"""

import functools

import numpy as np
from pydantic import BaseModel, ConfigDict

LEVEL = 0.95
REPLICATES = 200
SEED = 0


class Estimate(BaseModel):
    """A number, and the interval that holds it with 95 % confidence."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends."""
        return self.low, self.high

    @property
    def text(self) -> str:
        """For people: 1.27 (1.10 to 1.45)."""
        digits = 3 if abs(self.value) < 10 else 4
        numbers = (f"{number:.{digits}g}" for number in (self.value, self.low, self.high))
        return "{} ({} to {})".format(*numbers)


def estimate(
    value: float, replicates: np.ndarray, least: float = -np.inf, most: float = np.inf
) -> Estimate:
    """A value with the interval that its bootstrap replicates give.

    The replicates are centred on the value first: those of a distance lie above it, because a
    resampled set has fewer different members.

    Args:
        value: As measured.
        replicates: Shape (b,).
        least: What the metric cannot be below; the interval is cut there.
        most: What it cannot be above.
    """
    value = float(np.clip(value, least, most))  # rounding may leave a distance just below zero
    centred = replicates - replicates.mean() + value
    low, high = np.quantile(centred, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=value,
        low=float(np.clip(min(low, value), least, most)),
        high=float(np.clip(max(high, value), least, most)),
    )


@functools.lru_cache(maxsize=4)
def count_matrix(members: int, seed: int = SEED, replicates: int = REPLICATES) -> np.ndarray:
    """How often each member of a set occurs in each bootstrap replicate.

    The same arguments give the same counts, which is what makes two bootstraps paired.

    Returns:
        float64, shape (replicates, members); not to be changed.
    """
    stream = np.random.default_rng(seed)
    counts = np.empty((replicates, members))
    for row in counts:
        row[:] = np.bincount(stream.integers(members, size=members), minlength=members)
    counts.flags.writeable = False
    return counts


def mean_estimate(values: np.ndarray, least: float = 0.0, most: float = 1.0) -> Estimate:
    """The mean of one number for each image, such as a share.

    Args:
        values: Shape (n,).
        least: What a mean cannot be below.
        most: What it cannot be above.
    """
    values = np.asarray(values, np.float64)
    replicates = count_matrix(len(values)) @ values / len(values)
    return estimate(values.mean(), replicates, least, most)
