"""Specs: strict frozen dataclasses, read from TOML, overridden by ``a.b=value``, fingerprinted.

A field's type is its parser, the docstring under it is the manual, its value is the key. Nothing is guessed:
an unknown key stops with the nearest right one, a value of the wrong type with the type it should have had.
"""

import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import textwrap
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from permafrost.data.errors import InputError

T = TypeVar("T")

Tree = dict[str, Any]


class SpecError(InputError):
    """A recipe, an override or a setting that cannot be."""


class Raw(str):
    """A value as typed on the command line: what it means depends on the field that receives it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` where something is close, else the legal set."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(known)}." if known else "There are none."


def read_toml(text: str, source: str) -> Tree:
    """Parse TOML; a syntax error names the source."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: not valid TOML: {error}.") from error


def override(tree: Tree, assignments: Iterable[str]) -> Tree:
    """A copy of ``tree`` with ``a.b=value`` assignments applied in order."""
    tree = _copied(tree)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"--set {assignment!r}: expected KEY=VALUE, for example --set plan.backbone=minilm.")
        assign(tree, key.strip(), Raw(value.strip()))
    return tree


def assign(tree: Tree, key: str, value: object) -> None:
    """Set a dotted key in place, making the tables on the way."""
    *tables, leaf = key.split(".")
    for depth, table in enumerate(tables):
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise SpecError(f"{key}: {'.'.join(tables[: depth + 1])} is a value, not a table.")
    tree[leaf] = value


def parse(kind: type[T], tree: Mapping[str, Any], source: str) -> T:
    """Build the spec ``kind`` from a tree of plain values; ``source`` names it in errors."""
    return _spec(kind, tree, source, "")


def plain(spec: Any) -> Any:
    """The spec as a tree of plain values; fields that are None are left out."""
    if dataclasses.is_dataclass(spec):
        pairs = ((f.name, getattr(spec, f.name)) for f in dataclasses.fields(spec))
        return {name: plain(value) for name, value in pairs if value is not None}
    if isinstance(spec, Mapping):
        return {key: plain(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [plain(value) for value in spec]
    return spec


def to_toml(spec: Any) -> str:
    """The spec as TOML that :func:`parse` reads back to an equal spec."""
    return tomli_w.dumps(plain(spec))


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that change when the value does."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Setting:
    """One line of the manual."""

    key: str
    type: str
    default: str
    meaning: str


def manual(kind: type[Any], prefix: str = "", instance: Any = None) -> Iterator[Setting]:
    """Every setting of a spec, depth first, with the docstring under its field; defaults are those of ``instance``."""
    hints, meanings = get_type_hints(kind), _field_docstrings(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        known = None if _required(field) and instance is None else _own_default(field, instance)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from manual(hint, f"{prefix}{field.name}.", known)
            continue
        required = _required(field) and instance is None
        default = "required" if required else json.dumps(plain(known), ensure_ascii=False)
        yield Setting(prefix + field.name, _type_name(hint), default, meanings.get(field.name, ""))


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _own_default(field: "dataclasses.Field[Any]", instance: Any) -> Any:
    return _default(field) if instance is None else getattr(instance, field.name)


def _spec(kind: type[T], tree: Mapping[str, Any], source: str, prefix: str) -> T:
    if not isinstance(tree, Mapping):
        raise SpecError(f"{source}: [{prefix.rstrip('.')}] must be a table, got {tree!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    place = f" in [{prefix.rstrip('.')}]" if prefix else ""
    for key in tree:
        if key not in fields:
            raise SpecError(f"{source}: unknown key '{key}'{place}. {nearest(key, fields)}")
    values: Tree = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = _value(hints[name], _completed(field, tree[name]), source, prefix + name)
        elif _required(field):
            raise SpecError(f"{source}: '{prefix}{name}' is missing.")
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"{source}: {prefix}{error}" if prefix else f"{source}: {error}") from error


def _completed(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """A table that changes some settings of a spec keeps the others of its default."""
    if isinstance(value, Mapping) and not _required(field) and dataclasses.is_dataclass(default := _default(field)):
        return {**plain(default), **value}
    return value


def _value(hint: Any, value: Any, source: str, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _spec(hint, _typed(value), source, f"{key}.")  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, source, key)
    if origin is Literal:
        if str(_unquoted(value)) in arguments:
            return str(_unquoted(value))
        raise SpecError(f"{source}: {key} = {_shown(value)}: {nearest(str(value), map(str, arguments))}")
    if origin is tuple:
        return _tuple(arguments, value, source, key)
    if origin is dict:
        value = _typed(value)
        if isinstance(value, dict):
            return {str(k): _value(arguments[1], v, source, f"{key}.{k}") for k, v in value.items()}
    elif hint is object:
        return _typed(value)
    elif hint is str:
        if isinstance(_unquoted(value), str):
            return str(_unquoted(value))
    else:
        value = _typed(value)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
    raise SpecError(f"{source}: {key} must be {_type_name(hint)}, got {_shown(value)}.")


def _tuple(arguments: tuple[Any, ...], value: Any, source: str, key: str) -> tuple[Any, ...]:
    """A list; or, as typed, its items with commas between them; or a single item alone."""
    if isinstance(value, Raw) and not value.startswith("["):
        items: Any = [Raw(item.strip()) for item in value.split(",") if item.strip()]
    else:
        items = _typed(value)
    if not isinstance(items, (list, tuple)):
        items = [items]
    if arguments[-1] is Ellipsis:
        return tuple(_value(arguments[0], item, source, key) for item in items)
    if len(items) != len(arguments):
        raise SpecError(f"{source}: {key} needs {len(arguments)} values, got {_shown(value)}.")
    return tuple(_value(hint, item, source, key) for hint, item in zip(arguments, items, strict=True))


def _one_of(hints: tuple[Any, ...], value: Any, source: str, key: str) -> Any:
    for hint in hints:
        try:
            return _value(hint, value, source, key)
        except SpecError:
            continue
    raise SpecError(f"{source}: {key} must be {' or '.join(map(_type_name, hints))}, got {_shown(value)}.")


def _typed(value: Any) -> Any:
    """What a value typed on the command line says as TOML; a bare word stays a string."""
    if not isinstance(value, Raw):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return str(value)


def _unquoted(value: Any) -> Any:
    return _typed(value) if isinstance(value, Raw) and value[:1] in ("'", '"') else value


def _shown(value: Any) -> str:
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


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found
