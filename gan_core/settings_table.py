"""The settings tree as a Markdown table, for `gan-foundry settings` and docs/settings.md."""

import json
from typing import Any

from pydantic import BaseModel

from gan_core.config import PipelineSettings
from gan_core.settings_base import Settings


def settings_table() -> str:
    """Every setting with what is allowed, its default and its meaning, a section a table."""
    parts = [
        "# Settings",
        "",
        "Every key of a pipeline's `defs.yaml`, below `attributes:`.",
        "",
        *_rows("", PipelineSettings),
    ]
    for name, model in _sections(PipelineSettings):
        parts += ["", f"## {name}", "", (model.__doc__ or "").strip(), "", *_rows(name, model)]
    return "\n".join(parts) + "\n"


def _sections(model: type[BaseModel], prefix: str = "") -> list[tuple[str, type[BaseModel]]]:
    """The groups of settings below a model, each before those within it."""
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            sections.append((prefix + name, field.annotation))
            sections += _sections(field.annotation, f"{prefix}{name}.")
    return sections


def _rows(section: str, model: type[BaseModel]) -> list[str]:
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    schema = model.model_json_schema()["properties"]
    within = {name for name, _ in _sections(model)}
    for name, field in model.model_fields.items():
        if name in within:
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        meaning = field.description or ""
        key = f"{section}.{name}" if section else name
        rows.append(f"| `{key}` | {_allowed(schema[name])} | {default} | {meaning} |")
    return rows


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"list of {_allowed(items)}"
    if schema["type"] == "object":
        return "mapping"
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()
