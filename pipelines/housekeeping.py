"""`gan-foundry gc`: what old runs left goes, from the disk, from Dagster's store and from MLflow.

First everything that must stay is found, then the rest is planned, then it is carried out. What
stays, for each pipeline: the newest versions, every version with an alias, the ledger's last two
champions, and of each asset what was materialized last; with their MLflow runs, their Dagster runs
and the folders of the stages that these made.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import dagster as dg
import filelock

from pipelines import home, ledger, registry, tracking
from pipelines.instance import open_quiet_instance
from pipelines.pipeline_files import pipeline_files
from pipelines.registry import RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPIONS_KEPT = 2
MOST_RUNS = 10_000  # of an asset; older ones wait for the next time
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
MEASURED_STAGE = "real_images"  # made beside the assets; its newest folders stay


@dataclass
class Plan:
    """What goes of one pipeline.

    Attributes:
        pipeline: Its name.
        busy: Why nothing is removed now, if so.
        versions: Of the registered model.
        logged_models: Their files in MLflow, by identifier.
        mlflow_runs: Identifiers.
        dagster_runs: Identifiers.
        folders: Of stages, and unfinished work.
        freed_bytes: On this machine's disk.
    """

    pipeline: str
    busy: str | None = None
    versions: list[int] = field(default_factory=list)
    logged_models: list[str] = field(default_factory=list)
    mlflow_runs: list[str] = field(default_factory=list)
    dagster_runs: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    freed_bytes: int = 0

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "folders": [str(folder) for folder in self.folders]}


@dataclass(frozen=True)
class Collection:
    """What went, or would.

    Attributes:
        plans: Of each pipeline.
        left: Why files of what was deleted in MLflow are still there, if they are.
    """

    plans: tuple[Plan, ...]
    left: str | None


def collect(keep: int, *, dry_run: bool) -> Collection:
    """Remove what old runs left, or only say what would go.

    Args:
        keep: Versions, and runs without a version, that stay of each pipeline, the newest.
        dry_run: Whether to leave everything.

    Raises:
        FoundryError: MLflow or Dagster's store cannot be used.
    """
    with tracking.tracking_errors(), open_quiet_instance() as instance:
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
        store = home.store_folder()
        stored = [path.name for path in store.iterdir() if path.is_dir()] if store.exists() else []
        runs = _dagster_runs(instance)
        plans = []
        for pipeline in sorted({*known, *stored, *pipeline_files()}):
            with registry.changing(pipeline):
                records = runs.get(pipeline, [])
                if any(run.status in UNFINISHED for run in records):
                    found = Plan(pipeline, "a run is under way; call gc again when it has ended")
                else:
                    registered = pipeline in known
                    found = _plan(client, instance, pipeline, keep, records, registered=registered)
                if not dry_run and found.busy is None:
                    _carry_out(client, instance, found)
                plans.append(found)
        left = _purge(client, plans) if client is not None and not dry_run else None
    return Collection(tuple(plans), left)


def kept_versions(
    client: "MlflowClient", model: str, versions: list[RegisteredVersion], keep: int
) -> set[int]:
    """The newest, those with an alias, and the ledger's last champions."""
    moves = reversed(ledger.read_moves(client, model))
    champions = dict.fromkeys(move.after.champion for move in moves if move.after.champion)
    return {
        *(version.version for version in versions[:keep]),
        *(version.version for version in versions if version.aliases),
        *list(champions)[:CHAMPIONS_KEPT],
    }


def _plan(
    client: "MlflowClient | None",
    instance: dg.DagsterInstance,
    pipeline: str,
    keep: int,
    records: list[dg.DagsterRun],
    *,
    registered: bool,
) -> Plan:
    plan = Plan(pipeline)
    versions: list[RegisteredVersion] = []
    kept: set[int] = set()
    if client is not None and registered:
        ledger.settle(client, pipeline)
        versions = registry.versions(client, pipeline)
        kept = kept_versions(client, pipeline, versions, keep)
    staying = [version for version in versions if version.version in kept]
    plan.versions = [version.version for version in versions if version.version not in kept]

    latest = _latest_materializations(instance, pipeline)
    wanted = {version.tags.get("dagster.run_id") for version in staying} | {
        event.run_id for event in latest
    }
    kept_runs = [run for index, run in enumerate(records) if index < keep or run.run_id in wanted]
    plan.dagster_runs = [run.run_id for run in records if run not in kept_runs]

    folders = {version.tags.get("generator_key") for version in staying}
    for run in kept_runs:
        folders |= _data_versions(instance, run.run_id)
    folders |= {_data_version(event) for event in latest}
    plan.folders = _old_folders(home.store_folder() / pipeline, folders, keep)

    if client is not None:
        _plan_mlflow(client, plan, staying, folders, keep)
    plan.freed_bytes = sum(_bytes(folder) for folder in plan.folders)
    plan.freed_bytes += sum(_bytes(folder) for folder in _artifact_folders(client, plan))
    return plan


def _plan_mlflow(
    client: "MlflowClient",
    plan: Plan,
    staying: list[RegisteredVersion],
    generator_keys: set[str | None],
    keep: int,
) -> None:
    """Runs that neither a version nor a folder needs, and files of versions that go."""
    experiment = client.get_experiment_by_name(plan.pipeline)
    if experiment is None:
        return
    needed = {version.run_id for version in staying}
    runs = _mlflow_runs(client, experiment.experiment_id)
    plan.mlflow_runs = [
        run.info.run_id
        for index, run in enumerate(runs)
        if index >= keep
        and run.info.run_id not in needed
        and run.data.tags.get(tracking.KEY_TAG) not in generator_keys
        and run.info.status != "RUNNING"
    ]
    sources = [version.source for version in staying]
    plan.logged_models = [
        model.model_id
        for model in _logged_models(client, experiment.experiment_id)
        if not any(model.model_id in source for source in sources)
    ]


def _carry_out(client: "MlflowClient | None", instance: dg.DagsterInstance, plan: Plan) -> None:
    """Versions first, then what they are made of: cut off, it leaves no version without files."""
    if client is not None:
        for version in plan.versions:
            client.delete_model_version(plan.pipeline, str(version))
        for model in plan.logged_models:
            client.delete_logged_model(model)
        for run in plan.mlflow_runs:
            client.delete_run(run)
    for folder in plan.folders:
        _remove(folder)
    for run in plan.dagster_runs:
        instance.delete_run(run)


def _purge(client: "MlflowClient", plans: list[Plan]) -> str | None:
    """Have MLflow remove the files of what was deleted; returns why not, if it does not."""
    from mlflow.entities import ViewType

    runs = [run for plan in plans if plan.busy is None for run in plan.mlflow_runs]
    models = [model for plan in plans if plan.busy is None for model in plan.logged_models]
    if not (runs or models):
        return None
    command = f"mlflow gc --backend-store-uri {home.tracking_uri()}"
    if home.tracking_uri() != home.local_tracking_uri():
        return "their files are on MLflow's server; call `mlflow gc` there"
    # It takes what it is told, and beside that whole experiments, and runs if it is told none.
    others = [found.name for found in client.search_experiments(view_type=ViewType.DELETED_ONLY)]
    if not runs:
        experiments = [found.experiment_id for found in client.search_experiments()]
        deleted = client.search_runs(experiments, run_view_type=ViewType.DELETED_ONLY)
        others += [run.info.run_id for run in deleted]
    if others:
        return (
            "their files stay in MLflow, because its collector would also remove what somebody "
            f"else deleted ({', '.join(others)}); restore that, or call `{command}`"
        )
    options = [("--run-ids", runs), ("--logged-model-ids", models)]
    told = [text for option, found in options if found for text in (option, ",".join(found))]
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), *told],
        env={**os.environ, "MLFLOW_TRACKING_URI": home.tracking_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"their files stay in MLflow, because its collector failed ({last}): `{command}`"
    return None


def _dagster_runs(instance: dg.DagsterInstance) -> dict[str, list[dg.DagsterRun]]:
    """Runs of each pipeline alone, newest first."""
    pipelines: dict[str, set[str]] = {}
    for key in instance.get_asset_keys():
        for record in instance.fetch_materializations(key, limit=MOST_RUNS).records:
            pipelines.setdefault(record.run_id, set()).add(key.path[0])
    found: dict[str, list[dg.DagsterRun]] = {}
    for run in instance.get_runs():
        of = pipelines.get(run.run_id, set()) | {key.path[0] for key in run.asset_selection or ()}
        of = of or {run.job_name.removesuffix("_aliases")}
        if len(of) == 1:
            found.setdefault(of.pop(), []).append(run)
    return found


def _latest_materializations(instance: dg.DagsterInstance, pipeline: str) -> list[dg.EventLogEntry]:
    keys = [key for key in instance.get_asset_keys() if key.path[0] == pipeline]
    events = (instance.get_latest_materialization_event(key) for key in keys)
    return [event for event in events if event is not None]


def _data_versions(instance: dg.DagsterInstance, run_id: str) -> set[str | None]:
    """Names of the folders that a run made or used."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return {_data_version(event) for event in instance.all_logs(run_id, of_type=kind)}


def _data_version(event: dg.EventLogEntry) -> str | None:
    found = event.asset_materialization
    return (found.tags or {}).get("dagster/data_version") if found else None


def _old_folders(store: Path, wanted: set[str | None], keep: int) -> list[Path]:
    """Folders of a pipeline's stages, finished or not, that nothing needs."""
    found: list[Path] = []
    for stage in sorted(store.iterdir()) if store.exists() else []:
        folders = [path for path in stage.iterdir() if path.is_dir()]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        if stage.name == MEASURED_STAGE:
            found += folders[keep:]
            continue
        unfinished = [path for path in folders if path.suffix == ".partial"]
        found += [path for path in folders if path.name not in wanted and path not in unfinished]
        # The newest unfinished work may yet be continued.
        found += unfinished[keep:]
    return found


def _remove(folder: Path) -> None:
    """Remove a stage's folder at once and whole; one that somebody works in stays."""
    lock = folder.with_name(folder.name.removesuffix(".partial") + ".lock")
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
        going = folder.with_name(f"{folder.name}.removed")
        folder.rename(going)
        shutil.rmtree(going)


def _artifact_folders(client: "MlflowClient | None", plan: Plan) -> Iterator[Path]:
    """Where MLflow keeps the files of what goes, as far as that is on this machine's disk."""
    if client is None:
        return
    for run in plan.mlflow_runs:
        yield from _local(client.get_run(run).info.artifact_uri)
    for model in plan.logged_models:
        yield from _local(client.get_logged_model(model).artifact_location)


def _local(uri: str | None) -> Iterator[Path]:
    parsed = urlparse(uri or "")
    if parsed.scheme in ("", "file") and parsed.path:
        yield Path(unquote(parsed.path))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _mlflow_runs(client: "MlflowClient", experiment_id: str) -> "list[Run]":
    """Newest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], order_by=["start_time DESC"], page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _logged_models(client: "MlflowClient", experiment_id: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_logged_models([experiment_id], page_token=token)
        found += page
        token = page.token
        if not token:
            return found
