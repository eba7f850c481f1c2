"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import sys
import torch
from gan_core.networks.dcgan import DcganGenerator
from gan_core.training.memory import keep_freed_memory

generator = DcganGenerator(64, (128, 64, 32), (28, 28, 1), classes=0)
latents = torch.randn(64, 64)
torch.set_num_threads(1)

def new_pages(passes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(passes):
        generator(latents, latents).sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / passes

if sys.argv[1] == "kept":
    assert keep_freed_memory()
new_pages(5)
print(new_pages(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_step_finds_the_memory_of_the_step_before() -> None:
    def new_pages(mode: str) -> float:
        command = [sys.executable, "-c", SCRIPT, mode]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    kept, given_back = new_pages("kept"), new_pages("given back")
    assert kept < 0.2 * given_back, (kept, given_back)
