"""The stages' folders: whole or absent."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gan_core.errors import FoundryError
from pipelines.store import open_stage, stage_path
from tests.pipelines.small_disk import on_a_small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return stage_path(tmp_path / "store", "digits", "raw_images", "0123456789abcdef")


def partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def test_a_stage_lies_below_its_pipeline_and_its_name(tmp_path: Path) -> None:
    assert stage_path(tmp_path, "mnist", "samples", "abc") == tmp_path / "mnist/samples/abc"


def test_a_folder_appears_under_its_name_only_when_it_is_whole(path: Path) -> None:
    with open_stage(path) as folder:
        assert not folder.reused
        assert folder.working != path
        (folder.working / "result").write_text("whole")
        assert not path.exists()
    assert (path / "result").read_text() == "whole"
    assert not partial(path).exists()


def test_a_folder_gets_its_name_when_all_in_it_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: set[int] = set()

    def note(opened: int) -> None:
        assert not path.exists()
        on_disk.add(os.fstat(opened).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    with open_stage(path) as folder:
        assert folder.working
        (folder.working / "below").mkdir()
        (folder.working / "below" / "weights").write_bytes(b"0")
    assert on_disk >= {item.stat().st_ino for item in (path, path / "below", *path.rglob("*"))}


def test_a_complete_folder_is_reused_and_left_as_it_is(path: Path) -> None:
    with open_stage(path) as folder:
        (folder.working / "result").write_text("first")
    with open_stage(path) as folder:
        assert folder.reused
        assert folder.working is None
        assert folder.path == path
    assert (path / "result").read_text() == "first"


def test_an_error_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), open_stage(path) as folder:
        (folder.working / "half").write_text("")
        raise RuntimeError("broken")
    assert not path.exists()
    assert not partial(path).exists()


def test_a_resumable_stage_keeps_its_work_after_an_error_and_continues_from_it(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_stage(path, resumable=True) as folder:
        (folder.working / "checkpoint").write_text("step 7")
        raise KeyboardInterrupt
    assert not path.exists()
    with open_stage(path, resumable=True) as folder:
        assert (folder.working / "checkpoint").read_text() == "step 7"
    assert (path / "checkpoint").read_text() == "step 7"


def test_what_a_killed_process_left_is_not_mixed_into_new_work(path: Path) -> None:
    partial(path).mkdir(parents=True)
    (partial(path) / "half").write_text("")
    with open_stage(path) as folder:
        (folder.working / "result").write_text("")
    assert [file.name for file in path.iterdir()] == ["result"]


def test_an_error_after_reuse_keeps_the_complete_folder(path: Path) -> None:
    with open_stage(path) as folder:
        (folder.working / "result").write_text("")
    with pytest.raises(RuntimeError), open_stage(path):
        raise RuntimeError
    assert (path / "result").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(path: Path, number: int) -> None:
    with pytest.raises(FoundryError, match=r"disk .* is full .* DAGSTER_HOME"):  # noqa: SIM117
        with open_stage(path) as folder:
            (folder.working / "half").write_text("")
            raise OSError(number, "no space")
    assert not path.exists()
    assert not partial(path).exists()


SAVE_WEIGHTS = """
import sys
from pathlib import Path
from gan_core.config import NetworkSettings
from gan_core.errors import FoundryError
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_generator
from pipelines.store import open_stage

disk = Path(sys.argv[1])
config = GeneratorConfig(
    pipeline="x", network=NetworkSettings(), height=16, width=16, channels=1
)
network = build_generator(config.network, config.shape, 0)  # 2 MB of weights
try:
    with open_stage(disk / "stage") as folder:
        ReleasedGenerator(network, config, "cpu").save(folder.working)
except FoundryError as error:
    print(error, sorted(file.name for file in disk.iterdir()))
"""


def test_a_disk_that_weights_do_not_fit_on_is_the_same_sentence(tmp_path: Path) -> None:
    told = on_a_small_disk(SAVE_WEIGHTS, tmp_path / "disk", "200k")
    assert f"the disk of {tmp_path}/disk is full" in told
    assert "['stage.lock']" in told


def test_other_errors_of_the_system_keep_their_own_text(path: Path) -> None:
    with pytest.raises(PermissionError, match="not yours"), open_stage(path):
        raise PermissionError(errno.EACCES, "not yours")


def test_of_two_at_once_in_a_stage_one_works_and_the_other_reuses(path: Path) -> None:
    together = threading.Barrier(2)
    active = threading.Semaphore(1)

    def stage() -> str:
        together.wait()
        with open_stage(path) as folder:
            if folder.reused:
                return (path / "result").read_text()
            assert active.acquire(blocking=False)  # nobody else works meanwhile
            (folder.working / "result").write_text("made once")
            active.release()
            return "worked"

    with ThreadPoolExecutor(2) as pool:
        outcomes = [job.result() for job in [pool.submit(stage), pool.submit(stage)]]
    assert sorted(outcomes) == ["made once", "worked"]


def test_one_stage_does_not_wait_for_another(path: Path) -> None:
    other = path.with_name("another key")
    with open_stage(path), open_stage(other) as folder:
        assert folder.working is not None
