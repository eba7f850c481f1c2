"""The sensor that tells people of failed runs, whoever started them."""

from collections.abc import Collection, Iterable, Mapping

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from gan_core.config import PipelineSettings
from pipelines.notification_channels import open_channels
from pipelines.notifications import failed, tell
from pipelines.run_processes import PROCESS_TAG

SENSOR = "notify_of_failures"
INTERVAL_SECONDS = 10
LONGEST_ERROR = 500  # characters
CHECK_FAILED = "DagsterAssetCheckFailedError"
INTERRUPTED = "DagsterExecutionInterruptedError"


def build_failure_sensor(pipelines: Mapping[str, PipelineSettings]) -> dg.SensorDefinition:
    """The sensor of all pipelines.

    Args:
        pipelines: Their settings, by their names.
    """

    @dg.run_failure_sensor(
        name=SENSOR,
        description="Tells the people whom a pipeline's `notifications` name that a run failed.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        monitor_all_code_locations=True,  # the command line's runs belong to none
    )
    def notify_of_failures(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if is_started_again(run):
            return dg.SkipReason(f"run {run.run_id} is started again by itself")
        told = False
        owners = [_owner(event) for event in context.get_step_failure_events()]
        for name in concerned(run, owners, pipelines):
            settings = pipelines[name].notifications
            if "failure" not in settings.events or not open_channels(settings):
                continue
            others = pipelines.keys() - {name}
            failures = _failures(context, others, checks_are_told="blocked" in settings.events)
            if failures:
                tell(settings, failed(name, run.run_id, failures), context.log)
                told = True
        return None if told else dg.SkipReason(f"there is nothing to tell of run {run.run_id}")

    return notify_of_failures


def is_started_again(run: dg.DagsterRun) -> bool:
    """Whether Dagster starts a failed run again by itself; it tags the command line's in vain."""
    return run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None


def concerned(run: dg.DagsterRun, owners: Iterable[str], pipelines: Iterable[str]) -> list[str]:
    """The pipelines that a failed run is about.

    Args:
        run: It makes assets of theirs, or its job is called like one of them.
        owners: Pipelines whose stages failed in it.
        pipelines: All names.
    """
    known = set(pipelines)
    found = {key.path[0] for key in run.asset_selection or ()} | set(owners)
    if found & known:
        return sorted(found & known)
    # Jobs beside the pipeline's own are called like it: digits_aliases.
    named = [name for name in known if f"{run.job_name}_".startswith(f"{name}_")]
    return [max(named, key=len)] if named else []


def _failures(
    context: dg.RunFailureSensorContext, others: Collection[str], *, checks_are_told: bool
) -> list[tuple[str | None, str]]:
    """What of a pipeline failed in a run, and why; the run itself is called None.

    Args:
        context: Of the run.
        others: Pipelines that are none of its business, in a run of several.
        checks_are_told: Whether `evaluation` tells by itself that a blocking check failed.
    """
    run, events = context.dagster_run, context.get_step_failure_events()
    found: list[tuple[str | None, str]] = []
    for event in events:
        if _owner(event) in others:
            continue
        data = event.step_failure_data
        error = data.error
        if error is not None and error.cls_name == CHECK_FAILED and checks_are_told:
            continue
        if error is not None and INTERRUPTED in error.to_string() and PROCESS_TAG in run.tags:
            continue  # somebody at the command line wanted it
        if data.user_failure_data is not None and data.user_failure_data.description:
            text = data.user_failure_data.description
        elif error is not None and error.cls_name == CHECK_FAILED:
            text = " ".join(error.message.split())  # its second line names the checks
        elif error is not None:
            text = (error.cause or error).message
        else:
            text = event.message or "it gave no reason"
        found.append((str(event.step_key).rpartition("__")[2], _first_line(text)))
    if not events:
        found.append((None, _first_line(context.failure_event.message or "it gave no reason")))
    return found


def _owner(event: dg.DagsterEvent) -> str:
    """The pipeline of a step that makes an asset; empty for another step."""
    return str(event.step_key).rpartition("__")[0]


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:LONGEST_ERROR]
