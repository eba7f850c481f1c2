"""Runs in the process of the command line."""

from collections.abc import Callable
from pathlib import Path

from pipelines.home import prepare_home
from pipelines.progress import ProgressEvent, watching
from pipelines.run import materialize
from tests.pipelines.tiny_pipeline import tiny_settings


def test_what_a_stage_warns_of_is_told_to_who_watches(
    image_folder: Callable[..., Path], own_home: Path
) -> None:
    images = image_folder({"a": 60, "b": 60})
    (images / "a" / "broken.png").write_bytes(b"no picture")
    prepare_home()
    told: list[ProgressEvent] = []
    with watching(told.append):
        materialize("stripes", tiny_settings(images), {}, ("raw_images",))
    assert [event.kind for event in told] == ["stage_started", "warning", "stage_finished"]
    assert told[1].stage == "raw_images"
    assert told[1].values["text"].startswith("set aside a/broken.png: ")
