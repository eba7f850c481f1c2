"""The files that Dagster's local storage has of each run, and leaves when the run is deleted."""

import shutil
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.utils import is_valid_run_id

from gan_core.errors import FoundryError


def files_of_runs(instance: dg.DagsterInstance) -> dict[str, list[Path]]:
    """Of each run, by its identifier: its events, and what its steps printed."""
    events = instance.event_log_storage
    if not isinstance(events, SqliteEventLogStorage):
        return {}
    found: dict[str, list[Path]] = {}
    for folder in (Path(events.path_for_shard("")).parent, Path(instance.storage_directory())):
        for path in folder.iterdir() if folder.exists() else ():
            run = path.name.partition(".")[0]
            if is_valid_run_id(run):
                found.setdefault(run, []).append(path)
    return found


def remove_files_of_deleted_runs(instance: dg.DagsterInstance) -> None:
    """Remove what is left of runs that are not there any more, whoever deleted them.

    Raises:
        FoundryError: A file cannot be removed.
    """
    files = files_of_runs(instance)
    there = set(instance.get_run_ids())  # asked second, so that a run that begins now is among them
    for path in (path for run, paths in files.items() if run not in there for path in paths):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_remove(path, error) from error


def cannot_remove(path: Path, error: OSError) -> FoundryError:
    """What is told of a file or folder that cannot be removed."""
    return FoundryError(
        f"{path} cannot be removed ({error.strerror}); remove it, and call gc again."
    )
