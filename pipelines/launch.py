"""How a training job is started, followed and stopped on this machine.

The training is a process of its own: it may crash without the orchestrator, it returns its memory,
and another launcher can start the same job elsewhere. It knows this module only as its parent.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

import dagster as dg
import filelock
from pydantic import ValidationError

from gan_core.config import PipelineSettings
from gan_core.device import choose_device, choose_precision
from gan_core.disk import sync_folder, write_whole
from gan_core.errors import AlreadyTrainingError, ForeignCheckpointError, FoundryError
from gan_core.training.job import (
    CHECKPOINT_FILE,
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_MEMORY,
    EXIT_USER_ERROR,
    GRID_FOLDER,
    JOB_FILE,
    JOURNAL_FILE,
    KILLED,
    LOCK_FILE,
    SHARING,
    SNAPSHOT_FOLDER,
    START_FOLDER,
    WRITER_LOCK_FILE,
    TrainingJob,
    describe_owner,
)
from gan_core.training.journal import read_journal
from pipelines.store import describe_full_disk

LOG_FILE = "trainer.log"
POLL_SECONDS = 0.2
STOP_SECONDS = 10.0


class TrainingCrashedError(Exception):
    """The training process ended in a way that the user cannot mend."""


class JobInputs(TypedDict):
    """What a job is made of beside the settings, as `TrainingJob` has it."""

    image_set: Path
    image_set_sha256: str
    feature_network: NotRequired[Path | None]
    feature_network_sha256: NotRequired[str | None]
    start_sha256: NotRequired[str | None]


def new_job(name: str, settings: PipelineSettings, **inputs: Unpack[JobInputs]) -> TrainingJob:
    """The job of a training, with all decided that the settings leave to the machine."""
    device = choose_device(settings.training.device)
    return TrainingJob(
        name=name,
        network=settings.network,
        training=settings.training,
        device=device,
        precision=choose_precision(settings.training.precision, device),
        threads=settings.training.threads
        or max(1, len(os.sched_getaffinity(0)) // settings.training.processes),
        **inputs,
    )


def write_job(
    folder: Path, name: str, settings: PipelineSettings, **inputs: Unpack[JobInputs]
) -> TrainingJob:
    """Write the job of a training folder, unless an earlier attempt wrote it.

    What is left to the machine (`auto`) is decided once, so that a resumed job stays the same. How
    many processes share the work may change.
    """
    if (folder / JOB_FILE).exists():
        # The data may have moved with the store since; what is trained has not changed.
        job = TrainingJob.read(folder)
        sharing = {key: getattr(settings.training, key) for key in SHARING}
        job = job.model_copy(
            update={
                "image_set": inputs["image_set"],
                "feature_network": inputs.get("feature_network"),
                "training": job.training.model_copy(update=sharing),
            }
        )
        if job.device == "cuda" and settings.training.device == "auto":
            _require_gpu(folder)
        choose_device(job.device)
    else:
        job = new_job(name, settings, **inputs)
    job.write(folder)
    return job


def _require_gpu(folder: Path) -> None:
    if choose_device("auto") == "cpu":
        raise FoundryError(
            f"the training in {folder} began on a GPU, and torch sees none on this machine now; "
            "bring it back, or set training.device to cpu to train anew."
        )


def continue_smaller_budget(
    job: TrainingJob, folder: Path
) -> tuple[TrainingJob, TrainingJob] | None:
    """Begin a training where a finished one of the same job with a smaller budget ended.

    What the settings leave to the machine stays as it was there.

    Args:
        job: With the larger budget.
        folder: Its training folder, beside those of others; left alone if it has a checkpoint.

    Returns:
        The job as it was written anew, and the one that it continues, if there is one: that whose
        settings leave the same to the machine, and among those the one with the largest budget.
    """
    from gan_core.training.checkpoint import read_progress

    if (folder / CHECKPOINT_FILE).exists():
        return None
    found: list[tuple[TrainingJob, TrainingJob, Path]] = []
    for other_folder in sorted(folder.parent.iterdir()):
        if other_folder.suffix:
            continue  # one that is not finished
        try:
            progress = read_progress(other_folder / CHECKPOINT_FILE)
            if progress is None:
                continue
            other = TrainingJob.read(other_folder)
        except (ValidationError, ForeignCheckpointError):
            continue  # written by another version of this program
        same = job.with_choices_of(other)
        # As the checkpoint has it: another version of this program may have trained the same job.
        if progress.job_fingerprint == same.fingerprint and other.total_images < job.total_images:
            found.append((same, other, other_folder))
    if not found:
        return None

    def suitability(candidate: tuple[TrainingJob, TrainingJob, Path]) -> tuple[int, int, int]:
        _, other, _ = candidate
        said = ("precision", "threads")
        alike = sum(getattr(other.training, k) == getattr(job.training, k) for k in said)
        chosen = sum(getattr(other, k) == getattr(job, k) for k in said)
        return alike, other.total_images, chosen

    same, other, other_folder = max(found, key=suitability)
    _copy_start(other_folder, folder)
    same.write(folder)
    copied = [
        *(other_folder / GRID_FOLDER).glob("*"),
        *(other_folder / SNAPSHOT_FOLDER).glob("*"),
        other_folder / JOURNAL_FILE,
        other_folder / CHECKPOINT_FILE,  # last: where it stands, all that it refers to does
    ]
    for path in copied:
        target = folder / path.relative_to(other_folder)
        target.parent.mkdir(exist_ok=True)
        write_whole(target, path.read_bytes())
    return same, other


def _copy_start(source: Path, folder: Path) -> None:
    """Let a training begin with what another began with."""
    start = folder / START_FOLDER
    partial = start.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if (source / START_FOLDER).exists():
        shutil.copytree(source / START_FOLDER, partial)
    shutil.rmtree(start, ignore_errors=True)
    if partial.exists():
        sync_folder(partial)
        partial.rename(start)


def run_job(folder: Path, on_rows: Callable[[list[dict[str, Any]]], None]) -> None:
    """Run a training job to its end in a process of its own, following its journal.

    Args:
        folder: The training folder with its job file.
        on_rows: Called with new journal lines, several times a second while there are any.

    Raises:
        FoundryError: The job could not be done for a reason that the user can mend, or it was
            interrupted from outside (running again continues).
        AlreadyTrainingError: A trainer of an earlier attempt still runs.
        DagsterExecutionInterruptedError: SIGINT or SIGTERM came, or the run whose step this is was
            killed; the trainer left a checkpoint.
        TrainingCrashedError: It crashed; the error holds the end of its log.
    """
    command = [sys.executable, "-m", "gan_core.training", str(folder), "--parent", str(os.getpid())]
    log = folder / LOG_FILE
    position = _cut_journal(folder)
    with _noting_signals() as signals, log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal is for us, and we stop the trainer
        )
        try:
            while not signals and not is_orphaned():
                ended = process.poll() is not None
                position = _follow(folder / JOURNAL_FILE, position, on_rows)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
        finally:
            _stop(process)
    if signals or is_orphaned():
        raise dg.DagsterExecutionInterruptedError
    if process.returncode != 0:
        _raise_failure(process.returncode, folder, log)


def is_orphaned() -> bool:
    """Whether this is a step's process, and that of its run is gone."""
    run = multiprocessing.parent_process()
    return run is not None and not run.is_alive()


@contextlib.contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being interrupted by them.

    An interruption that is raised wherever the program just is can be lost, in a destructor for
    example. A second signal is passed on at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # signals reach the main thread alone
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _cut_journal(folder: Path) -> int:
    """Cut off what an earlier attempt wrote after its checkpoint; returns the journal's length.

    The trainer would cut it too, but then a follower might already have read beyond.

    Raises:
        AlreadyTrainingError: A trainer of an earlier attempt still runs, and does not end.
        ForeignCheckpointError: The checkpoint cannot be read.
    """
    from gan_core.training.checkpoint import read_progress

    try:
        with (
            filelock.FileLock(folder / LOCK_FILE, timeout=STOP_SECONDS),
            # A process of several may have outlived the one that started it.
            filelock.FileLock(folder / WRITER_LOCK_FILE, timeout=STOP_SECONDS),
        ):
            progress = read_progress(folder / CHECKPOINT_FILE)
            length = progress.journal_bytes if progress else 0
            journal = folder / JOURNAL_FILE
            if journal.exists() and journal.stat().st_size > length:
                os.truncate(journal, length)  # which would fill up one that is too short
            return length
    except filelock.Timeout as error:
        raise AlreadyTrainingError(
            f"the training in {folder} is already run by "
            f"{describe_owner(folder, error.lock_file)}; wait for it or stop it."
        ) from None


def _follow(journal: Path, position: int, on_rows: Callable[[list[dict[str, Any]]], None]) -> int:
    end, rows = position, []
    for end, row in read_journal(journal, position):  # noqa: B007  # the last end is the result
        rows.append(row)
    if rows:
        on_rows(rows)
    return end


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process if it still runs: first with time for a checkpoint."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _raise_failure(status: int, folder: Path, log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if status == EXIT_USER_ERROR and errors:
        raise FoundryError(errors[-1])
    if status == EXIT_DISK_FULL:
        raise FoundryError(describe_full_disk(folder))
    # A second signal meets an interpreter that is on its way out, and kills it.
    if status in (EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGINT):
        raise FoundryError(
            f"the training in {folder.name} was interrupted; run the pipeline again to continue "
            "it from its checkpoint."
        )
    if status == EXIT_OUT_OF_MEMORY and errors:
        raise TrainingCrashedError(errors[-1])
    end = "\n".join(lines[-20:])
    if status == -signal.SIGKILL:
        raise TrainingCrashedError(f"{KILLED}; its log ends:\n{end}")
    raise TrainingCrashedError(
        f"the training process ended with status {status}; its log ends:\n{end}"
    )
