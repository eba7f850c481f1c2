"""What kind of machine this is, as far as the bits of a training depend on it."""

import platform
from importlib.metadata import version
from pathlib import Path

CPU_FILE = Path("/proc/cpuinfo")


def describe_machine(device: str) -> str:
    """The processor or GPU and the version of PyTorch, in one line.

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        import torch

        processor = torch.cuda.get_device_name()
    else:
        lines = CPU_FILE.read_text(encoding="utf-8").splitlines() if CPU_FILE.exists() else []
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(names, platform.machine())
    return f"{processor}, torch {version('torch')}"
