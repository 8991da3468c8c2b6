"""Subsets of what a probe reads: each layer alone, one left out, the first ones, the last ones, one view."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from permafrost.data.spec import SpecError
from permafrost.probes.config.columns import Column, view_name

Kind = Literal["single", "without", "prefix", "suffix", "view", "greedy"]

Control = Literal["untrained", "random_targets"]


@dataclass(frozen=True)
class AblationSpec:
    """What an ablation trains."""

    kinds: tuple[Kind, ...] = ("single", "without", "prefix", "suffix", "view", "greedy")
    """Each layer alone, all without one, the first ones, the last ones, each view alone, greedy forward selection."""

    greedy: int = 4
    """Most layers that greedy forward selection takes; each step trains every layer that is left."""

    controls: tuple[Control, ...] = ("untrained", "random_targets")
    """Each layer alone and all of them, once more: from the same backbone untrained; and on training targets that were
    shuffled, which only memory can fit: how well it does is measured on those rows."""

    backbones: tuple[str, ...] = ()
    """Further backbones to put beside the recipe's own."""

    def __post_init__(self) -> None:
        if self.greedy < 1:
            raise SpecError(f"greedy must be at least 1, got {self.greedy}.")


@dataclass(frozen=True)
class Subset:
    """Some of the columns that a probe reads."""

    kind: str
    name: str
    """The layer, or view, that it is about."""

    layer_positions: tuple[int, ...]
    """Indices into the columns."""


def subsets(kind: str, columns: Sequence[Column]) -> list[Subset]:
    """The subsets of one kind; a layer stands for all views that have it.

    Args:
        kind: of :data:`SUBSETS`.
    """
    return list(SUBSETS[kind](columns))


def layers_of(columns: Sequence[Column]) -> list[int]:
    """The distinct layers, ascending."""
    return sorted({column.layer for column in columns})


def picked(columns: Sequence[Column], keep: Callable[[Column], bool]) -> tuple[int, ...]:
    """The places of the columns that are kept."""
    return tuple(place for place, column in enumerate(columns) if keep(column))


def layer_names(layers: Sequence[int]) -> str:
    """Layers in few words: ``0-3,6``."""
    parts: list[list[int]] = []
    for layer in sorted(set(layers)):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _all(columns: Sequence[Column]) -> Iterator[Subset]:
    yield Subset("all", "all", tuple(range(len(columns))))


def _single(columns: Sequence[Column]) -> Iterator[Subset]:
    for layer in layers_of(columns):
        yield Subset("single", str(layer), picked(columns, lambda column, layer=layer: column.layer == layer))  # type: ignore[misc]


def _without(columns: Sequence[Column]) -> Iterator[Subset]:
    layers = layers_of(columns)
    for layer in layers if len(layers) > 1 else []:
        yield Subset("without", str(layer), picked(columns, lambda column, layer=layer: column.layer != layer))  # type: ignore[misc]


def _prefix(columns: Sequence[Column]) -> Iterator[Subset]:
    for layer in layers_of(columns):
        yield Subset("prefix", str(layer), picked(columns, lambda column, layer=layer: column.layer <= layer))  # type: ignore[misc]


def _suffix(columns: Sequence[Column]) -> Iterator[Subset]:
    for layer in layers_of(columns):
        yield Subset("suffix", str(layer), picked(columns, lambda column, layer=layer: column.layer >= layer))  # type: ignore[misc]


def _view(columns: Sequence[Column]) -> Iterator[Subset]:
    names = list(dict.fromkeys(view_name([column]) for column in columns))
    for name in names if len(names) > 1 else []:
        yield Subset("view", name, picked(columns, lambda column, name=name: view_name([column]) == name))  # type: ignore[misc]


SUBSETS: dict[str, Callable[[Sequence[Column]], Iterator[Subset]]] = {
    "all": _all,
    "single": _single,
    "without": _without,
    "prefix": _prefix,
    "suffix": _suffix,
    "view": _view,
}
