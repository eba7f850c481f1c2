import pytest
import torch

from gan_core.device import choose_device, choose_precision
from gan_core.errors import FoundryError


@pytest.fixture(params=[False, True], ids=["without a GPU", "with a GPU"])
def has_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_auto_is_the_gpu_where_there_is_one(has_gpu: bool) -> None:
    assert choose_device("auto") == ("cuda" if has_gpu else "cpu")


def test_the_cpu_is_taken_when_it_is_asked_for(has_gpu: bool) -> None:
    assert choose_device("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_an_error(has_gpu: bool) -> None:
    if has_gpu:
        assert choose_device("cuda") == "cuda"
    else:
        with pytest.raises(FoundryError, match="torch sees no GPU on this machine; use auto"):
            choose_device("cuda")


def test_a_precision_that_was_asked_for_is_taken() -> None:
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", "cpu") == precision
