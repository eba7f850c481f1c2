import hashlib
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.config import (
    PipelineSettings,
    apply_overrides,
    check_resolution,
    fingerprint,
    flat_settings,
    parse_settings,
    setting_keys,
)
from gan_core.errors import FoundryError

DIGITS: dict[str, Any] = {"source": "digits", "resolution": 16, "channels": 1}


def refusal(**sections: Any) -> str:
    """The sentence with which settings are refused."""
    with pytest.raises(FoundryError) as caught:
        parse_settings({"data": DIGITS, **sections}, "digits/defs.yaml")
    return str(caught.value)


def test_unknown_key_names_the_file_the_key_the_nearest_and_those_allowed() -> None:
    sentence = refusal(training={"kimgs": 5})
    assert sentence.startswith("digits/defs.yaml: training.kimgs is not a setting")
    assert "did you mean training.kimg?" in sentence
    assert "training.batch_size" in sentence
    assert "network.family" not in sentence


def test_unknown_section_names_the_sections() -> None:
    sentence = refusal(trainig={"kimg": 5})
    assert "trainig is not a setting" in sentence
    assert "training" in sentence
    for section in ("data", "network", "feature_network", "evaluation", "samples"):
        assert section in sentence.partition("Allowed are")[2]


@pytest.mark.parametrize(
    ("section", "key", "value", "bound"),
    [
        ("data", "resolution", 4, "greater than or equal to 8"),
        ("data", "resolution", 4096, "less than or equal to 1024"),
        ("data", "channels", 5, "less than or equal to 4"),
        ("data", "held_out_fraction", 1.0, "less than 1"),
        ("training", "batch_size", 1, "greater than or equal to 2"),
        ("training", "generator_learning_rate", 2.5, "less than or equal to 1"),
        ("training", "kimg", 0.0, "greater than 0"),
        ("samples", "truncation", 1.5, "less than or equal to 1"),
    ],
)
def test_value_out_of_range_names_key_value_and_bound(
    section: str, key: str, value: float, bound: str
) -> None:
    values = {**DIGITS, key: value} if section == "data" else {key: value}
    assert f"{section}.{key} is {value!r}, but it must be {bound}" in refusal(**{section: values})


def test_wrong_choice_lists_the_choices() -> None:
    sentence = refusal(training={"loss": "hinges"})
    assert "training.loss is 'hinges'" in sentence
    assert "'non_saturating', 'minimax', 'hinge'" in sentence


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"processes": 2}, "processes 2 goes with launcher torchrun, but it is process"),
        (
            {"processes": 3, "launcher": "torchrun"},
            "batch_size 64 cannot be divided into 3 processes",
        ),
        ({"accumulation_steps": 64}, "64 accumulation_steps of at least 2 images"),
        ({"batch_size": 2, "accumulation_steps": 2}, "make it a multiple of 2, at least 4"),
        ({"augmentation": {"transforms": ["cutout", "cutout"]}}, "names a transform twice"),
        ({"augmentation": {"strength": "adaptive"}}, "there are none; name some"),
        (
            {"augmentation": {"strength": "adaptive", "transforms": ["color"], "probability": 0}},
            "goes up to augmentation.probability, but that is 0",
        ),
        (
            {"monitoring": {"interval_kimg": 0}, "alarms": {"non_finite": "roll_back"}},
            "monitoring.interval_kimg 0 takes none; set it above 0",
        ),
        (
            {"kimg": 1, "batch_size": 100, "discriminator_steps": 11},
            "discriminator_steps 11 is more than the 10 steps of kimg 1 in batches of 100",
        ),
        ({"kimg": True}, "training.kimg: is true, but it must be a number"),
        ({"threads": True}, "training.threads: is true, but it must be a number"),
        (
            {"augmentation": {"transforms": {"color"}}},
            "is the set ['color'], but it must be a list",
        ),
        (
            {"monitoring": {"interval_kimg": 0, "patience_evaluations": 3}},
            "monitoring.interval_kimg 0 makes none; set it above 0",
        ),
        ({"augmentation": {"strengths": "fixed"}}, "did you mean training.augmentation.strength?"),
    ],
)
def test_settings_of_a_training_that_do_not_go_together_are_refused(
    training: dict[str, Any], told: str
) -> None:
    assert told in refusal(training=training)


def test_missing_source_lists_the_sources() -> None:
    sentence = refusal(data={})
    assert "data.source is missing" in sentence
    assert "fashion_mnist" in sentence
    assert "image_folder" in sentence


def test_half_a_pair_is_not_called_a_missing_setting() -> None:
    sentence = refusal(training={"adam_betas": [0.5]})
    assert "training.adam_betas" in sentence
    assert "[0.5]" in sentence


def test_wrong_item_of_a_pair_of_sides_is_not_called_a_wrong_number() -> None:
    sentence = refusal(data={**DIGITS, "resolution": [32, 4]})
    assert "data.resolution" in sentence
    assert "greater than or equal to 8" in sentence


@pytest.mark.parametrize("key", ["training.r1_gamma", "training.ema_halflife_kimg"])
def test_weights_and_half_lives_are_finite(key: str) -> None:
    # JSON has no infinity: the job file could not be read again.
    settings = parse_settings({"data": DIGITS}, "x")
    with pytest.raises(FoundryError, match=key):
        apply_overrides(settings, {key: float("inf")}, "--set")


def test_section_that_is_no_mapping_is_named() -> None:
    assert "training is 5, but it must be a mapping" in refusal(training=5)


@pytest.mark.parametrize("resolution", [18, [16, 30], [12, 32]])
def test_resolution_that_the_networks_cannot_make_is_refused(resolution: Any) -> None:
    network = {"generator_channels": [32, 16, 8, 8], "discriminator_channels": [8, 16]}
    sentence = refusal(data={**DIGITS, "resolution": resolution}, network=network)
    assert "cannot be made by network.generator_channels of 4 steps" in sentence
    assert "multiples of 8" in sentence


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 5))
def test_every_resolution_that_passes_is_one_the_networks_make(
    height: int, width: int, steps: int
) -> None:
    channels = (8,) * steps
    network = PipelineSettings.model_validate(
        {
            "data": {"source": "digits", "resolution": 512},
            "network": {"generator_channels": channels, "discriminator_channels": channels},
        }
    ).network
    factor = 2 ** (steps - 1)
    makes = height % factor == 0 and width % factor == 0 and min(height, width) // factor >= 2
    try:
        check_resolution(network, height, width)
    except ValueError:
        assert not makes
    else:
        assert makes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "exactly one of `path` and `archive`"),
        ({"path": "faces", "archive": "faces.zip"}, "exactly one of `path` and `archive`"),
        ({"archive": "faces.zip"}, "needs its `sha256`"),
        ({"archive": "faces.zip", "sha256": "abc"}, "data.sha256 is 'abc'"),
    ],
)
def test_image_folder_needs_one_place_and_archives_a_hash(data: dict[str, str], words: str) -> None:
    assert words in refusal(data={"source": "image_folder", **data})


def test_new_data_is_watched_only_where_images_can_change() -> None:
    assert "on_new_data is true, but" in refusal(data=DIGITS, on_new_data=True)
    folder = {"source": "image_folder", "path": "faces"}
    assert parse_settings({"data": folder, "on_new_data": True}, "x").on_new_data


@pytest.mark.parametrize("timezone", ["Europe/Atlantis", "Europe", "", "a" * 300])
def test_schedules_are_in_time_zones_that_exist(timezone: str) -> None:
    schedule = {"cron": "0 3 * * *", "timezone": timezone}
    sentence = refusal(data=DIGITS, schedule=schedule)
    assert "schedule.timezone" in sentence
    assert f"{timezone!r} is no time zone" in sentence


@pytest.mark.parametrize("owner", ["somebody", "team:", "@"])
def test_owners_are_addresses_or_teams(owner: str) -> None:
    assert "operation.owners" in refusal(data=DIGITS, operation={"owners": [owner]})


def test_place_of_images_goes_only_with_image_folder() -> None:
    assert "`path` goes with source image_folder" in refusal(data={**DIGITS, "path": "faces"})


def test_budget_of_less_than_one_batch_is_refused() -> None:
    sentence = refusal(training={"kimg": 0.01, "batch_size": 64})
    assert "training.kimg 0.01 is less than one batch" in sentence


def test_overrides_replace_dotted_keys_and_leave_the_rest() -> None:
    settings = parse_settings({"data": DIGITS, "training": {"seed": 3}}, "x")
    changed = apply_overrides(settings, {"training.kimg": 20, "data.fit": "pad"}, "--set")
    assert (changed.training.kimg, changed.data.fit, changed.training.seed) == (20.0, "pad", 3)
    assert settings.training.kimg == 100.0


@pytest.mark.parametrize("key", ["training.kimgs", "kimg", "training", "data.path.x", ""])
def test_override_of_an_unknown_key_is_refused(key: str) -> None:
    settings = parse_settings({"data": DIGITS}, "x")
    with pytest.raises(FoundryError, match=rf"^--set: {key} is not a setting"):
        apply_overrides(settings, {key: 1}, "--set")


def test_override_out_of_range_is_refused() -> None:
    settings = parse_settings({"data": DIGITS}, "x")
    with pytest.raises(FoundryError, match=r"training\.batch_size is 0, but it must be greater"):
        apply_overrides(settings, {"training.batch_size": 0}, "--set")


@pytest.mark.parametrize("value", [True, "3", 0, "best"])
def test_a_training_starts_from_nothing_but_a_champion_or_a_version(value: Any) -> None:
    settings = parse_settings({"data": DIGITS}, "x")
    with pytest.raises(FoundryError, match=rf"training\.start_from is {value!r}, but it must be"):
        apply_overrides(settings, {"training.start_from": value}, "--set")


def test_settings_are_frozen() -> None:
    settings = parse_settings({"data": DIGITS}, "x")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.training.kimg = 3.0  # type: ignore[misc]


def test_flat_settings_have_every_key_once() -> None:
    flat = flat_settings(parse_settings({"data": DIGITS}, "x"))
    assert list(flat) == setting_keys()
    assert flat["training.adam_betas"] == (0.0, 0.99)


def test_every_setting_is_described() -> None:
    def undescribed(model: type[pydantic.BaseModel]) -> list[str]:
        missing = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
                missing += undescribed(inner)
            elif not field.description:
                missing.append(name)
        return missing

    assert undescribed(PipelineSettings) == []


def test_fingerprint_is_the_same_on_every_machine_and_in_every_release() -> None:
    canonical = b'{"a":null,"b":[1,2.5]}'
    assert fingerprint({"b": [1, 2.5], "a": None}) == hashlib.sha256(canonical).hexdigest()[:16]


def test_fingerprint_does_not_depend_on_how_a_value_is_written() -> None:
    one = parse_settings({"data": DIGITS, "training": {"kimg": 20}}, "x")
    other = parse_settings({"training": {"kimg": 20.0}, "data": {**DIGITS, "fit": "crop"}}, "y")
    assert fingerprint(one) == fingerprint(other)


OTHER_VALUES = {
    "description": "x",
    "promotion": "manual",
    "gate.tolerance": 0.2,
    "schedule.cron": "0 3 * * 1",
    "schedule.timezone": "Europe/Berlin",
    "operation.quiet_seconds": 5.0,
    "operation.priority": 3,
    "operation.max_runtime_minutes": 90.0,
    "operation.retries": 2,
    "operation.freshness_hours": 24.0,
    "operation.owners": ["team:vision"],
    "notifications.webhook_variable": "SLACK_WEBHOOK_URL",
    "notifications.email_to": ["a@b.org"],
    "notifications.events": ["failure"],
    "gate.distance_over_floor_most": 2.0,
    "data.source": "mnist",
    "data.resolution": 32,
    "data.channels": 3,
    "data.sha256": "0" * 64,
    "data.fit": "pad",
    "data.held_out_fraction": 0.3,
    "data.split_seed": 1,
    "network.latent_dim": 8,
    "network.conditional": False,
    "network.generator_channels": (8, 8),
    "network.discriminator_head": "mean",
    "network.discriminator_channels": (8, 8),
    "network.family": "resnet",
    "network.blocks_per_resolution": 2,
    "network.spectral_norm": True,
    "training.kimg": 1.0,
    "training.batch_size": 8,
    "training.accumulation_steps": 2,
    "training.start_from": 3,
    "training.seed": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.threads": 1,
    "training.launcher": "torchrun",
    "training.loss": "minimax",
    "training.r1_gamma": 0.0,
    "training.r2_gamma": 0.1,
    "training.wgan_gp_weight": 10.0,
    "training.penalty_interval_steps": 16,
    "training.discriminator_steps": 5,
    "training.generator_learning_rate": 1e-3,
    "training.discriminator_learning_rate": 1e-3,
    "training.adam_betas": (0.5, 0.99),
    "training.learning_rate_warmup_kimg": 1.0,
    "training.learning_rate_decay_start": 1.0,
    "training.ema_halflife_kimg": 0.0,
    "training.ema_rampup": 0.1,
    "training.horizontal_flips": True,
    "training.augmentation.transforms": ("affine",),
    "training.augmentation.images": "real",
    "training.augmentation.strength": "adaptive",
    "training.augmentation.probability": 0.5,
    "training.augmentation.affine_magnitude": 0.5,
    "training.augmentation.target": 0.5,
    "training.augmentation.adjustment_kimg": 100.0,
    "training.monitoring.interval_kimg": 0.0,
    "training.monitoring.samples": 100,
    "training.monitoring.release": "last",
    "training.monitoring.patience_evaluations": 5,
    "training.alarms.evaluations": 2,
    "training.alarms.non_finite": "roll_back",
    "training.alarms.distance": "note",
    "training.alarms.distance_ratio": 3.0,
    "training.alarms.coverage": "stop",
    "training.alarms.coverage_drop": 0.1,
    "training.alarms.diversity": "stop",
    "training.alarms.diversity_drop": 0.1,
    "training.alarms.discriminator": "stop",
    "training.alarms.discriminator_accuracy": 0.9,
    "training.alarms.rate_factor": 0.9,
    "training.alarms.most_roll_backs": 1,
    "training.logging_interval_kimg": 2.0,
    "training.grid_interval_kimg": 1.0,
    "training.checkpoint_interval_seconds": 1.0,
    "feature_network.kind": "random",
    "feature_network.feature_dim": 8,
    "feature_network.epochs": 1,
    "feature_network.seed": 1,
    "feature_network.weights": "weights.pth",
    "feature_network.weights_sha256": 64 * "0",
    "evaluation.second_network": "inception",
    "evaluation.checks.blocking": False,
    "evaluation.checks.class_coverage_least": 0.5,
    "evaluation.checks.class_kl_most": 0.5,
    "evaluation.checks.recall_ratio_least": 0.5,
    "evaluation.checks.diversity_least": 0.5,
    "evaluation.checks.nearest_distance_ratio_least": 0.5,
    "evaluation.checks.near_copy_share_most": 0.5,
    "evaluation.checks.precision_ratio_least": 0.25,
    "evaluation.checks.contrast_ratio_least": 0.5,
    "evaluation.checks.constant_share_most": 0.5,
    "evaluation.samples": 100,
    "evaluation.seed": 1,
    "samples.count": 1,
    "samples.seed": 1,
    "samples.truncation": 0.5,
    "sweep.parameters": {"training.batch_size": {"choices": [32, 64]}},
    "sweep.kimg": 5.0,
    "sweep.evaluations": 4,
    "sweep.pruning_start": 0.5,
    "sweep.sampler_seed": 1,
}
# These can have no second value beside the digits, or at all.
ONE_VALUE = {"data.path", "data.archive", "training.processes", "on_new_data"}


def test_fingerprint_changes_with_any_setting() -> None:
    augmentation = {"transforms": ["translation", "color"]}
    settings = parse_settings({"data": DIGITS, "training": {"augmentation": augmentation}}, "x")
    assert set(OTHER_VALUES) | ONE_VALUE == set(setting_keys())
    changed = [apply_overrides(settings, {key: new}, "x") for key, new in OTHER_VALUES.items()]
    found = {fingerprint(other) for other in changed} | {fingerprint(settings)}
    assert len(found) == len(OTHER_VALUES) + 1
