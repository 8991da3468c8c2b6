"""Code digest: a hash of modules as they are loaded, which ties a remembered proof to the code that made it."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from permafrost.data.digests import digest_of_stream


def code_digest(*modules: ModuleType) -> str:
    """Return a hex digest of every function and constant of modules, as they are loaded."""
    return digest_of_stream(
        f"{name} {description}\n".encode()
        for module in modules
        for name, value in sorted(vars(module).items())
        if not name.startswith("__")
        for description in _describe(value, module.__name__)
    )


def _describe(value: Any, module: str) -> Iterator[str]:
    """Yield the code and constants of a definition; classes of other modules are skipped."""
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, FunctionType):
        yield f"{value.__defaults__} {value.__kwdefaults__}"
        yield from _instructions(value.__code__)
    elif isinstance(value, type):
        for member in vars(value).values() if value.__module__ == module else ():
            yield from _describe(getattr(member, "__func__", getattr(member, "fget", member)), module)
    elif isinstance(value, dict):
        for key, member in value.items():
            yield f"{key}"
            yield from _describe(member, module)
    elif isinstance(value, str | int | float | tuple) or is_dataclass(value):
        yield repr(value)


def _instructions(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
