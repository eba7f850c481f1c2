"""Who imports whom: what a process has loaded after importing a layer."""

import ast
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.loaded_modules import packages, run_alone

LOAD_DEFINITIONS = """
import json, sys
from pipelines.definitions import defs
definitions = defs()
jobs = [job.name for job in definitions.resolve_all_job_defs()]
print(json.dumps({"jobs": jobs, "modules": sorted(sys.modules)}))
"""

IMPORT_ALL_OF_GAN_CORE = """
import importlib, json, pkgutil, sys
import gan_core
names = [module.name for module in pkgutil.walk_packages(gan_core.__path__, "gan_core.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"imported": names, "modules": sorted(sys.modules)}))
"""


def test_loading_the_definitions_waits_for_no_heavy_library(tmp_path: Path) -> None:
    found = run_alone(LOAD_DEFINITIONS, tmp_path)
    assert "digits" in found["jobs"]
    heavy = {"torch", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib", "optuna"}
    assert heavy & packages(found["modules"]) == set()


def test_the_learning_part_imports_neither_dagster_nor_mlflow_nor_the_pipelines(
    tmp_path: Path,
) -> None:
    found = run_alone(IMPORT_ALL_OF_GAN_CORE, tmp_path)
    assert "gan_core.training.loop" in found["imported"]
    assert {"dagster", "mlflow", "pipelines"} & packages(found["modules"]) == set()


def test_importing_gan_core_itself_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import gan_core, json, sys; print(json.dumps({'modules': sorted(sys.modules)}))"
    assert "torch" not in packages(run_alone(code, tmp_path)["modules"])


@pytest.mark.parametrize("package", ["gan_core", "pipelines"])
def test_text_files_are_utf_8_whatever_the_machine_prefers(package: str) -> None:
    for file in sorted((PROJECT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = {keyword.arg for keyword in node.keywords}
                if node.func.attr in ("read_text", "write_text"):
                    assert "encoding" in named, f"{file}:{node.lineno}"
