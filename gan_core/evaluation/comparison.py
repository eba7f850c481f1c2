"""Two generators in one evaluation: which is nearer to the real images, and how surely."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from gan_core.evaluation.card import MetricCard
from gan_core.evaluation.estimate import Estimate, estimate
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.frechet import distance_replicates, fit_gaussian, frechet_distance
from gan_core.generator import ReleasedGenerator


class Comparison(BaseModel):
    """Fréchet distances of a candidate and a champion, and their difference.

    Attributes:
        card: What all of them depend on.
        candidate: Distance of the candidate's samples to the held-out images.
        champion: The same of the champion's, from the same latents and labels.
        difference: Candidate less champion, with the interval of a paired bootstrap: below zero
            the candidate is nearer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    card: MetricCard
    candidate: Estimate
    champion: Estimate
    difference: Estimate


def compare_generators(
    evaluator: Evaluator, candidate: ReleasedGenerator, champion: ReleasedGenerator
) -> tuple[Comparison, np.ndarray, np.ndarray]:
    """Measure two generators on the same reference, latents, labels and network.

    The replicates of both distances resample the same held-out images and the same latents (Efron
    and Tibshirani 1993), so that what both share leaves their difference.

    Returns:
        The comparison, and the samples of both, uint8, shape (n, height, width, channels).

    Raises:
        FoundryError: One of them does not make images of the reference's shape.
    """
    real = evaluator.real.gate.held_out.vectors
    samples = [evaluator.draw(generator) for generator in (candidate, champion)]
    features = [evaluator.networks.gate(images).vectors for images in samples]
    values = [frechet_distance(fit_gaussian(seen), fit_gaussian(real)) for seen in features]
    replicates = [distance_replicates(seen, real) for seen in features]
    own, other = (
        estimate(value, drawn, least=0.0) for value, drawn in zip(values, replicates, strict=True)
    )
    comparison = Comparison(
        card=evaluator.gate_card(len(samples[0])),
        candidate=own,
        champion=other,
        difference=estimate(values[0] - values[1], replicates[0] - replicates[1]),
    )
    return comparison, samples[0], samples[1]
