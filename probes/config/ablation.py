"""Ablation settings, and the subsets of a probe's columns that an ablation trains on."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
        kind: "all", or a key of :data:`COMPARISONS`.
        columns: all columns of the probe.
    """
    if kind == "all":
        return [Subset("all", "all", tuple(range(len(columns))))]
    by_view, keeps = kind == "view", COMPARISONS[kind]
    values: list[Any] = [view_name([column]) if by_view else column.layer for column in columns]
    distinct = list(dict.fromkeys(values)) if by_view else sorted(set(values))
    if kind in ("without", "view") and len(distinct) == 1:
        return []
    return [
        Subset(kind, str(own), tuple(position for position, value in enumerate(values) if keeps(value, own)))
        for own in distinct
    ]


def format_layers(layers: Sequence[int]) -> str:
    """Format layers as ranges, e.g. ``0-3,6``."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "single": operator.eq,
    "without": operator.ne,
    "prefix": operator.le,
    "suffix": operator.ge,
    "view": operator.eq,
}
"""Kind -> comparison of a column's layer, or its view, with the one that defines the subset; true if it is kept."""
