"""What people are told of a pipeline, and when. How it is sent: `notification_channels`.

A message that cannot be sent is a warning in the log and never fails what it tells of.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gan_core.errors import FoundryError
from gan_core.notification_settings import NotificationSettings
from pipelines import home
from pipelines.notification_channels import (
    Channel,
    ChannelError,
    channel_states,
    open_channels,
)
from pipelines.notification_message import Message
from pipelines.pipeline_files import load_pipeline, pipeline_files, read_pipeline_file
from pipelines.tracking import (
    DAGSTER_UI_VARIABLE,
    MLFLOW_UI_VARIABLE,
    dagster_run_url,
    without_user,
)

if TYPE_CHECKING:
    from gan_core.evaluation.report import Evaluation
    from pipelines.ledger import Aliases, Move
    from pipelines.registry import RegisteredVersion

LOG = logging.getLogger(__name__)


def tell(settings: NotificationSettings, message: Message, log: logging.Logger = LOG) -> None:
    """Send a message through all channels, if its kind is wanted.

    Args:
        settings: Of the pipeline that it is about.
        message: What to tell.
        log: Gets a warning for each channel that failed.
    """
    if message.event not in settings.events:
        return
    for error in _send(message, open_channels(settings)):
        log.warning(f"this could not be told ({message.title}): {error}")


def _send(message: Message, channels: Iterable[Channel]) -> list[ChannelError]:
    """Send a message through channels; returns what went wrong."""
    errors = []
    for channel in channels:
        try:
            channel.send(message)
        except ChannelError as error:
            errors.append(error)
    return errors


def channel_report(pipeline: str, *, test: bool) -> dict[str, str]:
    """What each channel of a pipeline is like, by its name.

    Args:
        pipeline: Its name.
        test: Send a test message through each.

    Raises:
        FoundryError: There is no such pipeline or no channel, or one did not take the test; the
            others got it.
    """
    settings = load_pipeline(pipeline).notifications
    channels = open_channels(settings)
    if not channels:
        raise FoundryError(
            f"{pipeline} tells nobody; set notifications.webhook_variable or "
            "notifications.email_to in its defs.yaml."
        )
    if not test:
        return channel_states(settings)
    sentence = f"This is a test: what happens to {pipeline} is told here."
    message = Message("test", f"{pipeline}: test", sentence)
    errors = _send(message, channels)
    if errors:
        raise FoundryError("; and ".join(str(error).rstrip(".") for error in errors) + ".")
    return {channel.name: "a test message was sent" for channel in channels}


def blocked_by_checks(pipeline: str, evaluation: "Evaluation", run_id: str, page: str) -> Message:
    """The message that a generator is kept from release.

    Args:
        pipeline: Its name.
        evaluation: With checks that failed.
        run_id: Of the Dagster run.
        page: Of the MLflow run.
    """
    failed = [check for check in evaluation.checks if not check.passed]
    reasons = "; ".join(f"{check.name}: {check.message}" for check in failed)
    return Message(
        "blocked",
        f"{pipeline}: a generator was not released",
        f"{pipeline} trained a generator that is not registered, because checks failed "
        f"({reasons}).",
        {**_measured(evaluation), **_run_fact(run_id)},
        _links(run_id, page),
    )


def decided(
    version: "RegisteredVersion",
    evaluation: "Evaluation",
    before: "Aliases",
    after: "Aliases",
    reason: str,
    run_id: str,
    page: str,
) -> Message:
    """The message of the gate's decision: a new champion, or one that was blocked or waits.

    Args:
        version: The candidate.
        evaluation: Its numbers.
        before: The aliases that the decision found.
        after: Those that it left.
        reason: One sentence.
        run_id: Of the Dagster run.
        page: Of the MLflow run.
    """
    won = after.champion == version.version
    what = "is the new champion" if won else "did not become champion"
    return Message(
        "champion" if won else "blocked",
        f"{version.model}: version {version.version} {what}",
        f"{version.name} {what}: {reason}.",
        {
            "version": str(version.version),
            **_measured(evaluation),
            "champion": _champions(before, after),
            **_run_fact(run_id),
        },
        _links(run_id, page),
    )


def tell_of_move(move: "Move", version: "RegisteredVersion", log: logging.Logger = LOG) -> None:
    """Tell that a person changed the champion; whom, the file of the model's pipeline says.

    Args:
        move: What was done.
        version: The champion now.
        log: Gets a warning for each channel that failed.
    """
    file = pipeline_files().get(version.model)
    if file is None:
        return
    try:
        settings = read_pipeline_file(file).notifications
    except FoundryError as error:
        log.warning(f"nobody was told that {version.name} is the champion: {error}")
        return
    by, _, name = move.by.partition(" ")
    run_id = name if by == "run" else None
    done = "rolled back to" if move.action == "rollback" else "promoted"
    message = Message(
        "champion",
        f"{version.model}: version {version.version} is the champion now",
        f"{'somebody in the pages of Dagster' if run_id else name} {done} {version.name}: "
        f"{move.why}",
        {
            "version": str(version.version),
            **_registered(version),
            "champion": _champions(move.before, move.after),
            **_run_fact(run_id),
        },
        _links(run_id, None),
    )
    tell(settings, message, log)


def failed(pipeline: str, run_id: str, failures: Sequence[tuple[str | None, str]]) -> Message:
    """The message that a run failed.

    Args:
        pipeline: Its name.
        run_id: Of the Dagster run.
        failures: What failed and the error's sentence; None for the run itself.
    """
    sentences = [
        f"{f'{pipeline}/{stage}' if stage else f'a run of {pipeline}'} failed: {text}"
        for stage, text in failures
    ]
    stages = ", ".join(stage for stage, _ in failures if stage)
    return Message(
        "failure",
        f"{pipeline}: {stages or 'a run'} failed",
        "; ".join(sentences),
        _run_fact(run_id),
        _links(run_id, None),
    )


def _measured(evaluation: "Evaluation") -> dict[str, str]:
    low, high = evaluation.gate.metrics["frechet_distance"].interval
    return _quality(evaluation.frechet_distance, low, high, evaluation.floor)


def _registered(version: "RegisteredVersion") -> dict[str, str]:
    """The same from a version's tags, if it has them."""
    from pipelines.registry import DISTANCE_TAG, FLOOR_TAG, INTERVAL_TAG

    tags = version.tags
    if not {DISTANCE_TAG, INTERVAL_TAG, FLOOR_TAG} <= set(tags):
        return {}
    low, high = map(float, tags[INTERVAL_TAG].split())
    return _quality(float(tags[DISTANCE_TAG]), low, high, float(tags[FLOOR_TAG]))


def _quality(distance: float, low: float, high: float, floor: float) -> dict[str, str]:
    return {
        "distance": f"{distance:.4g} (95 % interval {low:.4g} to {high:.4g})",
        "floor": f"{floor:.4g}",
    }


def _champions(before: "Aliases", after: "Aliases") -> str:
    old, new = (f"version {a.champion}" if a.champion else "none" for a in (before, after))
    if old != new:
        return f"{old} → {new}"
    return "none" if new == "none" else f"{new} stays"


def _run_fact(run_id: str | None) -> dict[str, str]:
    return {"Dagster run": run_id} if run_id else {}


def _links(run_id: str | None, page: str | None) -> dict[str, str]:
    """Pages of the user interfaces, where their addresses are known."""
    links = {}
    if run_id and os.environ.get(DAGSTER_UI_VARIABLE):
        links["Run in Dagster"] = dagster_run_url(run_id)
    server = home.tracking_uri().startswith(("http://", "https://"))
    if page and (server or os.environ.get(MLFLOW_UI_VARIABLE)):
        links["Run in MLflow"] = without_user(page)
    return links
