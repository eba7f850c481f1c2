"""A sensor for each pipeline on one's own images: it starts a run when they have changed.

A look at names, sizes and times is cheap and comes first. Only when it finds a change, and the
folder has been quiet since, are the images hashed and compared with those of the latest listing.
"""

import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from gan_core.config import DataSettings, PipelineSettings, fingerprint
from gan_core.errors import FoundryError
from pipelines.home import store_folder
from pipelines.materializations import data_version
from pipelines.store import stage_path

INTERVAL_SECONDS = 15


class Seen(BaseModel):
    """What the sensor remembers between two looks.

    Attributes:
        state: Fingerprint of names, sizes and times at the last look.
        since: When that state was seen first, in seconds since 1970.
        settled: The state for which the images were last compared.
    """

    model_config = ConfigDict(frozen=True)

    state: str = ""
    since: float = 0.0
    settled: str = ""


def state_of_files(data: DataSettings) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of one's own images; empty for other sources.

    Raises:
        FoundryError: The folder, or one in it, cannot be read.
    """
    from gan_core.data.sources import files_below

    place = Path(data.path or "")
    try:
        if data.path is None or not place.exists():
            return []
        files = [place] if place.is_file() else files_below(place)
        found = [(file, file.stat()) for file in files]
    except FileNotFoundError as error:
        raise FoundryError(f"{error.filename} has just gone; the folder still changes.") from None
    except OSError as error:
        raise FoundryError(
            f"{error.filename} cannot be read ({error.strerror}); give yourself access to it."
        ) from None
    return sorted((str(file), status.st_size, status.st_mtime_ns) for file, status in found)


def image_hashes(data: DataSettings, set_aside: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of every image, by its name.

    Args:
        data: Where they lie.
        set_aside: Names of images that did not decode; those that still do not have an empty hash.

    Raises:
        FoundryError: There are none, or they are arranged in a way that cannot be read.
    """
    from gan_core.data.sources import DECODE_ERRORS, SourceImage, open_source

    def found(image: SourceImage) -> str:
        if image.name in set_aside:
            try:
                image.measure()
            except DECODE_ERRORS:
                return ""
        return image.sha256

    return {image.name: found(image) for image in open_source(data, Path())}


def listed_hashes(instance: dg.DagsterInstance, pipeline: str) -> dict[str, str] | None:
    """SHA-256 of every image of the latest `raw_images`, by name; None if there is no listing.

    Images that were set aside, because they do not decode, have an empty one.
    """
    from gan_core.data.manifest import open_raw_images

    asset = dg.AssetKey([pipeline, "raw_images"])
    key = data_version(instance.get_latest_materialization_event(asset))
    folder = stage_path(store_folder(), pipeline, "raw_images", key)
    if not key or not folder.exists():
        return None
    raw, _ = open_raw_images(folder)
    names, hashes = raw.manifest["name"], raw.manifest["sha256"]
    return dict(zip(names, hashes, strict=True)) | {item["name"]: "" for item in raw.set_aside}


def difference(now: Mapping[str, str], before: Mapping[str, str]) -> str:
    """How many images were added, removed and changed, as a sentence; empty if none were."""
    added, removed = now.keys() - before.keys(), before.keys() - now.keys()
    changed = {name for name in now.keys() & before.keys() if now[name] != before[name]}
    counts = {"added": len(added), "removed": len(removed), "changed": len(changed)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def build_new_data_sensor(name: str, settings: PipelineSettings, job: Any) -> dg.SensorDefinition:
    """The sensor `<name>_new_data`, switched off until somebody switches it on.

    Args:
        name: The pipeline's.
        settings: Its own, with `on_new_data`.
        job: What it runs.
    """
    data, quiet_seconds = settings.data, settings.operation.quiet_seconds

    @dg.sensor(
        name=f"{name}_new_data",
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description=f"Runs {name} when images were added to {data.path}, changed there or removed, "
        f"and the folder has been quiet for {timedelta(seconds=quiet_seconds)}.",
    )
    def new_data(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = Seen.model_validate_json(context.cursor) if context.cursor else Seen()
        answer, seen = look(name, data, quiet_seconds, seen, context.instance, time.time())
        cursor = seen.model_dump_json()
        if isinstance(answer, dg.SkipReason):
            return dg.SensorResult(skip_reason=answer, cursor=cursor)
        return dg.SensorResult(run_requests=[answer], cursor=cursor)

    return new_data


def look(
    pipeline: str,
    data: DataSettings,
    quiet_seconds: float,
    seen: Seen,
    instance: dg.DagsterInstance,
    now: float,
) -> tuple[dg.SkipReason | dg.RunRequest, Seen]:
    """One look at the images.

    Args:
        pipeline: Its name.
        data: Where the images lie.
        quiet_seconds: They have not changed for so long before a run starts.
        seen: What the last look left.
        instance: Knows the latest listing.
        now: In seconds since 1970.

    Returns:
        A run, or why there is none; and what to remember.
    """
    try:
        state = fingerprint(state_of_files(data))
    except FoundryError as error:
        return dg.SkipReason(str(error)), seen
    if state == seen.settled:
        return dg.SkipReason("nothing has changed since the last look"), seen
    if state != seen.state:
        seen = seen.model_copy(update={"state": state, "since": now})
    seen = seen.model_copy(update={"since": min(seen.since, now)})  # the clock may be set back
    if now - seen.since < quiet_seconds:
        left = quiet_seconds - (now - seen.since)
        return dg.SkipReason(f"the folder changed; it must be quiet for {left:.0f} s more"), seen
    before = listed_hashes(instance, pipeline)
    set_aside = {name for name, sha256 in (before or {}).items() if not sha256}
    try:
        hashes = image_hashes(data, set_aside)
    except FoundryError as error:
        return dg.SkipReason(str(error)), seen
    seen = seen.model_copy(update={"settled": state})
    if before is None:
        found = f"{len(hashes)} images, none of them listed before"
    elif not (found := difference(hashes, before)):
        return dg.SkipReason("files were touched, but the images are the same"), seen
    tags = {"gan_foundry/new_data": found}
    return dg.RunRequest(run_key=f"{state}-{seen.since:.0f}", tags=tags), seen
