"""Where and in which precision to compute, when the settings leave it to the machine."""

from typing import Literal

from gan_core.errors import FoundryError
from gan_core.training_settings import Device, Precision


def choose_device(asked: Device) -> Literal["cpu", "cuda"]:
    """Resolve `auto`: the GPU, where torch sees one.

    Raises:
        FoundryError: A GPU is asked for, but there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise FoundryError(
            "training.device is cuda, but torch sees no GPU on this machine; use auto or cpu."
        )
    return "cuda" if asked != "cpu" and has_gpu else "cpu"


def choose_precision(asked: Precision, device: Literal["cpu", "cuda"]) -> Literal["fp32", "bf16"]:
    """Resolve `auto`: bf16 where the device computes in it, which is about twice as fast."""
    if asked != "auto":
        return asked
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if native else "fp32"
