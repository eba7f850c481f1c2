"""From settings to what is tried, and back."""

from typing import Any

import optuna
import pytest

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError
from pipelines.pipeline_files import load_pipeline, pipeline_files
from pipelines.sweep.space import search_space, trial_settings

DIGITS = load_pipeline("digits")


def with_parameters(parameters: dict[str, Any], **training: Any) -> PipelineSettings:
    own = {f"training.{key}": value for key, value in training.items()}
    return apply_overrides(DIGITS, {**own, "sweep.parameters": parameters}, "x")


@pytest.mark.parametrize("name", sorted(pipeline_files()))
def test_every_shipped_pipeline_has_a_default_space_around_its_own_settings(name: str) -> None:
    settings = load_pipeline(name)
    space = search_space(settings)
    assert set(space.names) == {
        "training.generator_learning_rate",
        "training.r1_gamma",
        "training.ema_halflife_kimg",
    }
    values = space.values(space.own_parameters)
    assert values["training.discriminator_learning_rate"] == 1e-3  # moves with the generator's
    assert apply_overrides(settings, values, "own") == settings


def test_by_default_what_differs_moves_alone_and_what_is_off_stays_off() -> None:
    settings = with_parameters({}, generator_learning_rate=0.5, r2_gamma=0.0)
    space = search_space(settings)
    distributions = space.distributions
    assert set(space.names) == {
        "training.generator_learning_rate",
        "training.discriminator_learning_rate",
        "training.r1_gamma",
        "training.ema_halflife_kimg",
    }
    assert distributions["training.generator_learning_rate"].high == 1.0  # a rate's bound


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (
            {"training.generator_learning_rate": {"low": 1e-4, "high": 3.0}},
            "training.generator_learning_rate is 3.0, but it must be less than or equal to 1",
        ),
        ({"training.batch_size": {"low": 8.5, "high": 64}}, "training.batch_size is 8.5"),
        ({"training.loss": {"choices": ["relativistic", "hinges"]}}, "training.loss is 'hinges'"),
        ({"training.loss": {"low": 1, "high": 2}}, "which is no number; give choices"),
        ({"network.conditional": {"low": 0, "high": 1}}, "which is no number"),
        (
            {"network.generator_channels": {"choices": [[64] * 5, [128, 64, 32]]}},
            "cannot be made by network.generator_channels of 5 steps",
        ),
        (
            {"training.r1_gamma": {"low": 1, "high": 10}},
            "training.r1_gamma is 0.3 in this pipeline, whose own settings are the first trial, "
            "but only 1 to 10 is tried; add 0.3",
        ),
        (
            {"training.ema_halflife_kimg": {"choices": [1, 2], "also": []}},
            "training.ema_halflife_kimg is 5.0 in this pipeline",
        ),
        (
            {"training.r1_gamma": {"low": 0, "high": 1, "also": ["training.r2_gamma"]}},
            "training.r2_gamma is 0.5 in this pipeline and training.r1_gamma is 0.3, so they",
        ),
    ],
)
def test_a_value_that_the_pipeline_cannot_have_is_refused(
    parameters: dict[str, Any], told: str
) -> None:
    with pytest.raises(FoundryError) as caught:
        search_space(with_parameters(parameters, r2_gamma=0.5))
    assert told in str(caught.value)


def test_what_is_tried_is_what_a_person_would_write() -> None:
    space = search_space(
        with_parameters(
            {
                "training.r1_gamma": {"low": 0.12345, "high": 3, "log": True},
                "training.batch_size": {"low": 16, "high": 128, "log": True},
                "training.loss": {"choices": ["hinge", "relativistic"]},
                "network.generator_channels": {"choices": [[64, 32, 16], [128, 64, 32]]},
                "network.spectral_norm": {"choices": [True, False]},
            }
        )
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        values = space.values(study.ask(space.distributions).params)
        gamma = values["training.r1_gamma"]
        assert gamma == 0.12345 or gamma == float(f"{gamma:.3g}")
        assert 0.12345 <= gamma <= 3
        assert isinstance(values["training.batch_size"], int)
        changed = apply_overrides(DIGITS, values, "a trial")
        assert changed.network.generator_channels in ((64, 32, 16), (128, 64, 32))


def test_a_trial_has_the_sweeps_budget_and_evaluations_and_keeps_the_rest() -> None:
    settings = apply_overrides(DIGITS, {"sweep.kimg": 20, "sweep.evaluations": 4}, "x")
    training = trial_settings(settings, {"training.r1_gamma": 1.0}).training
    assert (training.kimg, training.monitoring.interval_kimg, training.r1_gamma) == (20, 5, 1)
    assert training.seed == DIGITS.training.seed
    assert trial_settings(DIGITS, {}).training.kimg == DIGITS.training.kimg


def test_a_penalty_that_is_on_is_tried_whichever_it_is() -> None:
    settings = with_parameters(
        {}, loss="wasserstein", r1_gamma=0.0, r2_gamma=0.0, wgan_gp_weight=10
    )
    assert "training.wgan_gp_weight" in search_space(settings).names
