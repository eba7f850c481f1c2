"""Virtual environments that hold given distributions and what they need, and nothing else.

They are made of links to what is installed here, which takes a second; an installation of torch
would take minutes.
"""

import re
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def needed_distributions(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The installed distributions that satisfy requirements, with all that they need."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not requirement.marker.evaluate():
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        key = f"{name}[{','.join(sorted(extras))}]"
        if key in found:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            raise AssertionError(f"{name} is needed but not installed here") from None
        for text in found[key].requires or []:
            further = Requirement(text)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in extras
            ):
                further.marker = None
                waiting.append(further)
    return found


def make_environment(folder: Path, requirements: Iterable[str]) -> Path:
    """Make a virtual environment with these distributions; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages"
    for found in needed_distributions(requirements).values():
        for file in found.files or []:
            top = file.parts[0]
            if top in ("..", "__pycache__"):
                continue
            link = target / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


def run_python(python: Path, program: str, folder: Path, **environment: str) -> str:
    """Run a program; returns what it printed."""
    result = subprocess.run(
        [python, "-c", program],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
