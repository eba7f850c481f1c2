"""MLflow's side of a training: one run each, its settings, its journal, its evaluation.

The training itself never waits for a tracking server. What a stage could not ship, the next one
ships: the run is found again by the generator's key, and every row keeps its own time.
"""

import contextlib
import logging
import os
import platform
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from gan_core.config import PipelineSettings, flat_settings
from gan_core.disk import is_disk_full
from gan_core.errors import FoundryError, first_line
from gan_core.training.journal import read_journal
from pipelines import home, mlflow_database
from pipelines.portable_settings import without_places
from pipelines.store import describe_forbidden, describe_full_disk, is_forbidden

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "gan_foundry.generator_key"
SHIPPED_TAG = "gan_foundry.journal_bytes_shipped"
JOURNAL_FIELDS_NOT_METRICS = {"event", "time", "images", "file"}
# Beside those of the lines: the prefix in MLflow, and what is taken of a row.
METRICS_OF_EVENTS = {
    "start": (
        "network",
        (
            "generator_parameters",
            "discriminator_parameters",
            "generator_flops",
            "discriminator_flops",
        ),
    ),
    "evaluation": (
        "monitoring",
        ("distance", "class_coverage", "diversity", "discriminator_accuracy"),
    ),
}
# MLflow's pages then show what belongs to trainings, and not to language models.
EXPERIMENT_OF_TRAININGS = {"mlflow.experimentKind": "custom_model_development"}
METRICS_A_BATCH = 900  # MLflow takes 1,000 at most

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

DAGSTER_UI_VARIABLE = "GAN_FOUNDRY_DAGSTER_UI"
MLFLOW_UI_VARIABLE = "GAN_FOUNDRY_MLFLOW_UI"
DEFAULT_DAGSTER_UI = "http://127.0.0.1:3000"
DEFAULT_MLFLOW_UI = "http://127.0.0.1:5000"


def connect() -> "MlflowClient":
    """A client of the tracking store; a database is made first.

    Where the environment does not say otherwise, MLflow is told to give up soon on a server that is
    down, to send no telemetry and to print no progress bars.

    Raises:
        FoundryError: The database cannot be used, or is of another version of MLflow.
    """
    _before_import()
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)

    uri = home.tracking_uri()
    if home.tracks_in_database():
        mlflow_database.prepare(uri)
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def _before_import() -> None:
    """What MLflow reads from the environment; the telemetry when it is imported."""
    # A server that is down otherwise blocks every call for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run: the training of one generator."""

    client: "MlflowClient"
    run_id: str
    experiment_id: str

    @property
    def url(self) -> str:
        """The run's page in MLflow's user interface."""
        base = run_page_base()
        return f"{base}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers that stand beside the learning curves."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=rows)

    def log_files(self, paths: Iterable[Path], folder: str) -> None:
        """Store files as artifacts."""
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; those without a value are left out."""
        from mlflow.entities import RunTag

        found = [RunTag(key, str(value)) for key, value in tags.items() if value is not None]
        self.client.log_batch(self.run_id, tags=found)

    def ship_journal(self, training_folder: Path, journal: Path, durable_bytes: int) -> None:
        """Send the journal's lines up to a position, from where the last shipment ended.

        Shipping a line twice changes nothing: it keeps its time and step.

        Args:
            training_folder: Where the grids lie that the journal names.
            journal: The journal.
            durable_bytes: What stands after this may be cut off and trained again.
        """
        from mlflow.entities import Metric

        first = next(read_journal(journal), None)
        if first is None:
            return
        # The position counts in this journal alone: a training done anew begins another one.
        journal_start = f"{first[1]['time']}"
        shipped = self.client.get_run(self.run_id).data.tags.get(SHIPPED_TAG, "")
        shipped_start, _, shipped_bytes = shipped.partition(" ")
        start = int(shipped_bytes) if shipped_start == journal_start else 0
        metrics: list[Metric] = []
        shipped_grids = self._grid_steps()
        position = start
        for end, row in read_journal(journal, start):
            if end > durable_bytes:
                break
            position = end
            milliseconds = int(row["time"] * 1000)
            if row["event"] == "progress":
                metrics += [
                    Metric(f"training/{name}", float(value), milliseconds, row["images"])
                    for name, value in row.items()
                    if name not in JOURNAL_FIELDS_NOT_METRICS
                ]
            elif row["event"] in METRICS_OF_EVENTS:
                prefix, names = METRICS_OF_EVENTS[row["event"]]
                metrics += [
                    Metric(f"{prefix}/{name}", float(row[name]), milliseconds, row["images"])
                    for name in names
                    if row.get(name) is not None
                ]
            elif row["event"] == "grid" and row["images"] not in shipped_grids:
                shipped_grids.add(row["images"])
                self._log_grid(training_folder / row["file"], row["images"], milliseconds)
        for begin in range(0, len(metrics), METRICS_A_BATCH):
            self.client.log_batch(self.run_id, metrics[begin : begin + METRICS_A_BATCH])
        if position > start:
            self.set_tags({SHIPPED_TAG: f"{journal_start} {position}"})

    def _grid_steps(self) -> set[int]:
        """Steps whose grid MLflow has; their file names read `samples+step+<step>+…`."""
        files = self.client.list_artifacts(self.run_id, "images")
        steps = (re.search(r"samples\+step\+(\d+)\+", file.path) for file in files)
        return {int(step[1]) for step in steps if step}

    def _log_grid(self, path: Path, step: int, milliseconds: int) -> None:
        import PIL.Image

        with PIL.Image.open(path) as picture:
            self.client.log_image(
                self.run_id,
                picture.convert("RGB"),
                key="samples",
                step=step,
                timestamp=milliseconds,
                synchronous=True,
            )

    def begin(self, name: str | None = None) -> None:
        """Mark the run as under way, whatever became of it before, and name it if there is one."""
        self.client.update_run(self.run_id, status="RUNNING", name=name)

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end; one that failed or was interrupted did not."""
        return bool(self.client.get_run(self.run_id).info.status == "FINISHED")

    def end(self, status: RunStatus) -> None:
        """Mark the run as over."""
        self.client.set_terminated(self.run_id, status)


def open_run(
    pipeline: str,
    settings: PipelineSettings,
    key: str,
    tags: Mapping[str, Any],
    key_tag: str = KEY_TAG,
) -> TrackedRun:
    """The MLflow run of a training: found by its key, or made with its settings as parameters.

    Args:
        pipeline: Its name is the experiment's.
        settings: Recorded as parameters, by their dotted keys.
        key: Of the generator's stage: the same key is the same training.
        tags: What else to record, such as data hashes and the Dagster run.
        key_tag: The tag that has the key; another one for what is no generator's training.

    Raises:
        FoundryError: The tracking store cannot be used.
    """
    with tracking_errors():
        client = connect()
        experiment_id = _experiment(client, pipeline)
        found = client.search_runs([experiment_id], f"tags.`{key_tag}` = '{key}'", max_results=1)
        run = (
            found[0]
            if found
            else client.create_run(
                experiment_id, run_name=f"{pipeline} {key[:8]}", tags={key_tag: key}
            )
        )
        tracked = TrackedRun(client, run.info.run_id, experiment_id)
        if not run.data.params:
            tracked.set_tags({**_environment_tags(), **tags})
        _log_parameters(tracked, settings, run.data.params.keys())
    return tracked


@contextlib.contextmanager
def tracking_errors() -> Iterator[None]:
    """Turn what MLflow raises into one sentence.

    Raises:
        FoundryError: The tracking store or registry did not answer as it should, or a disk is full.
    """
    _before_import()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        if is_disk_full(error):
            raise FoundryError(describe_full_disk(home.home())) from error
        if is_forbidden(error):
            raise FoundryError(describe_forbidden(error)) from error
        raise FoundryError(
            f"MLflow at {home.tracking_uri()} cannot be used ({first_line(error)}); check "
            "MLFLOW_TRACKING_URI and that the server runs."
        ) from error


def server_problem(uri: str) -> str | None:
    """Why a tracking server does not answer, asked as MLflow asks it; None if it does."""
    _before_import()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    who = get_default_host_creds(uri.rstrip("/"))
    try:
        answer = http_request(who, "/health", "GET", max_retries=0, timeout=5)
    except (MlflowException, OSError) as error:
        return first_line(error)
    return None if answer.ok else f"status {answer.status_code}"


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise FoundryError(
            f"the experiment {name} was deleted in MLflow; bring it back with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}` and MLFLOW_TRACKING_URI set."
        )
    if found is not None:
        return str(found.experiment_id)
    location = None  # on a server it decides
    if home.tracks_in_database():
        location = (home.artifacts_folder() / name).as_uri()
    return str(
        client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_OF_TRAININGS)
    )


def _log_parameters(run: TrackedRun, settings: PipelineSettings, known: Collection[str]) -> None:
    """Record what is not known yet; MLflow takes a hundred at once, and may be cut off between."""
    from mlflow.entities import Param

    parameters = [
        Param(key, str(value))
        for key, value in flat_settings(without_places(settings)).items()
        # Whom to tell says nothing of a training.
        if not key.startswith("notifications.") and key != "operation.owners" and key not in known
    ]
    if parameters:
        run.client.log_batch(run.run_id, params=parameters)


def _environment_tags() -> dict[str, Any]:
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "dagster", "mlflow", "gan-foundry")
    packages = {f"environment.{name}": version(name) for name in names}
    return {
        **packages,
        "environment.python": platform.python_version(),
        "environment.platform": platform.platform(),
        "environment.host_processors": os.cpu_count(),
    }


def run_page_base() -> str:
    """Address of MLflow's user interface; those who follow it say themselves who they are."""
    uri = home.tracking_uri()
    if uri.startswith(("http://", "https://")):
        return without_user(uri.rstrip("/"))
    return without_user(os.environ.get(MLFLOW_UI_VARIABLE, DEFAULT_MLFLOW_UI))


def dagster_run_url(run_id: str) -> str:
    """A run's page in Dagster's user interface."""
    base = os.environ.get(DAGSTER_UI_VARIABLE, DEFAULT_DAGSTER_UI)
    return f"{without_user(base)}/runs/{run_id}"


def without_user(address: str) -> str:
    """An address without the user and password that it may hold."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
