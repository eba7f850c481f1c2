"""What may be swept, and the sentences for what may not."""

from typing import Any

import pytest

from gan_core.config import PipelineSettings, apply_overrides, parse_settings
from gan_core.errors import FoundryError

DIGITS: dict[str, Any] = {"source": "digits", "resolution": 16, "channels": 1}


def parse(parameters: Any) -> PipelineSettings:
    return parse_settings({"data": DIGITS, "sweep": {"parameters": parameters}}, "x/defs.yaml")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"training.r1_gam": {"low": 1, "high": 2}}, "r1_gam is not a setting; did you mean"),
        ({"training.r1_gamma": {"low": 2, "high": 1}}, "has low 2 and high 1; low must be less"),
        ({"training.r1_gamma": {"low": 1, "high": 1}}, "low must be less"),
        (
            {"training.r1_gamma": {"low": 0, "high": 1, "log": True}},
            "training.r1_gamma has low 0, which has no logarithm; make it greater than 0",
        ),
        ({"training.r1_gamma": {"low": 1}}, "training.r1_gamma needs low and high, or choices"),
        ({"training.r1_gamma": {"choices": [1]}}, "has choices [1], but it needs two at least"),
        (
            {"training.r1_gamma": {"low": 1, "choices": [1, 2]}},
            "has choices and a range (low, high, log); leave one of them out",
        ),
        ({"training.r1_gamma": {"lo": 2}}, "has lo, which is not known; allowed are low, high"),
        ({"training.r1_gamma": {"low": "x", "high": 2}}, "training.r1_gamma has low 'x', but it"),
        ({"training.r1_gamma": 5}, "training.r1_gamma is 5, but it must be a mapping with low"),
        (5, "sweep.parameters is 5, but it must be"),
        (
            {"training.r1_gamma": {"low": 1, "high": 2, "also": ["training.r1_gamma"]}},
            "name training.r1_gamma twice; leave one out",
        ),
    ],
)
def test_a_mistake_in_a_parameter_names_the_file_the_setting_and_the_remedy(
    parameters: Any, told: str
) -> None:
    with pytest.raises(FoundryError) as caught:
        parse(parameters)
    assert str(caught.value).startswith("x/defs.yaml: sweep")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        *("data.resolution", "feature_network.seed", "evaluation.samples", "description"),
        *("training.seed", "training.kimg", "training.device", "training.monitoring.samples"),
        *("training.alarms.rate_factor", "sweep.kimg"),
    ],
)
def test_what_would_make_trials_incomparable_cannot_be_swept(key: str) -> None:
    for parameters in (
        {key: {"choices": [1, 2]}},
        {"training.r1_gamma": {"low": 1, "high": 2, "also": [key]}},
    ):
        with pytest.raises(FoundryError, match=rf"{key} cannot be swept, .*; take settings of"):
            parse(parameters)


def test_numbers_may_be_written_as_yaml_reads_them_as_text() -> None:
    # YAML 1.1 takes 2e-4 for a string.
    found = parse({"training.generator_learning_rate": {"low": "2e-4", "high": "4e-3"}})
    values = found.sweep.parameters["training.generator_learning_rate"]
    assert (values.low, values.high) == (2e-4, 4e-3)


def test_parameters_can_be_replaced_as_a_whole_but_not_in_part() -> None:
    settings = parse({"training.r1_gamma": {"low": 0.1, "high": 2}})
    other = {"training.batch_size": {"choices": [32, 64]}}
    changed = apply_overrides(settings, {"sweep.parameters": other}, "--set")
    assert list(changed.sweep.parameters) == ["training.batch_size"]
    with pytest.raises(FoundryError, match="is not a setting"):
        apply_overrides(settings, {"sweep.parameters.training.r1_gamma": 1}, "--set")
