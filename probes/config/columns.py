"""Probe columns: the layer of a view of a plan, and the resolution of ``probe.inputs`` to columns.

An input is named ``[PLAN/]VIEW[:LAYERS]``, e.g. ``mean``, ``cls:-4..-1`` or ``echo/mean:6``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from permafrost.data.plan.layers import LAYER_PATTERN, resolve_layers
from permafrost.data.plan.plan import Columns
from permafrost.data.spec import SpecError, nearest
from permafrost.probes.config.probe import ProbeSpec

NAME = re.compile(rf"(?:(?P<plan>[\w-]+)/)?(?P<view>\w+)(?::(?P<layers>{LAYER_PATTERN.pattern}))?")


class Column(NamedTuple):
    """One layer of one view of one capture plan."""

    plan: str
    """Name of a table ``[plans.NAME]``; empty for ``[plan]``."""

    view: str
    layer: int


class InputName(NamedTuple):
    """The parts of an input name ``[PLAN/]VIEW[:LAYERS]``."""

    plan: str
    view: str
    layers: str
    """A layer or a range; empty if the name has none."""


def parse_input(name: str) -> InputName:
    """Split an input name into its parts.

    Raises:
        SpecError: the name is not ``[PLAN/]VIEW[:LAYERS]``.
    """
    match = NAME.fullmatch(name.strip())
    if not match:
        raise SpecError(
            f"probe.inputs: {name!r} is not [PLAN/]VIEW[:LAYERS]; write for example mean, cls:-4..-1 or echo/mean:6."
        )
    return InputName(match["plan"] or "", match["view"], match["layers"] or "")


def resolve_columns(spec: ProbeSpec, plans: Mapping[str, Columns]) -> tuple[Column, ...]:
    """Return the columns that a probe reads, in the order of ``probe.inputs``.

    Args:
        spec: the probe, whose ``inputs`` and ``layers`` select the columns.
        plans: name of a plan (empty for ``[plan]``) -> the layers that it keeps of each view.

    Raises:
        SpecError: the probe names a view or layer that the plan does not keep, or a column twice.
    """
    names = [parse_input(name) for name in spec.inputs] or [InputName("", view, "") for view in plans[""]]
    columns: list[Column] = []
    for plan, view, layers in names:
        if view not in plans[plan]:
            table = f"plans.{plan}" if plan else "plan"
            raise SpecError(
                f"probe.inputs names '{view}', which {table}.views does not keep. {nearest(view, plans[plan])}"
            )
        try:
            resolved = resolve_layers(layers or spec.layers, plans[plan][view])
        except SpecError as error:
            raise SpecError(f"the probe reads layers that the plan does not keep: {error}") from None
        columns += [Column(plan, view, layer) for layer in resolved]
    if len(set(columns)) < len(columns):
        repeated = next(column for column in columns if columns.count(column) > 1)
        raise SpecError(f"probe.inputs names layer {repeated.layer} of {repeated.view} twice.")
    return tuple(columns)


def view_name(columns: Sequence[Column]) -> str:
    """Return the views of the columns joined by ``+``, each with its plan, e.g. ``mean+cls`` or ``echo/mean``."""
    return "+".join(dict.fromkeys(f"{column.plan}/{column.view}" if column.plan else column.view for column in columns))


def single_layer(columns: Sequence[Column]) -> int | None:
    """Return the layer of the columns if they all have the same, else None."""
    layers = {column.layer for column in columns}
    return layers.pop() if len(layers) == 1 else None
