"""The program `gan-foundry`, which is also installed where the command line's packages are not."""

import gc
import io
import os
import sys
import tempfile
from pathlib import Path

from gan_core.idle_threads import give_way_to_other_programs

# Of new objects, before Python looks for garbage: Dagster, MLflow and PyTorch make many that stay.
OBJECTS_BETWEEN_COLLECTIONS = 50_000


def _let_all_be_shown() -> None:
    """Print ? for what the terminal's alphabet lacks, and nothing to an output that is closed."""
    if sys.stdout is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.set_inheritable(1, True)  # also where it was 1 at once
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def have_a_home() -> None:
    """Name one where there is none, as of a container's user: MLflow asks when it is imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def main() -> None:
    """Run the command line; without its packages, say what brings them and exit with status 2."""
    _let_all_be_shown()
    have_a_home()
    give_way_to_other_programs()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from pipelines.cli import main as command_line
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("gan_core", "pipelines"):
            raise
        sys.stderr.write(
            f"error: the command line needs {error.name}, which is not installed; install this "
            "package with its extra: pip install --editable '.[pipelines]'\n"
        )
        sys.exit(2)
    command_line()
