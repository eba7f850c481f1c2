"""The job file: all that a training process is told, and the files it leaves beside it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gan_core.config import NetworkSettings, TrainingSettings, fingerprint

JOB_FILE = "job.json"
JOURNAL_FILE = "journal.jsonl"
CHECKPOINT_FILE = "checkpoint.safetensors"
RESULT_FILE = "result.json"
LOCK_FILE = "training.lock"
OWNER_FILE = "training.pid"
GRID_FOLDER = "grids"
RELEASE_FOLDER = "generator"

# How the process ends, besides 0 and Python's 1 for a bug.
EXIT_USER_ERROR = 2
EXIT_DISK_FULL = 74  # EX_IOERR
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: a checkpoint was written; starting the job again continues


class TrainingJob(BaseModel):
    """One training, with every choice made: nothing in it is left to the machine that runs it.

    Attributes:
        name: The pipeline's name.
        image_set: Folder of the prepared images.
        image_set_sha256: Their hash.
        device: `cpu` or `cuda`.
        precision: Of the networks' arithmetic; weights and optimisers are always fp32.
        threads: CPU threads. The same number gives the same bits.
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

    @property
    def fingerprint(self) -> str:
        """Jobs with the same fingerprint train the same generator, wherever their files lie."""
        return fingerprint(self.model_dump(mode="json", exclude={"name", "image_set"}))

    @property
    def total_images(self) -> int:
        """The budget in images: whole batches."""
        batch = self.training.batch_size
        return max(1, round(self.training.kimg * 1000 / batch)) * batch

    @classmethod
    def read(cls, folder: Path) -> "TrainingJob":
        """The job of a training folder."""
        return cls.model_validate_json((folder / JOB_FILE).read_text())

    def write(self, folder: Path) -> None:
        """Put the job into a training folder."""
        (folder / JOB_FILE).write_text(self.model_dump_json(indent=2))
