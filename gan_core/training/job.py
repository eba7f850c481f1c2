"""The job file: all that a training process is told, and the files it leaves beside it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gan_core.config import NetworkSettings, fingerprint
from gan_core.disk import write_whole
from gan_core.training_settings import TrainingSettings

JOB_FILE = "job.json"
JOURNAL_FILE = "journal.jsonl"
CHECKPOINT_FILE = "checkpoint.safetensors"
LOCK_FILE = "training.lock"
OWNER_FILE = "training.pid"
WRITER_LOCK_FILE = "training.worker-0.lock"  # of the process that writes, where several train
GRID_FOLDER = "grids"
SNAPSHOT_FOLDER = "snapshots"
RELEASE_FOLDER = "generator"
DISCRIMINATOR_FILE = "discriminator.safetensors"  # of the released snapshot, to start others from
START_FOLDER = "start"  # the weights that the training begins with, if not random ones

# How the process ends, besides 0 and Python's 1 for a bug.
EXIT_USER_ERROR = 2
EXIT_OUT_OF_MEMORY = 71  # EX_OSERR; another attempt may find more of it
EXIT_DISK_FULL = 74  # EX_IOERR
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: starting the job again continues from its checkpoint

# Of a process that ended by SIGKILL.
KILLED = (
    "the training process was killed, by somebody or, where memory is short, by the system "
    "(training.batch_size decides how much it needs)"
)

# Raised when the same job would train another generator.
ENGINE_VERSION = 10

# Settings of the training that a job may have otherwise than the one it continues. What was chosen
# of device, precision and threads stands in the job itself.
SHARING = ("launcher", "processes")
NOT_IN_FINGERPRINT = ("kimg", *SHARING, "device", "precision", "threads")


def describe_owner(folder: Path, lock_file: str) -> str:
    """Who holds a lock of a training folder, for people."""
    if Path(lock_file).name != LOCK_FILE:
        return "a process that an earlier attempt left"
    owner = folder / OWNER_FILE
    return f"process {owner.read_text(encoding='utf-8') if owner.exists() else 'unknown'}"


class TrainingJob(BaseModel):
    """One training, with every choice made: nothing in it is left to the machine that runs it.

    Attributes:
        name: The pipeline's name.
        image_set: Folder of the prepared images.
        image_set_sha256: Their hash.
        device: `cpu` or `cuda`.
        precision: Of the networks' arithmetic; weights and optimisers are always fp32.
        threads: CPU threads of a process. The same number gives the same bits.
        feature_network: Folder of the network, and of the reference, that the distance is measured
            with while training; None to train unmeasured.
        feature_network_sha256: Its hash.
        start_sha256: Of the generator's weights in the folder's `START_FOLDER` that the training
            begins with; None to begin with random ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    image_set: Path
    image_set_sha256: str
    network: NetworkSettings
    training: TrainingSettings
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    threads: int
    feature_network: Path | None = None
    feature_network_sha256: str | None = None
    start_sha256: str | None = None

    @property
    def fingerprint(self) -> str:
        """Jobs with the same fingerprint may continue each other's training.

        They train the same generator, wherever their files lie and however many processes share
        the work; only the budget may differ.
        """
        values = self.model_dump(mode="json", exclude={"name", "image_set", "feature_network"})
        for key in NOT_IN_FINGERPRINT:
            del values["training"][key]
        return fingerprint([ENGINE_VERSION, values])

    @property
    def total_images(self) -> int:
        """The budget in images: whole batches."""
        batch = self.training.batch_size
        return max(1, round(self.training.kimg * 1000 / batch)) * batch

    def with_choices_of(self, other: "TrainingJob") -> "TrainingJob":
        """The job with what was decided for another, where the settings leave it open.

        That is the precision, the threads and which version was the champion to begin with.
        """
        training = self.training
        from_champion = {training.start_from, other.training.start_from} == {"champion"}
        return self.model_copy(
            update={
                "precision": other.precision if training.precision == "auto" else self.precision,
                "threads": other.threads if training.threads is None else self.threads,
                "start_sha256": other.start_sha256 if from_champion else self.start_sha256,
            }
        )

    @classmethod
    def read(cls, folder: Path) -> "TrainingJob":
        """The job of a training folder."""
        return cls.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))

    def write(self, folder: Path) -> None:
        """Put the job into a training folder."""
        write_whole(folder / JOB_FILE, self.model_dump_json(indent=2).encode())
