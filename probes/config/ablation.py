"""Ablation settings, and the subsets of a probe's columns that an ablation trains on."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from permafrost.data.spec import SpecError
from permafrost.probes.config.columns import Column, view_name

Kind = Literal["single", "without", "prefix", "suffix", "view", "greedy"]

Control = Literal["untrained", "random_targets"]


@dataclass(frozen=True)
class AblationSpec:
    """Which subsets of layers and views an ablation trains, and which controls."""

    kinds: tuple[Kind, ...] = ("single", "without", "prefix", "suffix", "view", "greedy")
    """Families of layer subsets to train: "single" (each layer alone), "without" (all layers but one), "prefix" (the
    first n layers), "suffix" (the last n layers), "view" (each view alone), and "greedy" (forward selection, one layer
    per step)."""

    greedy: int = 4
    """Maximum number of layers that greedy forward selection adds; each step trains every remaining layer."""

    controls: tuple[Control, ...] = ("untrained", "random_targets")
    """Controls, each trained on every single layer and on all layers: "untrained" reads the same backbone with random
    weights; "random_targets" trains on shuffled targets and is scored on the training rows, which shows how much the
    probe memorises."""

    backbones: tuple[str, ...] = ()
    """Further backbones to compare with plan.backbone; empty compares none."""

    def __post_init__(self) -> None:
        if self.greedy < 1:
            raise SpecError(f"greedy must be at least 1, got {self.greedy}.")
        for name in ("kinds", "backbones", "controls"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise SpecError(f"{name} names one twice: {', '.join(values)}.")


@dataclass(frozen=True)
class Subset:
    """A subset of the columns that a probe reads."""

    kind: str
    name: str
    """The layer or view that defines the subset, e.g. the layer that is left out."""

    layer_positions: tuple[int, ...]
    """Indices into the probe's columns."""


def subsets(kind: str, columns: Sequence[Column]) -> list[Subset]:
    """Return the subsets of one kind; a layer is kept or left out in all views that have it.

    Args:
        kind: a key of :data:`SUBSETS`.
        columns: all columns of the probe.
    """
    return list(SUBSETS[kind](columns))


def distinct_layers(columns: Sequence[Column]) -> list[int]:
    """Return the distinct layers of the columns, ascending."""
    return sorted({column.layer for column in columns})


def column_positions(columns: Sequence[Column], keep: Callable[[Column], bool]) -> tuple[int, ...]:
    """Return the indices of the columns for which ``keep`` is true."""
    return tuple(index for index, column in enumerate(columns) if keep(column))


def format_layers(layers: Sequence[int]) -> str:
    """Format layers as ranges, e.g. ``0-3,6``."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _all(columns: Sequence[Column]) -> Iterator[Subset]:
    yield Subset("all", "all", tuple(range(len(columns))))


def _by_layer(kind: str, columns: Sequence[Column]) -> Iterator[Subset]:
    """Yield a subset for each layer: of the columns whose layer compares to it as the kind says."""
    layers, keeps = distinct_layers(columns), COMPARISONS[kind]
    for layer in layers if kind != "without" or len(layers) > 1 else []:
        positions = [position for position, column in enumerate(columns) if keeps(column.layer, layer)]
        yield Subset(kind, str(layer), tuple(positions))


def _view(columns: Sequence[Column]) -> Iterator[Subset]:
    names = list(dict.fromkeys(view_name([column]) for column in columns))
    for name in names if len(names) > 1 else []:
        yield Subset("view", name, column_positions(columns, lambda column, name=name: view_name([column]) == name))  # type: ignore[misc]


COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "single": operator.eq,
    "without": operator.ne,
    "prefix": operator.le,
    "suffix": operator.ge,
}
"""Kind -> comparison of a column's layer with the layer that defines the subset; true if the column is kept."""

SUBSETS: dict[str, Callable[[Sequence[Column]], Iterator[Subset]]] = {
    "all": _all,
    **{kind: partial(_by_layer, kind) for kind in COMPARISONS},
    "view": _view,
}
