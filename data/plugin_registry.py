"""Registry of parts from outside: those of installed packages, by entry points, and those of the running program.

A package is imported when a recipe first names a part of it.
"""

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, TypeVar

from permafrost.data.errors import InputError, PermafrostError, first_line
from permafrost.data.plugins import KINDS, Plugin
from permafrost.data.spec import nearest

P = TypeVar("P", bound=Plugin)
V = TypeVar("V")

NAME = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII)
"""A valid name of a part."""


class PluginError(InputError):
    """A part from outside that is missing, or is not what it says."""


_registered: dict[tuple[type[Plugin], str], Plugin] = {}


def register(name: str, part: Plugin) -> None:
    """Add a part under a name that recipes of this program can use; one that was added under this name is replaced.

    Worker processes of a study do not know it; a package that names it as an entry point is known everywhere.

    Args:
        name: letters, digits and underscores; not that of a built-in part of the kind.
        part: a :class:`~permafrost.data.plugins.Head`, ``Loss``, ``Pooling``, ``Reader`` or ``Metric``.

    Raises:
        PluginError: the name is taken or not valid, or it is no such part.
    """
    kind = type(part)
    if kind not in KINDS.values():
        names = ", ".join(kind.__name__ for kind in KINDS.values())
        raise PluginError(f"register: expected a {names}, got {kind.__name__}.")
    _check_name(name, kind, "register")
    _registered[kind, name] = part


@dataclass(frozen=True)
class Installed:
    """A part that an installed package offers."""

    name: str
    kind: type[Plugin]
    package: str
    version: str
    entry_point: EntryPoint

    def load(self) -> Plugin:
        """Import the part.

        Raises:
            PluginError: its package cannot be imported, or the object is not of its kind.
        """
        title = f"the {self.kind.kind} '{self.name}' of {self.package} {self.version}"
        try:
            part = self.entry_point.load()
        except Exception as error:  # code of others can fail in any way
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise PluginError(f"{title} cannot be imported ({self.entry_point.value}: {reason}).") from error
        if type(part) is not self.kind:
            raise PluginError(
                f"{title}: {self.entry_point.value} must be a permafrost.{self.kind.__name__}, "
                f"got {type(part).__name__}."
            )
        _check_name(self.name, self.kind, title)
        return part

    def problem(self) -> str:
        """Return why it cannot be loaded; empty if it can."""
        try:
            self.load()
        except PluginError as error:
            return str(error)
        return ""


@cache
def installed_parts() -> tuple[Installed, ...]:
    """Return the parts of all installed packages, in order of kind, package and name; nothing is imported.

    Packages that cannot be read, such as one that was removed by half, offer none.
    """
    found: dict[str, list[Installed]] = {}
    for each in distributions():
        package, parts = _offered(each)
        found.setdefault(package, parts)  # of two versions, the first one on the path is imported
    kinds = list(KINDS.values())
    every = [part for parts in found.values() for part in parts]
    return tuple(sorted(every, key=lambda part: (kinds.index(part.kind), part.package, part.name)))


def _offered(distribution: Distribution) -> tuple[str, list[Installed]]:
    """Return the name and the parts of a package."""
    try:
        package, version = distribution.name or "", distribution.version or ""
        points = [point for point in distribution.entry_points if point.group in KINDS] if package else []
    except Exception:  # a damaged package can fail in any way
        return "", []
    return package, [Installed(point.name, KINDS[point.group], package, version, point) for point in points]


def is_known(kind: type[Plugin], name: str) -> bool:
    """Return whether there is a part of this name from outside; it is not imported."""
    return (kind, name) in _registered or any((each.kind, each.name) == (kind, name) for each in installed_parts())


def find(kind: type[P], name: str) -> P:
    """Return a part from outside.

    Raises:
        PluginError: there is none of this name, two packages have one, or it cannot be imported.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]  # type: ignore[return-value]
    offers = [each for each in installed_parts() if (each.kind, each.name) == (kind, name)]
    if not offers:
        raise PluginError(f"{kind.keys[0]} = '{name}': {unknown_name(kind, name)}")
    if len(offers) > 1:
        packages = " and ".join(each.package for each in offers)
        raise PluginError(f"{kind.keys[0]} = '{name}': {packages} both have such a {kind.kind}; uninstall one of them.")
    return _load(offers[0])  # type: ignore[return-value]


_load = cache(Installed.load)


def fitting_names(kind: type[P], target: str, ours: Iterable[str], name: str) -> str:
    """Return what to say of a name that does not fit a kind of target: why not, and the names that do.

    Args:
        target: value of ``corpus.target``.
        ours: names of ours that fit.
    """
    outside = [part for key, part in _registered if key is kind] + [
        each.name for each in installed_parts() if each.kind is kind and not each.problem()
    ]
    fitting = [part for part in dict.fromkeys(outside) if target in getattr(find(kind, part), "targets", ())]
    own = f" (it is for {', '.join(getattr(find(kind, name), 'targets', ()))})" if is_known(kind, name) else ""
    return f"{own}; use one of: {', '.join(dict.fromkeys((*ours, *fitting)))}."


def unknown_name(kind: type[Plugin], name: str, built_in: tuple[str, ...] | None = None) -> str:
    """Return what to say of a name that no part of a kind has: the nearest one, or all.

    Args:
        built_in: names of ours that would do; None takes all.
    """
    outside = [part for key, part in _registered if key is kind]
    outside += [each.name for each in installed_parts() if each.kind is kind]
    hint = nearest(name, {*(kind.built_in if built_in is None else built_in), *outside})
    return f"{hint} If another package has this {kind.kind}, install it."


@contextmanager
def named_errors(name: str, part: Plugin, doing: str = "fails") -> Iterator[None]:
    """Run code of a part from outside; whatever it raises is told in one line.

    Args:
        doing: what it does, for the message: "fails" or "cannot read rows.xml".

    Raises:
        PluginError: it raised an error other than ours; a lack of memory is passed on.
    """
    try:
        yield
    except (PermafrostError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
            raise
        reason = f"{type(error).__name__}: {first_line(error)}{_place(error, part)}"
        raise PluginError(f"the {part.kind} '{name}' {doing} ({reason}).") from error


def _place(error: Exception, part: Plugin) -> str:
    """Return the innermost line of the part's own package or script that raised an error; empty if it has none."""
    own = str(getattr(part.called, "__module__", None) or type(part.called).__module__).partition(".")[0]
    frames = traceback.walk_tb(error.__traceback__)
    lines = [(frame, line) for frame, line in frames if frame.f_globals.get("__name__", "").partition(".")[0] == own]
    return f", in {lines[-1][0].f_code.co_filename}:{lines[-1][1]}" if lines and own != "permafrost" else ""


def origin_of(kind: type[Plugin], name: str) -> str:
    """Return the package and version that a part is of; "registered" if the program registered it."""
    if (kind, name) in _registered:
        return "registered"
    matching = (each for each in installed_parts() if (each.kind, each.name) == (kind, name))
    return next(f"{each.package} {each.version}" for each in matching)


class Registered(dict[str, V]):
    """Ours by name, and by lookup alone those from outside; iteration and length are those of ours."""

    def __init__(self, built_in: Mapping[str, V], kind: type[P], adapt: Callable[[str, P], V]) -> None:
        """Create the table.

        Args:
            built_in: ours.
            kind: kind of the parts.
            adapt: makes of name and part what the table holds.
        """
        super().__init__(built_in)
        self._kind, self._adapt = kind, adapt

    def __missing__(self, name: str) -> V:
        return self._adapt(name, find(self._kind, name))


def _check_name(name: Any, kind: type[Plugin], title: str) -> None:
    if name in kind.built_in:
        raise PluginError(f"{title}: '{name}' is a built-in {kind.kind}; choose another name.")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise PluginError(f"{title}: a name has letters, digits and underscores, got {name!r}.")
