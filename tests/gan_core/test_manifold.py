import numpy as np
import prdc
import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_part

from gan_core.evaluation.manifold import ManifoldScores, compare, fit_manifold


def scores(real: np.ndarray, generated: np.ndarray, neighbours: int = 5) -> ManifoldScores:
    return compare(fit_manifold(real, neighbours), fit_manifold(generated, neighbours), neighbours)


def means(found: ManifoldScores) -> dict[str, float]:
    return {name: estimate.value for name, estimate in found.estimates().items()}


@pytest.mark.parametrize("neighbours", [3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_scores_are_those_of_prdc(shift: float, neighbours: int) -> None:
    stream = np.random.default_rng(0)
    real, generated = stream.normal(size=(700, 16)), stream.normal(size=(500, 16)) * 0.9 + shift
    expected = prdc.compute_prdc(real, generated, nearest_k=neighbours)
    assert means(scores(real, generated, neighbours)) == pytest.approx(expected, abs=1e-6)


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    stream = np.random.default_rng(1)
    real, generated = stream.normal(size=(400, 8)), stream.normal(size=(600, 8)) * 1.2
    precision, recall = calculate_precision_recall_part(
        torch.from_numpy(generated), torch.from_numpy(real), neighborhood=3
    )
    found = means(scores(real, generated, 3))
    assert found["precision"] == pytest.approx(precision, abs=1e-6)
    assert found["recall"] == pytest.approx(recall, abs=1e-6)


def test_a_point_repeated_has_precision_and_no_recall() -> None:
    real = np.random.default_rng(2).normal(size=(200, 4))
    found = means(scores(real, np.repeat(real[:1], 100, axis=0)))
    assert found["precision"] == 1.0
    assert found["recall"] == 0.0
    assert found["coverage"] < 0.1


def test_far_away_samples_have_nothing() -> None:
    real = np.random.default_rng(3).normal(size=(200, 4))
    assert set(means(scores(real, real + 1000)).values()) == {0.0}


def test_too_few_features_have_no_balls() -> None:
    with pytest.raises(ValueError, match="5 neighbours need more than 5 feature vectors"):
        fit_manifold(np.zeros((5, 2)))
