"""Settings that one run changes."""

from typing import Any

import dagster as dg
import pytest

from gan_core.config import PipelineSettings
from gan_core.errors import FoundryError
from pipelines.settings_overrides import (
    NOT_IN_RUN_CONFIG,
    RESOURCE_KEY,
    SettingsOverrides,
    override_settings,
    run_config,
)

SETTINGS = PipelineSettings.model_validate(
    {"data": {"source": "image_folder", "path": "/images", "resolution": 16}}
)


def apply(values: dict[str, Any]) -> PipelineSettings:
    return override_settings(SETTINGS, values)


def test_without_values_the_settings_stay_as_they_are() -> None:
    assert apply({}) == SETTINGS


def test_values_replace_settings_for_this_run_and_nothing_else() -> None:
    changed = apply({"training.kimg": 20, "data.resolution": 32})
    assert (changed.training.kimg, changed.data.resolution) == (20.0, 32)
    assert SETTINGS.training.kimg == 100.0
    back = changed.model_copy(update={"training": SETTINGS.training, "data": SETTINGS.data})
    assert back == SETTINGS


def test_an_unknown_key_is_refused_with_the_nearest_and_the_allowed_ones() -> None:
    with pytest.raises(FoundryError, match=r"training\.kimgs is not a setting; did you mean "):
        apply({"training.kimgs": 20})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("training.kimg", -1, "greater than 0"),
        ("training.batch_size", 1, "greater than or equal to 2"),
        ("training.loss", "hinges", "'non_saturating', 'minimax', 'hinge'"),
        ("samples.truncation", 2, "less than or equal to 1"),
        ("training.kimg", "much", "a valid number"),
        ("data.resolution", 18, "multiples of 4"),
    ],
)
def test_a_value_out_of_range_names_key_value_and_what_is_allowed(
    key: str, value: Any, allowed: str
) -> None:
    with pytest.raises(FoundryError) as caught:
        apply({key: value})
    text = str(caught.value)
    assert key in text
    assert str(value) in text
    assert allowed in text


@pytest.mark.parametrize(
    "key", [*sorted(NOT_IN_RUN_CONFIG), "operation.retries", "schedule.timezone", "sweep.kimg"]
)
def test_a_run_cannot_read_from_another_place_of_this_machine(key: str) -> None:
    with pytest.raises(FoundryError, match=rf"{key} cannot be changed for one run; .*defs\.yaml"):
        apply({key: "/etc"})


def pass_through_dagster(values: dict[str, Any]) -> PipelineSettings:
    """The settings that a stage sees in a run with these values as run configuration."""
    arrived = []

    @dg.asset
    def stage(overrides: SettingsOverrides) -> None:
        arrived.append(overrides.apply(SETTINGS))

    resources = {RESOURCE_KEY: SettingsOverrides()}
    dg.materialize([stage], resources=resources, run_config=run_config(values))
    return arrived[0]


def test_values_of_every_kind_arrive_through_dagsters_run_configuration() -> None:
    values = {
        "training.kimg": 20,
        "training.r1_gamma": 0.5,
        "training.precision": "bf16",
        "network.conditional": False,
        "network.generator_channels": [8, 4],
    }
    arrived = pass_through_dagster(values)
    assert arrived == apply(values)
    assert arrived.network.generator_channels == (8, 4)


def test_a_setting_can_be_taken_back_to_none_for_one_run() -> None:
    values = {"training.threads": None}
    assert apply(values).training.threads is None
    assert pass_through_dagster(values).training.threads is None
