import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from gan_core.evaluation.classes import (
    coverage_estimate,
    covered_share,
    divergence_estimate,
    inception_score,
)
from tests.conftest import PROJECT

EVEN = np.full(10, 0.1)


def test_a_class_shown_less_than_a_tenth_as_often_as_real_ones_is_not_covered() -> None:
    classes = np.repeat(np.arange(10), [991, *[1000] * 8, 9])
    assert covered_share(classes, EVEN) == 0.9
    classes = np.repeat(np.arange(10), [900, *[1000] * 8, 100])
    assert covered_share(classes, EVEN) == 1.0


def test_a_class_that_real_images_do_not_have_need_not_be_covered() -> None:
    assert covered_share(np.array([0, 1]), np.array([0.5, 0.5, 0.0])) == 1.0


def test_coverage_comes_with_its_interval() -> None:
    found = coverage_estimate(np.repeat(np.arange(9), 50), EVEN)
    assert (found.low, found.value, found.high) == pytest.approx((0.9, 0.9, 0.9))
    rare = np.repeat(np.arange(10), [*[100] * 9, 9])
    found = coverage_estimate(rare, EVEN)
    assert found.low < found.high


@pytest.mark.parametrize("counts", [[10] * 10, [91, *[1] * 9], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
def test_the_divergence_is_that_of_scipy(counts: list[int]) -> None:
    classes = np.repeat(np.arange(10), counts)
    expected = scipy.stats.entropy(np.array(counts) / sum(counts), EVEN)
    found = divergence_estimate(classes, EVEN)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.low <= found.value <= found.high


def test_a_missing_class_of_ten_has_a_divergence_of_a_tenth() -> None:
    found = divergence_estimate(np.repeat(np.arange(9), 1000), EVEN)
    assert found.value == pytest.approx(np.log(10 / 9), abs=1e-6)


def test_a_class_that_should_not_be_there_is_infinitely_far() -> None:
    found = divergence_estimate(np.array([0, 1, 2] * 50), np.array([0.5, 0.5, 0.0]))
    assert found.value == found.high == np.inf


def test_the_inception_score_is_that_of_torch_fidelity() -> None:
    logits = np.random.default_rng(0).normal(size=(500, 10)) * 3
    expected = isc_features_to_metric(torch.from_numpy(logits), splits=1)[KEY_METRIC_ISC_MEAN]
    found = inception_score(logits)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.low < found.value < found.high


def test_sure_and_even_predictions_score_the_number_of_classes_and_equal_ones_one() -> None:
    sure = 100.0 * np.eye(10)[np.arange(1000) % 10]
    assert inception_score(sure).value == pytest.approx(10.0, rel=1e-6)
    assert inception_score(np.repeat(sure[:1], 100, axis=0)).value == pytest.approx(1.0)
    assert inception_score(np.zeros((100, 10))).value == pytest.approx(1.0)


SCORE = """
import sys
import numpy as np
import gan_core.evaluation.page, gan_core.evaluation.evaluator
from gan_core.evaluation.classes import inception_score
from gan_core.evaluation.kernel import kernel_distance
inception_score(np.eye(10))
kernel_distance(np.eye(10), np.eye(10))
sys.exit("torch._dynamo" in sys.modules or "torchvision" in sys.modules)
"""


def test_to_score_images_loads_no_compiler() -> None:
    program = [sys.executable, "-c", SCORE]
    assert subprocess.run(program, cwd=PROJECT, check=False).returncode == 0
