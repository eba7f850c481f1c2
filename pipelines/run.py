"""Runs a whole pipeline in this process, recorded in Dagster's instance like any other run."""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from gan_core.config import DataSettings, PipelineSettings
from gan_core.data.sources import open_source
from gan_core.errors import FoundryError
from pipelines.components.gan_pipeline import build_pipeline
from pipelines.home import require_checkout
from pipelines.instance import open_quiet_instance
from pipelines.pipeline_files import load_pipeline
from pipelines.progress import publish
from pipelines.run_processes import PROCESS_TAG, end_dead_runs, tag_of_this_process
from pipelines.settings_overrides import (
    RESOURCE_KEY,
    SettingsOverrides,
    override_settings,
    run_config,
)


class _Watchers(logging.Handler):
    """Passes on what a stage warns of; failures are told when the run has ended."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.dagster_meta  # type: ignore[attr-defined]  # Dagster adds it
        if record.levelno == logging.WARNING and said["dagster_event"] is None:
            stage = (said["step_key"] or "").rpartition("__")[2]
            publish("warning", stage, text=said["orig_message"])


@dg.logger(config_schema={}, description="Tells who watches the run what stages warn of.")
def warnings_for_watchers(_: dg.InitLoggerContext) -> logging.Logger:
    """The logger `display` of runs in this process."""
    logger = logging.Logger("gan_foundry.run", logging.WARNING)
    logger.addHandler(_Watchers())
    return logger


class RunInterruptedError(Exception):
    """Somebody pressed Ctrl-C, or asked the process to end."""


class StageCrashedError(Exception):
    """A stage failed for a reason that the user cannot mend; the text holds the traceback."""


@dataclass(frozen=True)
class PipelineRun:
    """A finished run.

    Attributes:
        pipeline: Its name.
        dagster_run_id: Its page in the user interface is `/runs/<id>`.
        metadata: What each stage recorded, by stage and name.
        seconds: Of the whole run.
    """

    pipeline: str
    dagster_run_id: str
    metadata: Mapping[str, Mapping[str, Any]]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """The run as plain values; file names are absolute."""
        evaluation = self.metadata["evaluation"]
        samples, model = self.metadata["samples"], self.metadata["registered_model"]
        return {
            "pipeline": self.pipeline,
            "dagster_run_id": self.dagster_run_id,
            "mlflow_run_id": model["mlflow_run_id"],
            "model": model["model"],
            "version": model["version"],
            "alias": model["alias"],
            "decision": model["decision"],
            "evaluation": evaluation["report"],
            "samples": {
                "grid": samples["grid_file"],
                "archive": samples["archive"],
                "count": samples["count"],
            },
            "reused": [stage for stage, values in self.metadata.items() if values["reused"]],
            "seconds": {
                **{stage: values["seconds"] for stage, values in self.metadata.items()},
                "total": self.seconds,
            },
        }


def run_pipeline(name: str, overrides: Mapping[str, Any]) -> PipelineRun:
    """Materialize every stage of a pipeline.

    Args:
        name: The pipeline's.
        overrides: Dotted keys of settings with values for this run.

    Raises:
        FoundryError: The name or a setting is wrong (then nothing was started), or a stage failed
            for a reason that the user can mend.
        RunInterruptedError: It was interrupted; what was done is kept.
        StageCrashedError: A stage failed for another reason.
    """
    require_checkout()
    return materialize(name, load_pipeline(name), overrides)


def materialize(
    name: str,
    settings: PipelineSettings,
    overrides: Mapping[str, Any],
    stages: Collection[str] | None = None,
) -> PipelineRun:
    """Materialize stages of a pipeline that may have no file of its own.

    Args:
        name: The pipeline's.
        settings: Its own.
        overrides: Dotted keys of settings with values for this run.
        stages: Their names; by default all.

    Raises:
        FoundryError: As `run_pipeline`.
        RunInterruptedError: As `run_pipeline`.
        StageCrashedError: As `run_pipeline`.
    """
    check_images(override_settings(settings, overrides).data)
    definitions = dg.Definitions.merge(
        build_pipeline(name, settings, in_process=True),
        dg.Definitions(
            resources={RESOURCE_KEY: SettingsOverrides()},
            loggers={"console": dg.colored_console_logger, "display": warnings_for_watchers},
        ),
    )
    job = definitions.resolve_job_def(name)
    chosen = [dg.AssetKey([name, stage]) for stage in stages] if stages else None
    start = time.monotonic()
    with open_quiet_instance() as instance:
        end_dead_runs(instance)
        config = run_config(overrides)
        # The display shows what happens, and Dagster's event log keeps it.
        config["loggers"] = {
            "console": {"config": {"log_level": "CRITICAL"}},
            "display": {"config": {}},
        }
        result = job.execute_in_process(
            run_config=config,
            instance=instance,
            raise_on_error=False,
            asset_selection=chosen,
            tags={PROCESS_TAG: tag_of_this_process()},
        )
    if not result.success:
        _raise_failure(name, result)
    metadata = {}
    for event in result.get_asset_materialization_events():
        found = event.step_materialization_data.materialization
        metadata[found.asset_key.path[-1]] = {
            key: value.value for key, value in found.metadata.items()
        }
    return PipelineRun(name, result.run_id, metadata, time.monotonic() - start)


def check_images(data: DataSettings) -> None:
    """Raise FoundryError if one's own images are not there, before anything is written."""
    if data.path is not None:
        _ = open_source(data, Path()).class_names


def _raise_failure(name: str, result: dg.ExecuteInProcessResult) -> None:
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    blocking = [check for check in failed if check.severity == dg.AssetCheckSeverity.ERROR]
    if blocking:
        said = "; ".join(f"{check.check_name}: {check.description}" for check in blocking)
        raise FoundryError(
            f"the generator is not released, because checks failed ({said}); train longer or with "
            "another recipe, change the bounds in evaluation.checks, or register it all the same "
            "with --set evaluation.checks.blocking=false."
        )
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        stage = str(event.step_key).replace("__", "/")
        if data.user_failure_data is not None and data.user_failure_data.description:
            raise FoundryError(f"{stage}: {data.user_failure_data.description}")
        error = data.error.cause or data.error if data.error else None
        if "DagsterExecutionInterruptedError" in (data.error.to_string() if data.error else ""):
            raise RunInterruptedError(
                f"{stage} was interrupted; run {name} again to go on from here."
            )
        raise StageCrashedError(
            f"{stage} failed in run {result.run_id}, which looks like a bug of this program:\n"
            f"{error.to_string() if error else event.message}"
        )
    raise StageCrashedError(f"the run {result.run_id} failed before its first stage")
