"""Source of code that runs, and the names and modules that it uses."""

import ast
import dis
import importlib
import inspect
import linecache
import textwrap
import types
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import resolve_name
from typing import Any


def source_of(code: types.CodeType) -> str:
    """Return the source of a function, without comments; what it compiles to if a file says otherwise.

    A file may have changed since it was imported, and code that was typed in has none.
    """
    try:
        lines, _ = inspect.getsourcelines(code)
        whole = "".join(linecache.getlines(code.co_filename))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return _bytecode(code)
    if code not in _compiled(whole):
        return _bytecode(code)
    text = "".join(lines)
    if code.co_name != "<lambda>":
        return _without_comments(text)
    places = [(first, last) for _, _, first, last in code.co_positions() if first is not None and last]
    return f"{min(places)[0]}-{max(last for _, last in places)} {text}"  # a line may have several


def names_of(code: types.CodeType) -> list[str]:
    """Return the names that code and the functions in it use, in a fixed order."""
    return list(dict.fromkeys(name for each in _nested(code) for name in each.co_names))


def imports_of(code: types.CodeType, package: str) -> list[Any]:
    """Return what code and the functions in it import as they run, of one top-level package.

    Args:
        package: dotted package of the module that the code is of.
    """
    found: list[Any] = []
    for each in _nested(code):
        operands: list[Any] = []
        for step in dis.get_instructions(each):
            if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                operands = [*operands[-1:], step.argval]
            elif step.opname == "IMPORT_NAME":
                level, names = operands
                found += _imported(step.argval, level, names or (), package)
    return found


def _imported(name: str, level: int, names: tuple[str, ...], package: str) -> list[Any]:
    try:
        full = resolve_name("." * level + name, package) if level else name
        if full.partition(".")[0] != package.partition(".")[0]:
            return []
        module = importlib.import_module(full)
        for each in names:
            if not hasattr(module, each):
                importlib.import_module(f"{full}.{each}")
    except Exception:  # the function will say so, or has a way around it
        return []
    return [getattr(module, each) for each in names] or [module]


def _without_comments(text: str) -> str:
    try:
        return ast.unparse(ast.parse(textwrap.dedent(text)))
    except (SyntaxError, RecursionError):
        return text


def _bytecode(code: types.CodeType) -> str:
    constants = [each for each in code.co_consts if not isinstance(each, types.CodeType)]
    inner = [_bytecode(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, inner))


@lru_cache(maxsize=16)
def _compiled(text: str) -> frozenset[types.CodeType]:
    """Return all code objects that a text compiles to; none if it is no Python."""
    try:
        return frozenset(_nested(compile(text, "<source>", "exec", dont_inherit=True)))
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
