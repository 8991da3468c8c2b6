"""What a function's result depends on, as text: its source, and the values that it reaches by name."""

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.code.source import imports_of, names_of, source_of

PLAIN = (str, bytes, int, float, complex, types.NoneType, types.EllipsisType)


ARRAYS = (("ndarray", "generic"), ("Tensor",))
"""Types of numpy and of torch that hold values."""

LIBRARIES = frozenset({"numpy", "pandas", "permafrost", "scipy", "sklearn", "torch", "transformers"}).union(
    sys.stdlib_module_names - {"__main__"}
)
"""Packages of which nothing but names counts."""


def code_digest(function: Callable[..., Any]) -> str:
    """Return a digest of what :func:`code_parts` says of a function, as 16 hex digits."""
    running = hashlib.sha256()
    for part in code_parts(function):
        encoded = part.encode("utf-8", "surrogatepass")
        running.update(len(encoded).to_bytes(8, "little") + encoded)
    return running.hexdigest()[:16]


def code_parts(function: Callable[..., Any]) -> Iterator[str]:
    """Yield what a function, or a callable object, depends on, in a fixed order.

    That is its source; of its own package or script the functions, classes, constants and modules that it reaches by
    name or imports; and the state of all objects among them, the weights of a ``torch.nn.Module`` too. Of other
    packages it is the names alone.
    """
    innermost = function
    while isinstance(innermost, functools.partial):
        innermost = innermost.func
    yield from _Walk(_module_of(innermost)).parts(function)


def _module_of(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return value.__name__
    return str(getattr(value, "__module__", None) or type(value).__module__)


class _Walk:
    """One pass over all that a function reaches."""

    def __init__(self, module: str) -> None:
        self._package = module.partition(".")[0]
        self._seen: dict[int, Any] = {}  # holds what it has seen, so that no identity is used twice

    def parts(self, value: Any) -> Iterator[str]:
        """Yield the parts of a value that were not yielded before."""
        if isinstance(value, PLAIN) or id(value) in self._seen:
            yield repr(value) if isinstance(value, PLAIN) else "again"
            return
        self._seen[id(value)] = value
        if isinstance(value, list | tuple):
            yield from self._all(str(len(value)), value)
        elif isinstance(value, set | frozenset):
            yield from self._all(str(len(value)), sorted(value, key=repr))
        elif isinstance(value, Mapping):
            yield from self._all(str(len(value)), (each for item in value.items() for each in item))
        elif _is_array(value):
            yield _array(value)
        elif inner := _wrapped(value):
            yield from self._all(type(value).__name__, inner)
        elif isinstance(value, types.ModuleType):
            yield from self._of_module(value)
        elif isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        else:
            yield from self._of_object(value)

    def _all(self, name: str, values: Iterable[Any]) -> Iterator[str]:
        yield name
        for value in values:
            yield from self.parts(value)

    def _is_own(self, value: Any) -> bool:
        module = _module_of(value)
        if module.partition(".")[0] in LIBRARIES:
            return False
        if self._package == "__main__" and module != "__main__":
            return _is_beside_script(module)
        return module.partition(".")[0] == self._package

    def _of_module(self, module: types.ModuleType) -> Iterator[str]:
        file = getattr(module, "__file__", None)
        if not self._is_own(module) or not file:
            yield module.__name__
            return
        text = Path(file).read_text("utf-8", errors="replace") if file.endswith(".py") else module.__name__
        yield text
        used = [name for name in text.replace(".", " ").replace(",", " ").split() if name in vars(module)]
        reached = {name: vars(module)[name] for name in [*vars(module), *used]}
        yield from self._all(
            "module",
            (
                value
                for name, value in reached.items()
                if (isinstance(value, types.ModuleType) and name in used)
                or isinstance(value, types.FunctionType | type)
            ),
        )

    def _of_function(self, function: types.FunctionType) -> Iterator[str]:
        if not self._is_own(function):
            yield f"{function.__module__} {function.__qualname__}"
            return
        yield source_of(function.__code__)
        names = names_of(function.__code__)
        reached = [function.__globals__[name] for name in names if name in function.__globals__]
        package = str(function.__globals__.get("__package__") or self._package)
        reached += imports_of(function.__code__, package)
        modules = [each for each in reached if isinstance(each, types.ModuleType) and self._is_own(each)]
        reached += [
            vars(module)[name]
            for module in modules
            for name in names
            if isinstance(vars(module).get(name), types.ModuleType)
        ]
        cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
        yield from self._all("function", [function.__defaults__, function.__kwdefaults__, *cells, *reached])

    def _of_class(self, kind: type) -> Iterator[str]:
        yield kind.__qualname__ if self._is_own(kind) else f"{kind.__module__} {kind.__qualname__}"
        if self._is_own(kind):
            own = {name: each for name, each in vars(kind).items() if callable(each) or not name.startswith("__")}
            yield from self._all("class", [*kind.__bases__, *own, *own.values()])

    def _of_object(self, value: Any) -> Iterator[str]:
        yield from self.parts(type(value))
        if isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            yield f"{_module_of(value)} {value.__qualname__}"
            return
        state = _state(value)
        yield from self._all("state", (list(each) if isinstance(each, Iterator) else each for each in state))


def _wrapped(value: Any) -> list[Any]:
    """Return the functions and the object of a method, a property or another wrapper; none of anything else."""
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, functools.cached_property | functools.partialmethod):
        return [value.func]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if not isinstance(value, types.FunctionType) and inspect.isroutine(getattr(value, "__wrapped__", None)):
        return [value.__wrapped__]
    source = getattr(value, "code", None)  # of functions that torch.jit compiles
    return [source] if isinstance(source, str) and callable(value) else []


def _state(value: Any) -> Iterable[Any]:
    """Return what an object holds, as it is pickled; of a ``torch.nn.Module``, its tensors and its own attributes."""
    if "torch" in sys.modules and isinstance(value, module := sys.modules["torch"].nn.Module):
        inherited = vars(module()).keys() - {"_parameters", "_buffers", "_modules"}
        return [{name: each for name, each in vars(value).items() if name not in inherited}]
    try:
        state = value.__reduce_ex__(2)
    except Exception:  # it cannot be pickled: what attributes it has
        state = [getattr(value, "__dict__", {})]
    return [state] if isinstance(state, str) else state


def _is_array(value: Any) -> bool:
    modules = [sys.modules.get("numpy"), sys.modules.get("torch")]
    kinds = [getattr(module, name) for module, names in zip(modules, ARRAYS, strict=True) if module for name in names]
    return isinstance(value, tuple(kinds))


def _array(value: Any) -> str:
    """Return the values of an array or a tensor."""
    import numpy as np

    kind = f"{value.dtype} {tuple(value.shape)}"
    if not isinstance(value, np.ndarray | np.generic):  # a tensor, perhaps of a dtype that numpy lacks
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    array = np.asarray(value)
    return f"{kind} {array.tolist()!r}" if array.dtype.hasobject else f"{kind} {array.tobytes().hex()}"


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _is_beside_script(module: str) -> bool:
    """Return whether a module is a file of the folder of the script that runs, or of that of the notebook."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    folder = Path(script).resolve().parent if script else Path.cwd()
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or module.partition(".")[0] == "permafrost":
        return False
    path = Path(file).resolve()
    return path.is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(path.parts)
