"""Specs: strict frozen dataclasses that are read from TOML, overridden by ``a.b=value`` and fingerprinted.

The type of a field selects its parser (``object`` takes any TOML value, ``Any`` leaves the value to the owner of the
field); the docstring under it is its manual. An unknown key is an error that names the
nearest known key; a value of the wrong type is an error that names the expected type.
"""

import ast
import copy
import dataclasses
import difflib
import inspect
import json
import textwrap
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from permafrost.data.digests import digest_of
from permafrost.data.errors import InputError

_type_hints = cache(get_type_hints)

T = TypeVar("T")

Tree = dict[str, Any]


class SpecError(InputError):
    """An invalid recipe, override or setting."""


class Raw(str):
    """A value as typed on the command line; the type of the field that receives it decides how it is parsed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` if a known word is close, else the list of known words."""
    known = sorted(known)
    matches = difflib.get_close_matches(word, known, n=1)
    if matches:
        return f"Did you mean '{matches[0]}'?"
    return f"Known: {', '.join(known)}." if known else "There are none."


def override(tree: Tree, assignments: Iterable[str]) -> Tree:
    """Return a copy of ``tree`` with ``a.b=value`` assignments applied in order."""
    tree = copy.deepcopy(tree)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"--set {assignment!r}: expected KEY=VALUE, for example --set plan.backbone=minilm.")
        assign(tree, key.strip(), Raw(value.strip()))
    return tree


def assign(tree: Tree, key: str, value: object) -> None:
    """Set a dotted key in place; create missing tables on its path."""
    *tables, leaf = key.split(".")
    for depth, table in enumerate(tables):
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise SpecError(f"{key}: {'.'.join(tables[: depth + 1])} is a value, not a table.")
    tree[leaf] = value


def parse(spec_type: type[T], tree: Mapping[str, Any], source: str, prefix: str = "") -> T:
    """Build a spec from a tree of plain values; errors name ``source``, and keys with ``prefix`` before them."""
    if not isinstance(tree, Mapping):
        raise SpecError(f"{source}: [{prefix.rstrip('.')}] must be a table, got {tree!r}.")
    fields = {field.name: field for field in dataclasses.fields(spec_type)}  # type: ignore[arg-type]
    hints = _type_hints(spec_type)  # type: ignore[arg-type]
    in_table = f" in [{prefix.rstrip('.')}]" if prefix else ""
    for key in tree:
        if key not in fields:
            raise SpecError(f"{source}: unknown key '{key}'{in_table}. {nearest(key, fields)}")
    values: Tree = {}
    for name, field in fields.items():
        default = _default_of(field)
        if name in tree:
            value = tree[name]
            if isinstance(value, Mapping) and dataclasses.is_dataclass(default):
                value = {**plain(default), **value}  # a table may set a part of a nested spec
            values[name] = _parse_value(hints[name], value, source, prefix + name)
        elif default is MISSING:
            raise SpecError(f"{source}: '{prefix}{name}' is missing.")
    try:
        return spec_type(**values)
    except SpecError as error:
        raise SpecError(f"{source}: {prefix}{error}") from error


def plain(spec: Any) -> Any:
    """Return the spec as a tree of plain values; fields that are None are left out."""
    if dataclasses.is_dataclass(spec):
        pairs = ((field.name, getattr(spec, field.name)) for field in dataclasses.fields(spec))
        return {name: plain(value) for name, value in pairs if value is not None}
    if isinstance(spec, Mapping):
        return {key: plain(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [plain(value) for value in spec]
    return spec


def to_toml(spec: Any) -> str:
    """Return the spec as TOML; :func:`parse` reads it back to an equal spec."""
    return tomli_w.dumps(plain(spec))


def fingerprint(value: Any) -> str:
    """Return a hash of the value, 16 hex digits of SHA-256; equal values have equal fingerprints."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return digest_of(text.encode())[:16]


MOST_DIFFERENCES, MOST_CHARACTERS = 3, 60
"""Number of differing settings that a message names, and the length to which it shortens a value."""


def flatten_settings(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys of a tree of plain values, and their values as JSON."""
    if isinstance(tree, list | tuple) and any(isinstance(value, Mapping | list | tuple) for value in tree):
        tree = dict(enumerate(tree))
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from flatten_settings(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(tree, ensure_ascii=False)


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return a phrase that names the differing keys of two :func:`flatten_settings`; empty if there are none."""
    differing = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    shown = "; ".join(
        f"{printable(key)} = {_shorten(there, key)} there, {_shorten(here, key)} here"
        for key in differing[:MOST_DIFFERENCES]
    )
    more = len(differing) - MOST_DIFFERENCES
    return f"{shown}; and {more} more" if more > 0 else shown


def _shorten(settings: Mapping[str, str], key: str) -> str:
    value = printable(settings.get(key, "absent"))
    return value if len(value) <= MOST_CHARACTERS else f"{value[: MOST_CHARACTERS - 1]}…"


def printable(text: str) -> str:
    """Return text with a space for each character that a terminal does not print."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@dataclass(frozen=True)
class Setting:
    """One setting of a spec, as the manual lists it."""

    key: str
    type: str
    default: str
    meaning: str


def manual(spec_type: type[Any], prefix: str = "", instance: Any = None) -> Iterator[Setting]:
    """Yield every setting of a spec, depth first, with the docstring under its field.

    Args:
        prefix: dotted path of the table, with a dot at its end.
        instance: a spec that gives the defaults; None takes those of the class.
    """
    hints, docstrings = _type_hints(spec_type), _field_docstrings(spec_type)  # type: ignore[arg-type]
    for field in dataclasses.fields(spec_type):
        hint = hints[field.name]
        value = _default_of(field) if instance is None else getattr(instance, field.name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from manual(hint, f"{prefix}{field.name}.", None if value is MISSING else value)
            continue
        default = "required" if value is MISSING else json.dumps(plain(value), ensure_ascii=False)
        yield Setting(prefix + field.name, _type_name(hint), default, docstrings.get(field.name, ""))


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    """Return the default of a field; MISSING if the field is required."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _parse_value(hint: Any, value: Any, source: str, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(hint, _parse_raw(value), source, f"{key}.")  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _parse_union(arguments, value, source, key)
    if origin is Literal:
        if str(_unquote(value)) in arguments:
            return str(_unquote(value))
        raise SpecError(f"{source}: {key} = {_format_value(value)}: {nearest(str(value), map(str, arguments))}")
    if origin is tuple:
        return _parse_tuple(arguments, value, source, key)
    if origin is dict:
        value = _parse_raw(value)
        if isinstance(value, dict):
            items = value.items()
            return {str(name): _parse_value(arguments[1], item, source, f"{key}.{name}") for name, item in items}
    elif hint is Any:
        return value
    elif hint is object:
        return _parse_raw(value)
    elif hint is str:
        if isinstance(_unquote(value), str):
            return str(_unquote(value))
    else:
        value = _parse_raw(value)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
    raise SpecError(f"{source}: {key} must be {_type_name(hint)}, got {_format_value(value)}.")


def _parse_tuple(arguments: tuple[Any, ...], value: Any, source: str, key: str) -> tuple[Any, ...]:
    """Parse a list, comma-separated items from the command line, or a single item."""
    if isinstance(value, Raw) and not value.startswith("["):
        items: Any = [Raw(item.strip()) for item in value.split(",") if item.strip()]
    else:
        items = _parse_raw(value)
    if not isinstance(items, (list, tuple)):
        items = [items]
    if arguments[-1] is Ellipsis:
        return tuple(_parse_value(arguments[0], item, source, key) for item in items)
    if len(items) != len(arguments):
        raise SpecError(f"{source}: {key} needs {len(arguments)} values, got {_format_value(value)}.")
    return tuple(_parse_value(hint, item, source, key) for hint, item in zip(arguments, items, strict=True))


def _parse_union(hints: tuple[Any, ...], value: Any, source: str, key: str) -> Any:
    for hint in hints:
        with suppress(SpecError):
            return _parse_value(hint, value, source, key)
    raise SpecError(f"{source}: {key} must be {' or '.join(map(_type_name, hints))}, got {_format_value(value)}.")


def _parse_raw(value: Any) -> Any:
    """Parse a value from the command line as TOML; a bare word stays a string."""
    if not isinstance(value, Raw):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # of syntax, or of a number with thousands of digits
        return str(value)


def _unquote(value: Any) -> Any:
    return _parse_raw(value) if isinstance(value, Raw) and value[:1] in ("'", '"') else value


def _format_value(value: Any) -> str:
    return repr(str(value)) if isinstance(value, str) else json.dumps(value, default=str)


def _type_name(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(f'"{argument}"' for argument in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "table"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", types.NoneType: "nothing"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


@cache
def _field_docstrings(spec_type: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(spec_type))).body[0]
    assert isinstance(tree, ast.ClassDef)
    docstrings = {}
    for node, next_node in pairwise(tree.body):
        match node, next_node:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docstrings[name] = " ".join(text.split())
    return docstrings
