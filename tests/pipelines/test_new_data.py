"""The sensor on one's own images: when it starts a run, and when it does not."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gan_core.config import DataSettings, PipelineSettings
from gan_core.errors import FoundryError
from gan_core.operation_settings import OWNER
from pipelines.components.gan_pipeline import build_pipeline
from pipelines.new_data import Seen, difference, image_hashes, look, state_of_files
from pipelines.settings_overrides import RESOURCE_KEY, SettingsOverrides
from tests.pipelines.tiny_pipeline import TinyPipeline, open_pipeline, tiny_settings

QUIET_SECONDS = 60.0
# What the settings take, at random.
OWNERS = st.from_regex(OWNER, fullmatch=True, alphabet=st.characters(codec="ascii"))
HOURS = st.none() | st.floats(0.02, 1e5)

Answer = dg.SkipReason | dg.RunRequest


class Watch:
    """Looks at the images of a pipeline at times that a test chooses."""

    def __init__(self, pipeline: TinyPipeline) -> None:
        self.pipeline = pipeline
        self.seen = Seen()
        self.now = 1e9

    def look(self, after: float = 0.0) -> Answer:
        self.now += after
        data, instance = self.pipeline.settings.data, self.pipeline.instance
        name = self.pipeline.name
        answer, self.seen = look(name, data, QUIET_SECONDS, self.seen, instance, self.now)
        return answer

    def settle(self) -> Answer:
        """What comes of a change when the folder has been quiet."""
        first = self.look(15)
        assert isinstance(first, dg.SkipReason)
        assert "quiet for 60 s more" in str(first.skip_message)
        return self.look(QUIET_SECONDS)


@pytest.fixture
def images(image_folder: Callable[..., Path]) -> Path:
    return image_folder({"a": 12, "b": 12})


@pytest.fixture
def watch(images: Path) -> Iterator[Watch]:
    with open_pipeline("faces", tiny_settings(images)) as pipeline:
        yield Watch(pipeline)


def reason(answer: Answer) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


def found(answer: Answer) -> str:
    assert isinstance(answer, dg.RunRequest), answer
    return answer.tags["gan_foundry/new_data"]


def test_images_that_were_never_listed_start_one_run(watch: Watch) -> None:
    assert found(watch.settle()) == "24 images, none of them listed before"
    assert reason(watch.look(15)) == "nothing has changed since the last look"


def test_added_changed_and_removed_images_start_one_run_each_when_the_folder_is_quiet(
    watch: Watch, images: Path
) -> None:
    watch.settle()
    assert watch.pipeline.run("raw_images").success
    keys = set()
    shutil.copyfile(images / "a" / "0000.png", images / "b" / "new.png")
    for change in ("1 added", "1 removed", "1 changed"):
        if change == "1 removed":
            (images / "b" / "new.png").unlink()
        if change == "1 changed":
            shutil.copyfile(images / "a" / "0000.png", images / "b" / "0000.png")
        answer = watch.settle()
        assert found(answer) == change
        assert isinstance(answer, dg.RunRequest)
        keys.add(answer.run_key)
        assert reason(watch.look(15)) == "nothing has changed since the last look"
        assert watch.pipeline.run("raw_images").success
    assert len(keys) == 3


def test_a_folder_that_is_still_written_to_starts_nothing(watch: Watch, images: Path) -> None:
    watch.look(15)
    for number in range(3):
        shutil.copyfile(images / "a" / "0000.png", images / "a" / f"more {number}.png")
        assert "must be quiet for 60 s more" in reason(watch.look(QUIET_SECONDS - 1))
    assert found(watch.look(QUIET_SECONDS)) == "27 images, none of them listed before"


def test_a_clock_that_is_set_back_delays_no_run(watch: Watch, images: Path) -> None:
    watch.look(15)
    watch.look(-1e6)
    assert found(watch.look(QUIET_SECONDS)) == "24 images, none of them listed before"


def test_images_behind_a_link_are_watched_too(watch: Watch, images: Path, tmp_path: Path) -> None:
    shutil.move(images / "b", tmp_path / "elsewhere")
    (images / "b").symlink_to(tmp_path / "elsewhere")
    watch.settle()
    assert watch.pipeline.run("raw_images").success
    shutil.copyfile(images / "a" / "0000.png", images / "b" / "new.png")
    assert found(watch.settle()) == "1 added"


def test_a_folder_that_is_gone_is_named(watch: Watch, images: Path) -> None:
    shutil.rmtree(images)
    assert f"{images} does not exist" in reason(watch.settle())


def test_a_folder_that_is_closed_to_us_is_named(
    watch: Watch, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Path.stat

    def closed(place: Path, **options: bool) -> os.stat_result:
        if place.name == "0000.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return look(place, **options)

    monkeypatch.setattr(Path, "stat", closed)
    assert "cannot be read (Permission denied)" in reason(watch.look(15))


def test_an_image_that_was_set_aside_and_is_repaired_has_changed(images: Path) -> None:
    data = DataSettings(source="image_folder", path=str(images))
    broken = images / "a" / "0000.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    before = image_hashes(data, {"a/0000.png"})
    assert before["a/0000.png"] == ""
    assert difference(image_hashes(data, {"a/0000.png"}), before) == ""
    broken.write_bytes(whole)
    assert difference(image_hashes(data, {"a/0000.png"}), before) == "1 changed"


def test_files_that_were_only_touched_start_nothing(watch: Watch, images: Path) -> None:
    watch.settle()
    assert watch.pipeline.run("raw_images").success
    os.utime(images / "a" / "0000.png", (1, 1))
    assert reason(watch.settle()) == "files were touched, but the images are the same"


def test_an_empty_folder_is_named(watch: Watch, images: Path) -> None:
    shutil.rmtree(images / "a")
    shutil.rmtree(images / "b")
    assert "holds no images" in reason(watch.settle())


def definitions_of(images: Path, **changes: Any) -> dg.Definitions:
    """What Dagster loads for a pipeline with some other settings."""
    settings = PipelineSettings.model_validate(tiny_settings(images).model_dump() | changes)
    resources = dg.Definitions(resources={RESOURCE_KEY: SettingsOverrides()})
    return dg.Definitions.merge(build_pipeline("faces", settings), resources)


def test_pipelines_have_the_schedule_and_the_sensor_of_their_file_switched_off(
    images: Path,
) -> None:
    mondays = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}
    definitions = definitions_of(images, schedule=mondays, on_new_data=True)
    schedule = definitions.resolve_schedule_def("faces_schedule")
    sensor = definitions.resolve_sensor_def("faces_new_data")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert {schedule.job_name, sensor.job_name} == {"faces"}
    without = definitions_of(images)
    assert not without.schedules
    assert not without.sensors


def test_the_sensor_itself_remembers_between_its_ticks(images: Path) -> None:
    definitions = definitions_of(images, on_new_data=True, operation={"quiet_seconds": 0})
    sensor = definitions.resolve_sensor_def("faces_new_data")
    cursor: str | None = None
    requests = []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            context = dg.build_sensor_context(instance, cursor=cursor, definitions=definitions)
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor
            requests.append(len(tick.run_requests or []))
    assert requests == [1, 0]


def test_the_assets_show_their_owners_and_the_model_its_freshness(images: Path) -> None:
    operation = {"owners": ["team:vision"], "freshness_hours": 48, "retries": 3}
    definitions = definitions_of(images, operation=operation)
    specs = {spec.key.path[1]: spec for spec in definitions.resolve_all_asset_specs()}
    assert all(list(spec.owners) == ["team:vision"] for spec in specs.values())
    fresh = {name for name, spec in specs.items() if spec.freshness_policy is not None}
    assert fresh == {"registered_model"}
    generator = definitions.resolve_assets_def(dg.AssetKey(["faces", "generator"]))
    assert generator.op.retry_policy is not None
    assert generator.op.retry_policy.max_retries == 3
    assert generator.op.pool == "gpu"


@given(operation=st.builds(dict, owners=st.tuples(OWNERS), freshness_hours=HOURS))
def test_dagster_takes_the_owners_and_freshness_that_settings_take(
    operation: dict[str, Any],
) -> None:
    definitions = definitions_of(Path("images"), operation=operation)
    assert definitions.resolve_assets_def(dg.AssetKey(["faces", "registered_model"]))


@pytest.mark.parametrize(
    "operation",
    [
        {"freshness_hours": 0.01},
        {"freshness_hours": 1e12},
        *({"owners": [owner]} for owner in ("ml@corp", "a,b@c.org", "x@y.photography", "+a@b.org")),
    ],
)
def test_owners_and_freshness_that_dagster_refuses_are_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"operation\.(owners|freshness_hours)"):
        definitions_of(Path("images"), operation=operation)


def test_a_cron_expression_that_is_none_is_named(images: Path) -> None:
    with pytest.raises(FoundryError, match="schedule.cron is 'every monday', but it must have"):
        definitions_of(images, schedule={"cron": "every monday"})


def test_images_of_other_sources_have_no_state() -> None:
    assert state_of_files(DataSettings(source="digits", resolution=16, channels=1)) == []
