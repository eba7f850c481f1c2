"""The pipelines' YAML files, read without Dagster: which there are, and what they say."""

import difflib
import keyword
import re
from pathlib import Path
from typing import Any

import yaml

from gan_core.config import PipelineSettings, apply_overrides, parse_settings
from gan_core.errors import FoundryError
from pipelines.home import DEFS_FOLDER, PROJECT, absolute_path

PIPELINE_FILE = "defs.yaml"
COMPONENT_TYPE = "pipelines.components.GanPipeline"
# Beside the type; the last three are Dagster's own.
KEYS_OF_FILE = ("type", "attributes", "template_vars_module", "requirements", "post_processing")
LONGEST_NAME = 63  # of a tag's value in Dagster
NAME = f"[A-Za-z0-9_]{{1,{LONGEST_NAME}}}"
# What Dagster refuses as a job's name, beside Python's keywords.
RESERVED_NAMES = {
    *("arg_dict", "bool", "conf", "config", "context", "dict", "float", "input", "input_arg_dict"),
    *("int", "meta", "output", "output_arg_dict", "str", "type"),
}


def pipeline_files() -> dict[str, Path]:
    """The file of each pipeline, by the pipeline's name, which is its folder's name."""
    files = DEFS_FOLDER.glob(f"*/{PIPELINE_FILE}")
    return {file.parent.name: file for file in sorted(files)}


def load_pipeline(name: str) -> PipelineSettings:
    """The settings of a pipeline.

    Raises:
        FoundryError: There is no such pipeline, or its file has a mistake.
    """
    files = pipeline_files()
    if name not in files:
        close = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise FoundryError(
            f"there is no pipeline {name!r}; {hint}Those that exist are {', '.join(files)}, and "
            f"`dg scaffold defs {COMPONENT_TYPE} {name}` makes a new one."
        )
    return read_pipeline_file(files[name])


def read_pipeline_file(file: Path) -> PipelineSettings:
    """The settings in a `defs.yaml`.

    Raises:
        FoundryError: Names the file, the key, the value and what is allowed.
    """
    shown = str(file.relative_to(PROJECT)) if file.is_relative_to(PROJECT) else str(file)
    name = file.parent.name
    if not re.fullmatch(NAME, name):
        raise FoundryError(
            f"{shown}: the folder's name {name!r} is the pipeline's, so it may have letters, "
            f"digits and _ only, {LONGEST_NAME} at most; rename it."
        )
    if keyword.iskeyword(name) or name in RESERVED_NAMES:
        raise FoundryError(
            f"{shown}: the folder's name {name!r} is the pipeline's, but Dagster does not take "
            "this word; rename it."
        )
    model = name.removesuffix("_aliases")
    if model != name and (file.parent.with_name(model) / PIPELINE_FILE).exists():
        raise FoundryError(
            f"{shown}: {name} is the name of the job that moves the aliases of pipeline {model}; "
            "rename the folder."
        )
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe one)
    except UnicodeDecodeError:
        raise FoundryError(f"{shown} is not UTF-8 text; save it as such.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise FoundryError(f"{shown}{line} is not valid YAML: {problem}; correct it.") from None
    except RecursionError:
        raise FoundryError(f"{shown} is nested too deeply to be read; flatten it.") from None
    except ValueError as error:  # PyYAML's own, of a date that there is not
        raise FoundryError(
            f"{shown} has a value that YAML cannot read ({error}); correct it, or quote it."
        ) from None
    if not isinstance(content, dict) or content.get("type") != COMPONENT_TYPE:
        found = content.get("type") if isinstance(content, dict) else content
        raise FoundryError(f"{shown}: type is {found!r}, but it must be {COMPONENT_TYPE}.")
    for key in content:
        if key not in KEYS_OF_FILE:
            raise FoundryError(
                f"{shown}: {key!r} stands beside attributes, where nothing reads it; indent it, so "
                "that it stands below attributes."
            )
    return resolve_paths(parse_settings(content.get("attributes") or {}, shown), file.parent)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, for which a key that stands twice is a mistake, as YAML says."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands there twice",
                    problem_mark=node.value[index][0].start_mark,
                )
        return super().construct_mapping(node, deep)


def resolve_paths(settings: PipelineSettings, folder: Path) -> PipelineSettings:
    """The settings with relative files and folders taken from the pipeline's folder."""
    values: dict[str, str] = {}
    if settings.data.path is not None:
        values["data.path"] = settings.data.path
    weights = settings.feature_network.weights
    if weights is not None and "://" not in weights:
        values["feature_network.weights"] = weights
    file = str(folder / PIPELINE_FILE)
    absolute = {
        key: str(absolute_path(path, f"{file}: {key}", folder)) for key, path in values.items()
    }
    return apply_overrides(settings, absolute, file)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` of `--set`, the value read as YAML.

    Raises:
        FoundryError: It is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise FoundryError(f"--set {text!r} must have the form key=value: training.kimg=20.")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise FoundryError(f"--set {key}: the value {value!r} is not valid YAML.") from None
