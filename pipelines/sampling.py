"""`gan-foundry sample`: images from a registered model, written to a folder."""

import os
import shutil
from pathlib import Path
from typing import Any

from gan_core.errors import FoundryError
from pipelines import registry, tracking


def sample_model(model: str, count: int, seed: int, truncation: float, out: Path) -> dict[str, Any]:
    """Write `count` generated images, a grid and an archive.

    Args:
        model: A registered name (its champion), `name@alias`, `name/version`, a `models:/` address
            or the path of a folder with a
            released generator, such as `./generator`.
        count: How many images.
        seed: Of the latents.
        truncation: Above 0, at most 1.
        out: A folder that is new or empty.

    Raises:
        FoundryError: There is no such model, an argument is out of range, or the folder is in use.
    """
    from gan_core.generator import check_sampling_arguments, load_generator
    from gan_core.samples import ARCHIVE_FILE, GRID_FILE, export_samples

    check_sampling_arguments(count, seed, truncation)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FoundryError(f"--out {out} exists and is not an empty folder; name a new one.")
    generator = load_generator(model if _is_folder(model) else _registered(model))
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        export_samples(generator, count, seed, truncation, partial)
        partial.replace(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise FoundryError(
            f"--out {out} cannot be written ({error.strerror}); name another folder."
        ) from error
    grid, archive = (str((out / name).resolve()) for name in (GRID_FILE, ARCHIVE_FILE))
    return {"model": model, "count": count, "seed": seed, "grid": grid, "archive": archive}


def _is_folder(model: str) -> bool:
    """A name without a separator is a registered model, whatever lies in the working folder."""
    return os.sep in model and Path(model).is_dir()


def _registered(model: str) -> str:
    with tracking.tracking_errors():
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
    address = model.removeprefix("models:/")
    name = address.partition("@")[0].partition("/")[0]
    if name not in known:
        raise registry.no_such_model(name, known)
    return f"models:/{address}" if address != name else f"models:/{name}@champion"
