"""`gan-foundry gc`: what old runs left goes, from the disk, from Dagster's store and from MLflow.

First everything that must stay is found, then the rest is planned, then it is carried out. What
stays, for each pipeline: the newest versions, every version with an alias or a veto, the ledger's
last two champions, whatever this program did not make, and of each asset what was materialized
last; with their MLflow runs, their Dagster runs and the folders of the stages that these made.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import dagster as dg
import filelock

from gan_core.errors import FoundryError
from pipelines import home, ledger, registry, tracking
from pipelines.instance import open_quiet_instance
from pipelines.materializations import data_version
from pipelines.pipeline_files import load_pipeline, pipeline_files
from pipelines.registry import RegisteredVersion
from pipelines.run_files import cannot_remove, files_of_runs, remove_files_of_deleted_runs
from pipelines.run_processes import end_dead_runs
from pipelines.sweep import place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPIONS_KEPT = 2
LOCK_FILE = "gc.lock"
PENDING_FILE = "gc_pending.json"  # what was deleted in MLflow and has its files still
MOST_RUNS = 10_000  # of an asset; older ones wait for the next time
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
REMOVED_SUFFIX = ".removed"  # of a folder whose removal was cut off
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
        folders: Of stages, unfinished work, and interrupted reproductions.
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
        FoundryError: MLflow or Dagster's store cannot be used, or a pipeline's file has a mistake.
    """
    for pipeline in pipeline_files():
        load_pipeline(pipeline)  # a mistake in one is told before anything is removed
    with _alone(), tracking.tracking_errors(), open_quiet_instance() as instance:
        end_dead_runs(instance)
        client = registry.connect_for_reading()
        store = home.store_folder()
        stored = [path.name for path in store.iterdir() if path.is_dir()] if store.exists() else []
        plans = []
        for pipeline in sorted({*stored, *pipeline_files()}):
            with registry.changing(pipeline):
                if client is not None and not dry_run and pipeline in registry.models(client):
                    ledger.settle(client, pipeline)
                found = _plan(client, instance, pipeline, keep)
                plans.append(found)
                if not dry_run and not found.busy:
                    _carry_out(client, instance, found)
        if not dry_run:
            remove_files_of_deleted_runs(instance)
        left = _purge(client) if client is not None and not dry_run else None
    return Collection(tuple(plans), left)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let no other process of this home collect meanwhile."""
    lock = filelock.FileLock(home.prepare_home() / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise FoundryError("another gc is under way in this home; wait for it.") from error
    try:
        yield
    finally:
        lock.release()


def kept_versions(
    client: "MlflowClient", model: str, versions: list[RegisteredVersion], keep: int
) -> set[int]:
    """The newest, those with an alias, the ledger's last champions, and what is not ours to judge.

    A vetoed version stays: it is what keeps the same weights from coming back. So does one that a
    training of these began with, because they could not be reproduced without it, and one that the
    pipeline's next training will begin with.

    Raises:
        FoundryError: What the next training begins with cannot be read.
    """
    moves = reversed(ledger.read_moves(client, model))
    champions = dict.fromkeys(move.after.champion for move in moves if move.after.champion)
    kept = {
        *(version.version for version in versions[:keep]),
        *(version.version for version in versions if version.aliases),
        *ledger.settled_aliases(client, model).versions,
        *(version.version for version in versions if registry.VETOED_TAG in version.tags),
        *(version.version for version in versions if registry.WEIGHTS_TAG not in version.tags),
        *list(champions)[:CHAMPIONS_KEPT],
    }
    if model in pipeline_files() and isinstance(
        start := load_pipeline(model).training.start_from, int
    ):
        kept.add(start)
    staying = [version for version in versions if version.version in kept]
    return kept | {int(v.tags[registry.START_TAG]) for v in staying if registry.START_TAG in v.tags}


def _plan(
    client: "MlflowClient | None", instance: dg.DagsterInstance, pipeline: str, keep: int
) -> Plan:
    plan = Plan(pipeline)
    records = _dagster_runs(instance, pipeline)
    plan.busy = _work_under_way(pipeline, records)
    if plan.busy:
        return plan
    versions: list[RegisteredVersion] = []
    kept: set[int] = set()
    if client is not None and pipeline in registry.models(client):
        versions = registry.versions(client, pipeline)
        kept = kept_versions(client, pipeline, versions, keep)
    staying = [version for version in versions if version.version in kept]
    plan.versions = [version.version for version in versions if version.version not in kept]

    latest = _latest_materializations(instance, pipeline)
    wanted = {version.tags.get("dagster.run_id") for version in staying} | {
        event.run_id for event in latest
    }
    kept_runs = [run for index, run in enumerate(records) if index < keep or run.run_id in wanted]
    shared = {run.run_id for run in records if _pipelines_of(instance, run) != {pipeline}}
    plan.dagster_runs = [
        run.run_id for run in records if run not in kept_runs and run.run_id not in shared
    ]

    folders = {version.tags.get("generator_key") for version in staying}
    for run in kept_runs:
        folders |= _data_versions(instance, run.run_id)
    folders |= {data_version(event) for event in latest}
    plan.folders = _old_folders(home.store_folder() / pipeline, folders, keep)
    plan.folders += _old_reproductions(pipeline, {version.version for version in staying})

    if client is not None:
        _plan_mlflow(client, plan, staying, folders, keep)
    run_files = files_of_runs(instance)
    going = [
        *plan.folders,
        *_artifact_folders(client, plan),
        *(path for run in plan.dagster_runs for path in run_files.get(run, ())),
    ]
    plan.freed_bytes = sum(_bytes(path) for path in going)
    return plan


def _work_under_way(pipeline: str, records: list[dg.DagsterRun]) -> str | None:
    """Why nothing of a pipeline can go now: its images may be in use; None if they are not."""
    if any(run.status in UNFINISHED for run in records):
        return "a run is under way; call gc again when it has ended"
    if place.is_under_way(pipeline):
        return "a sweep is under way; call gc again when it has ended"
    return None


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
    # Nothing is under way in this home: what runs still was killed. A server has others' runs, too.
    of_this_home = home.tracking_uri() == home.local_tracking_uri()
    runs = _mlflow_runs(client, experiment.experiment_id)
    ours = [run for run in runs if tracking.KEY_TAG in run.data.tags]
    plan.mlflow_runs = [
        run.info.run_id
        for index, run in enumerate(ours)
        if index >= keep
        and run.info.run_id not in needed
        and run.data.tags[tracking.KEY_TAG] not in generator_keys
        and (run.info.status != "RUNNING" or of_this_home)
    ]
    run_ids = {run.info.run_id for run in ours}
    served = _served_files(client, plan)
    plan.logged_models = [
        model.model_id
        for model in _logged_models(client, experiment.experiment_id)
        if model.source_run_id in run_ids
        and not any(model.artifact_location.rstrip("/") in place for place in served)
    ]


def _served_files(client: "MlflowClient", plan: Plan) -> list[str]:
    """Where the files lie of every version that stays, of whatever model: one may be a copy."""
    return [
        client.get_model_version_download_uri(model, str(version.version))
        for model in registry.models(client)
        for version in registry.versions(client, model)
        if model != plan.pipeline or version.version not in plan.versions
    ]


def _carry_out(client: "MlflowClient | None", instance: dg.DagsterInstance, plan: Plan) -> None:
    """Versions first, then what they are made of: cut off, it leaves no version without files."""
    plan.busy = _work_under_way(plan.pipeline, _dagster_runs(instance, plan.pipeline))
    if plan.busy:
        return
    if client is not None:
        for version in plan.versions:
            client.delete_model_version(plan.pipeline, str(version))
        _write_pending(plan.mlflow_runs, plan.logged_models)
        for model in plan.logged_models:
            client.delete_logged_model(model)
        for run in plan.mlflow_runs:
            client.delete_run(run)
    for folder in plan.folders:
        _remove(folder)
    for run in plan.dagster_runs:
        instance.delete_run(run)


def _write_pending(runs: list[str], models: list[str]) -> None:
    """Note what was deleted in MLflow and has its files still, beside what was noted before."""
    before = _read_pending()
    noted = {
        "runs": sorted({*before["runs"], *runs}),
        "models": sorted({*before["models"], *models}),
    }
    partial = (home.home() / PENDING_FILE).with_suffix(".partial")
    partial.write_text(json.dumps(noted), encoding="utf-8")
    partial.replace(home.home() / PENDING_FILE)


def _read_pending() -> dict[str, list[str]]:
    path = home.home() / PENDING_FILE
    return (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"runs": [], "models": []}
    )


def _purge(client: "MlflowClient") -> str | None:
    """Have MLflow remove the files of what was deleted; returns why not, if it does not."""
    pending = _read_pending()
    if not (pending["runs"] or pending["models"]):
        return None
    if home.tracking_uri() != home.local_tracking_uri():
        (home.home() / PENDING_FILE).unlink()
        return "their files are on MLflow's server; call `mlflow gc` there"
    pending = _still_there(pending)
    # Of each kind that its collector is not told, it takes all that anybody ever deleted. So it is
    # told of each kind something: an experiment, a run and a model that were made to be deleted.
    experiment = client.create_experiment(f"gan-foundry gc {uuid.uuid4()}")
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name="nothing").model_id
    client.delete_logged_model(model)
    client.delete_run(run)
    client.delete_experiment(experiment)
    options = {
        "--run-ids": [run, *pending["runs"]],
        "--logged-model-ids": [model, *pending["models"]],
        "--experiment-ids": [experiment],
        "--backend-store-uri": [home.tracking_uri()],
        "--tracking-uri": [home.tracking_uri()],
    }
    told = [text for option, found in options.items() for text in (option, ",".join(found))]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", *told],
        env={**os.environ, "MLFLOW_TRACKING_URI": home.tracking_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"their files stay in MLflow until the next gc, because its collector failed: {last}"
    (home.home() / PENDING_FILE).unlink()
    return None


def _still_there(pending: dict[str, list[str]]) -> dict[str, list[str]]:
    """Of what was noted, what is deleted and has its files still: at others it would stop.

    A collector that was cut off had removed some; a gc that was, had not deleted some yet.
    """
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(home.tracking_uri(), home.mlflow_folder().as_uri())

    def is_there(find: Callable[[str], Any], name: str) -> bool:
        try:
            find(name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def find_model(name: str) -> Any:
        return store.get_logged_model(name, allow_deleted=True)

    def is_deleted_run(name: str) -> bool:
        there = is_there(store.get_run, name)
        return there and store.get_run(name).info.lifecycle_stage == LifecycleStage.DELETED

    return {
        "runs": [name for name in pending["runs"] if is_deleted_run(name)],
        "models": [
            name
            for name in pending["models"]
            if is_there(find_model, name) and not is_there(store.get_logged_model, name)
        ],
    }


def _dagster_runs(instance: dg.DagsterInstance, pipeline: str) -> list[dg.DagsterRun]:
    """Runs that touch a pipeline, newest first."""
    keys = [key for key in instance.get_asset_keys() if key.path[0] == pipeline]
    touching = {
        record.run_id
        for key in keys
        for record in instance.fetch_materializations(key, limit=MOST_RUNS).records
    }
    return [
        run for run in instance.get_runs() if run.run_id in touching or pipeline in _selected(run)
    ]


def _selected(run: dg.DagsterRun) -> set[str]:
    """The pipelines that a run was asked for."""
    chosen = {key.path[0] for key in run.asset_selection or ()}
    return chosen or {run.job_name.removesuffix("_aliases")}


def _pipelines_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The pipelines that a run touched."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = instance.all_logs(run.run_id, of_type=kind)
    found = (event.asset_materialization for event in events)
    made = {materialization.asset_key.path[0] for materialization in found if materialization}
    return made | {key.path[0] for key in run.asset_selection or ()} or _selected(run)


def _latest_materializations(instance: dg.DagsterInstance, pipeline: str) -> list[dg.EventLogEntry]:
    keys = [key for key in instance.get_asset_keys() if key.path[0] == pipeline]
    events = (instance.get_latest_materialization_event(key) for key in keys)
    return [event for event in events if event is not None]


def _data_versions(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """Names of the folders that a run made or used."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return {data_version(event) for event in instance.all_logs(run_id, of_type=kind)}


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


def _old_reproductions(model: str, staying: set[int]) -> list[Path]:
    """Folders of interrupted reproductions that cannot go on: their versions are gone, or go."""
    found: list[Path] = []
    for path in sorted(home.reproduction_folder(model, 0).parent.glob(f"{model}-*/")):
        version = path.name.removeprefix(f"{model}-").removesuffix(REMOVED_SUFFIX)
        if version.isdecimal() and int(version) not in staying:
            found.append(path)
    return found


def _remove(folder: Path) -> None:
    """Remove a folder of work at once and whole; one that somebody works in stays."""
    lock = folder.with_name(folder.name.removesuffix(".partial") + ".lock")
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
        going = folder.with_name(f"{folder.name}{REMOVED_SUFFIX}")
        try:
            if going.exists():  # of a call that was cut off
                shutil.rmtree(going)
            folder.rename(going)
            shutil.rmtree(going)
        except OSError as error:
            raise cannot_remove(folder, error) from error


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


def _bytes(path: Path) -> int:
    """Of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


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
