"""What a fresh process has loaded after a piece of code."""

import json
import subprocess
import sys
from pathlib import Path


def run_alone(code: str, folder: Path) -> dict[str, list[str]]:
    """What a fresh process prints, which starts outside the project."""
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, cwd=folder
    ).stdout
    return json.loads(output)


def packages(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}
