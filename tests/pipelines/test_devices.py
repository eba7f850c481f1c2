"""Which device a training gets; the driver's program is a script that says what a test wants."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_core.errors import FoundryError
from pipelines import devices
from pipelines.devices import CPU, POOL, VISIBLE_VARIABLE, devices_to_oneself, visible_gpus
from pipelines.instance import open_quiet_instance
from pipelines.ui import free_what_the_dead_held

SetGpus = Callable[..., None]


@pytest.fixture
def set_gpus(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> SetGpus:
    """Sets the GPUs of the machine: free memory in MiB by index."""
    own_home.mkdir()
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv(VISIBLE_VARIABLE, raising=False)

    def set_them(*free_mebibytes: int | str, status: int = 0) -> None:
        lines = [f"{index}, GPU-{index}, {free}" for index, free in enumerate(free_mebibytes)]
        program = folder / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        with program.open("a") as file:
            file.write(f"exit {status}\n")
        program.chmod(0o755)

    return set_them


def nobody_waits() -> None:
    raise AssertionError("a device was free")


def test_trainings_get_the_gpu_with_the_most_free_memory_and_see_no_other(
    set_gpus: SetGpus,
) -> None:
    set_gpus(1000, 3000, 2000)
    with devices_to_oneself("auto", 1, nobody_waits) as first:
        assert first == ("GPU-1",)
        assert os.environ[VISIBLE_VARIABLE] == "GPU-1"
    assert VISIBLE_VARIABLE not in os.environ


def test_trainings_at_once_are_on_different_gpus_and_the_last_one_waits(set_gpus: SetGpus) -> None:
    set_gpus(1000, 3000)
    free, waiting = threading.Event(), threading.Event()
    got: list[tuple[str, ...]] = []

    def wait_for_one() -> None:
        with devices_to_oneself("cuda", 1, waiting.set) as names:
            got.append(names)

    with devices_to_oneself("auto", 1, nobody_waits) as first:
        os.environ.pop(VISIBLE_VARIABLE)  # of another process
        with devices_to_oneself("auto", 1, nobody_waits) as second:
            assert (first, second) == (("GPU-1",), ("GPU-0",))
            os.environ.pop(VISIBLE_VARIABLE)
            last = threading.Thread(target=wait_for_one)
            last.start()
            assert waiting.wait(10)
            assert not got
        free.set()
        last.join(10)
    assert got == [("GPU-0",)]


def test_trainings_of_several_processes_get_several_gpus_or_none(set_gpus: SetGpus) -> None:
    set_gpus(1000, 3000)
    with devices_to_oneself("cuda", 2, nobody_waits) as names:
        assert names == ("GPU-1", "GPU-0")
        assert os.environ[VISIBLE_VARIABLE] == "GPU-1,GPU-0"


def test_gpus_hidden_from_the_program_are_not_given_to_trainings(
    set_gpus: SetGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(1000, 3000, 2000)
    monkeypatch.setenv(VISIBLE_VARIABLE, "0,GPU-2")
    assert [gpu.uuid for gpu in visible_gpus()] == ["GPU-2", "GPU-0"]


def test_a_gpu_whose_free_memory_is_not_told_is_taken_last(set_gpus: SetGpus) -> None:
    set_gpus("[N/A]", 1000, "[Insufficient Permissions]")
    assert [gpu.uuid for gpu in visible_gpus()] == ["GPU-1", "GPU-0", "GPU-2"]


def test_a_driver_that_does_not_answer_is_an_error(
    set_gpus: SetGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(1000)
    monkeypatch.setattr(devices, "QUERY_SECONDS", 0.1)
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(FoundryError, match="nvidia-smi has not answered for 0.1 s; repair"):
        visible_gpus()


def test_a_driver_without_gpus_leaves_the_cpu(set_gpus: SetGpus) -> None:
    set_gpus(status=9)
    with devices_to_oneself("auto", 1, nobody_waits) as names:
        assert names == (CPU,)


def test_a_gpu_is_used_although_the_driver_warns_of_it(set_gpus: SetGpus, tmp_path: Path) -> None:
    set_gpus(1000, 3000, status=14)  # one's infoROM is corrupted
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(program.read_text().replace("#!/bin/sh", "#!/bin/sh\necho 'WARNING: x, y'"))
    with devices_to_oneself("auto", 1, nobody_waits) as names:
        assert names == ("GPU-1",)


def test_a_gpu_can_be_named_by_the_beginning_of_its_uuid(
    set_gpus: SetGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(*[1000] * 12)
    monkeypatch.setenv(VISIBLE_VARIABLE, "GPU-10,GPU-11")
    assert {gpu.uuid for gpu in visible_gpus()} == {"GPU-10", "GPU-11"}
    monkeypatch.setenv(VISIBLE_VARIABLE, "GPU-1")
    assert {gpu.uuid for gpu in visible_gpus()} == {"GPU-1", "GPU-10", "GPU-11"}


def test_parts_of_a_gpu_are_devices_of_their_own(
    set_gpus: SetGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(1000)
    monkeypatch.setenv(VISIBLE_VARIABLE, "MIG-GPU-a/1/0")
    with devices_to_oneself("auto", 1, nobody_waits) as first:
        assert first == ("MIG-GPU-a/1/0",)
        monkeypatch.setenv(VISIBLE_VARIABLE, "MIG-b")
        with devices_to_oneself("auto", 1, nobody_waits) as second:
            assert second == ("MIG-b",)


def test_trainings_on_the_cpu_leave_the_gpus_to_others(set_gpus: SetGpus) -> None:
    set_gpus(1000)
    with (
        devices_to_oneself("cpu", 1, nobody_waits) as one,
        devices_to_oneself("auto", 1, nobody_waits) as other,
    ):
        assert (one, other) == ((CPU,), ("GPU-0",))


@pytest.mark.parametrize(("gpus", "slots"), [((1000, 3000, 2000), 3), ((1000,), 1), ((), 1)])
def test_as_many_queued_trainings_run_at_once_as_there_are_gpus(
    set_gpus: SetGpus, gpus: tuple[int, ...], slots: int
) -> None:
    set_gpus(*gpus)
    with open_quiet_instance() as instance:
        free_what_the_dead_held()
        (limit,) = instance.event_log_storage.get_pool_limits()
        assert (limit.name, limit.limit) == (POOL, slots)
