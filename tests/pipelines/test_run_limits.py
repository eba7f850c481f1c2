"""What whoever launches a run can write into its configuration."""

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._config import ConfigType, ConfigTypeKind

from gan_core.config import PipelineSettings, setting_keys
from pipelines.definitions import defs
from pipelines.run_limits import PRELOADED
from pipelines.settings_overrides import NOT_IN_RUN_CONFIG, keys_of_text

HARMLESS_TEXT = {
    "loggers.console.config.log_level",
    "loggers.console.config.name",
    "ops.*.config.why",  # a sentence for the ledger
}
# Its keys are settings, and override_settings takes none of NOT_IN_RUN_CONFIG.
SETTINGS = "resources.overrides.config.values.*"


@pytest.fixture(scope="module")
def jobs() -> list[dg.JobDefinition]:
    return defs().get_repository_def().get_all_jobs()


def free_places(config: ConfigType, place: tuple[str, ...] = ()) -> Iterator[str]:
    """Where text, or anything at all, can be written in a run's configuration."""
    fields = getattr(config, "fields", None)
    if fields is not None:
        for name, field in fields.items():
            op = len(place) == 1 and place[0] == "ops"
            yield from free_places(field.config_type, (*place, "*" if op else name))
    elif config.kind in (ConfigTypeKind.ARRAY, ConfigTypeKind.NONEABLE):
        yield from free_places(config.inner_type, place)
    elif config.kind == ConfigTypeKind.MAP:
        yield from free_places(config.inner_type, (*place, "*"))
    elif config.kind == ConfigTypeKind.SCALAR_UNION:
        yield from free_places(config.scalar_type, place)
        yield from free_places(config.non_scalar_type, place)
    elif config.kind != ConfigTypeKind.ENUM and config.given_name not in ("Int", "Float", "Bool"):
        yield ".".join(place)


def test_no_job_takes_text_that_could_be_a_path_an_address_a_module_or_a_command(
    jobs: list[dg.JobDefinition],
) -> None:
    assert {job.name for job in jobs} >= {"__ASSET_JOB", "digits", "digits_aliases"}
    for job in jobs:
        found = set(free_places(job.run_config_schema.config_type))
        assert found - HARMLESS_TEXT == {SETTINGS}, job.name


@pytest.mark.parametrize(
    "config",
    [
        {"resources": {"io_manager": {"config": {"base_dir": "/elsewhere"}}}},
        {
            "execution": {
                "config": {
                    "multiprocess": {"start_method": {"forkserver": {"preload_modules": ["x"]}}}
                }
            }
        },
        {"ops": {"digits__raw_images": {"config": {"path": "/etc"}}}},
        {"ops": {"digits__raw_images": {"config": {}, "module": "x"}}},
    ],
)
def test_dagsters_own_ways_to_name_folders_and_modules_are_closed(
    jobs: list[dg.JobDefinition], config: dict[str, object]
) -> None:
    (job,) = (job for job in jobs if job.name == "digits")
    assert dg.validate_run_config(job, {})
    with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected"):
        dg.validate_run_config(job, config)


def test_what_step_processes_are_forked_with_exists_starts_no_thread_and_touches_no_gpu() -> None:
    script = f"""
import importlib, threading
for name in {PRELOADED}:  # those that are missing, the server of the forks passes over
    importlib.import_module(name)
import torch
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert not torch.cuda.is_initialized()
"""
    # Without what tells libraries that they are tested.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTEST_CURRENT_TEST", "CI")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_setting_that_takes_text_is_never_one_of_a_run() -> None:
    assert (
        {
            "data.path",
            "data.archive",
            "data.sha256",
            "feature_network.weights",
            "feature_network.weights_sha256",
        }
        <= NOT_IN_RUN_CONFIG
        <= set(setting_keys())
    )


def test_a_new_setting_of_text_is_kept_out_without_being_named() -> None:
    class Wider(PipelineSettings):
        command: tuple[str, ...] | None = None
        kimg: int | None = None

    assert set(keys_of_text(Wider)) - NOT_IN_RUN_CONFIG == {"command"}


def test_values_between_stages_are_refused_instead_of_kept_somewhere() -> None:
    from pipelines.run_limits import no_values

    @dg.asset
    def numbers() -> int:
        return 1

    result = dg.materialize([numbers], resources={"io_manager": no_values}, raise_on_error=False)
    (event,) = result.get_step_failure_events()
    assert "returned a value" in event.step_failure_data.error.to_string()
