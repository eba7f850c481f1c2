"""`gan-foundry sample` and `export`: files made with a registered model."""

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import FoundryError
from pipelines import registry, tracking

if TYPE_CHECKING:
    from gan_core.generator import ReleasedGenerator


@dataclass(frozen=True)
class OpenedModel:
    """A generator, and which one it is.

    Attributes:
        name: Of the registered model, or the folder's path.
        version: Of the registered model; None of a folder.
    """

    generator: "ReleasedGenerator"
    name: str
    version: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        return self.name if self.version is None else f"{self.name} version {self.version}"


def sample_model(
    model: str, count: int, seed: int, truncation: float, out: Path, stops: int = 0
) -> dict[str, Any]:
    """Write `count` generated images, a grid and an archive.

    Args:
        model: A registered name (its champion), `name@alias`, `name/version`, a `models:/` address
            or the path of a folder with a released generator, such as `./generator`.
        count: How many images.
        seed: Of the latents.
        truncation: Above 0, at most 1.
        out: A folder that is new or empty.
        stops: Latents that an animation walks through; 0 for none.

    Raises:
        FoundryError: There is no such model, an argument is out of range, or the folder is in use.
    """
    from gan_core.generator import check_sampling_arguments
    from gan_core.samples import (
        ANIMATION_FILE,
        ARCHIVE_FILE,
        GRID_FILE,
        check_stops,
        export_animation,
        export_samples,
    )

    out = out.resolve()
    check_sampling_arguments(count, seed, truncation)
    if stops:
        check_stops(stops)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FoundryError(f"--out {out} exists and is not an empty folder; name a new one.")
    if out == Path.cwd():  # what is written takes its place
        raise FoundryError(f"--out {out} is the working folder; name a new one.")
    opened = open_model(model)
    generator = opened.generator
    # A folder that is there may be one that cannot be replaced, such as a container's volume.
    inside = out.exists()
    partial = _own_name_beside(out / "images" if inside else out)
    try:
        partial.mkdir(parents=True)
        export_samples(generator, count, seed, truncation, partial)
        if stops:
            export_animation(generator, stops, seed, truncation, partial / ANIMATION_FILE)
        if inside:
            for path in partial.iterdir():
                path.replace(out / path.name)
        else:
            partial.replace(out)
    except OSError as error:
        raise FoundryError(
            f"--out {out} cannot be written ({error.strerror}); name another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = {"grid": GRID_FILE, "archive": ARCHIVE_FILE}
    if stops:
        files["interpolation"] = ANIMATION_FILE
    places = {name: str((out / file).resolve()) for name, file in files.items()}
    which = {"model": opened.name, "version": opened.version}
    return {**which, "count": count, "seed": seed, **places}


def export_model(model: str, path: Path) -> dict[str, Any]:
    """Write a generator as ONNX.

    Args:
        model: As for `sample_model`.
        path: A file that is not there yet.

    Raises:
        FoundryError: There is no such model, the file is there or cannot be written, or what was
            written computes other images.
    """
    from gan_core.onnx_export import export_onnx

    if path.exists():
        raise FoundryError(f"--onnx {path} exists; name a new file.")
    opened = open_model(model)
    generator = opened.generator
    path = path.resolve()
    partial = _own_name_beside(path)
    try:
        try:
            difference = export_onnx(generator, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise FoundryError(
            f"--onnx {path} cannot be written ({error.strerror}); name another file."
        ) from error
    inputs = ["latents", "labels"] if generator.config.classes else ["latents"]
    return {
        "model": opened.name,
        "version": opened.version,
        "onnx": str(path.resolve()),
        "inputs": inputs,
        "largest_difference": difference,
    }


def _own_name_beside(path: Path) -> Path:
    """A name that nobody else has: what is begun there is removed without asking."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")


def open_model(model: str) -> OpenedModel:
    """A generator by what people call it, as for `sample_model`.

    A name without a separator is a registered model, whatever lies in the working folder.

    Raises:
        FoundryError: There is no such model.
    """
    from gan_core.generator import load_generator

    if os.sep in model and not model.startswith("models:/"):
        if Path(model).is_dir():
            return OpenedModel(load_generator(model), model)
        if not re.fullmatch(r"[^/]+/\d+", model):  # else a version: digits/2
            raise FoundryError(
                f"{model} is no folder; give the folder of a released generator, or the name of a "
                "registered model."
            )
    version = _registered(model)
    # By its number: an alias may move while the files come.
    return OpenedModel(load_generator(version.uri), version.model, version.version)


def _registered(model: str) -> registry.RegisteredVersion:
    """The version that `name`, `name@alias`, `name/version` or a `models:/` address means."""
    words = re.fullmatch(r"(?:models:/)?([^@/]+)(?:@([^@/]+)|/(\d+|latest))?", model, re.ASCII)
    if not words:
        raise FoundryError(
            f"{model!r} is no name of a registered model; give NAME, NAME@ALIAS or NAME/VERSION."
        )
    name, alias, number = words.groups()
    with tracking.tracking_errors():
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
        if client is None or name not in known:
            raise registry.no_such_model(name, known)
        if number == "latest":  # as MLflow has it
            number = max((found.version for found in registry.versions(client, name)), default=0)
        if number is not None:
            return registry.get_version(client, name, int(number))
        return registry.version_of(client, name, alias or registry.CHAMPION)
