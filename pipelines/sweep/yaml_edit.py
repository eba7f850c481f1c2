"""Settings changed in a YAML text that keeps everything else, its comments included.

Only what a pipeline's file is made of is understood: mappings in block or flow style with scalars
and lists below them. PyYAML's parser says where each value stands, and the text is changed there.
"""

from collections.abc import Mapping
from typing import Any

import yaml

INDENT = 2


def set_values(text: str, values: Mapping[str, Any], below: str) -> str:
    """The text with values in place of those of dotted keys, or added to their section.

    Args:
        text: A YAML document whose top is a mapping.
        values: By dotted key.
        below: The top key that holds them.

    The caller has to read the result again: anchors and merge keys are not understood.
    """
    for key, value in values.items():
        text = _set_value(text, [below, *key.split(".")], value)
    return text


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf")).strip()[1:-1]


def _set_value(text: str, path: list[str], value: Any) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, name in enumerate(path):
        assert isinstance(node, yaml.MappingNode)  # noqa: S101  # settings have been read of it
        entries = {key.value: (key, found) for key, found in node.value}
        if name not in entries:
            return _insert(text, node, path[depth:], value)
        key, found = entries[name]
        if depth == len(path) - 1:
            return _replace(text, found, flow(value))
        if not isinstance(found, yaml.MappingNode):  # `training:` with nothing below
            column = key.start_mark.column + INDENT
            return _insert_line(text, key.end_mark.index, _lines(path[depth + 1 :], value, column))
        node = found
    raise AssertionError(path)


def _insert(text: str, section: yaml.MappingNode, path: list[str], value: Any) -> str:
    """Add a key, with sections on the way to it, after the last plain value of a section."""
    if section.flow_style:
        start = section.start_mark.index + 1
        nested: Any = value
        for name in reversed(path):
            nested = {name: nested}
        added = flow(nested)[1:-1]
        return text[:start] + added + (", " if section.value else "") + text[start:]
    lines = _lines(path, value, section.start_mark.column)
    plain = [found for _, found in section.value if not isinstance(found, yaml.MappingNode)]
    if plain:
        return _insert_line(text, _end(plain[-1]), lines)
    start = section.start_mark.index - section.start_mark.column
    newline = _newline(text)
    return text[:start] + newline.join(lines) + newline + text[start:]


def _insert_line(text: str, after: int, lines: list[str]) -> str:
    """Add lines below the line that a position is in."""
    newline = _newline(text)
    end = text.find("\n", after)
    if end < 0:
        return text + newline + newline.join(lines)
    return text[: end + 1] + newline.join(lines) + newline + text[end + 1 :]


def _lines(path: list[str], value: Any, column: int) -> list[str]:
    *sections, last = path
    lines = [" " * (column + INDENT * depth) + f"{name}:" for depth, name in enumerate(sections)]
    return [*lines, " " * (column + INDENT * len(sections)) + f"{last}: {flow(value)}"]


def _replace(text: str, node: yaml.Node, value: str) -> str:
    start, end = node.start_mark.index, _end(node)
    before = text[:start]
    space = "" if before.endswith((" ", "{", "[")) else " "
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        before, space = before.rstrip(), " "  # from lines of its own to that of its key
    return before + space + value + text[end:]


def _end(node: yaml.Node) -> int:
    """Where a value ends; the mark of a list in block style is that of what comes next."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
