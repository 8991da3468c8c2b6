"""TODO: probes/config/columns.py."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from permafrost.data.spec import SpecError, nearest
from permafrost.data.store.layers import LAYERS, resolve_layers
from permafrost.data.store.plan import Columns
from permafrost.probes.config.probe import ProbeSpec

NAME = re.compile(rf"(?:(?P<plan>[\w-]+)/)?(?P<view>\w+)(?::(?P<layers>{LAYERS.pattern}))?")

TOKENS = "tokens"
"""The view whose latents are the hidden states of every token."""


class Column(NamedTuple):
    """One layer of one view of one plan."""

    plan: str
    """Name of a table ``[plans.NAME]``; empty for ``[plan]``."""

    view: str
    layer: int


class InputName(NamedTuple):
    """``[PLAN/]VIEW[:LAYERS]``, taken apart."""

    plan: str
    view: str
    layers: str
    """One, or a range; empty where none is named."""


def parse_input(name: str) -> InputName:
    """Take an input's name apart.

    Raises:
        SpecError: it is not ``[PLAN/]VIEW[:LAYERS]``.
    """
    found = NAME.fullmatch(name.strip())
    if not found:
        raise SpecError(
            f"probe.inputs: {name!r} is not [PLAN/]VIEW[:LAYERS]; write for example mean, cls:-4..-1 or echo/mean:6."
        )
    return InputName(found["plan"] or "", found["view"], found["layers"] or "")


def wanted_columns(spec: ProbeSpec, plans: Mapping[str, Columns]) -> tuple[Column, ...]:
    """The columns that a probe reads, of those that each plan keeps.

    Raises:
        SpecError: it asks for a view or a layer that the plan does not keep.
    """
    names = [parse_input(name) for name in spec.inputs] or [InputName("", view, "") for view in plans[""]]
    wanted: list[Column] = []
    for name in names:
        kept = plans[name.plan]
        if name.view not in kept:
            table = f"plans.{name.plan}" if name.plan else "plan"
            raise SpecError(
                f"probe.inputs names '{name.view}', which {table}.views does not keep. {nearest(name.view, kept)}"
            )
        try:
            layers = resolve_layers(name.layers or spec.layers, kept[name.view])
        except SpecError as error:
            raise SpecError(f"the probe reads layers that the plan does not keep: {error}") from None
        wanted += [Column(name.plan, name.view, layer) for layer in layers]
    if len(set(wanted)) < len(wanted):
        twice = next(column for column in wanted if wanted.count(column) > 1)
        raise SpecError(f"probe.inputs names layer {twice.layer} of {twice.view} twice.")
    return tuple(wanted)


def view_name(columns: Sequence[Column]) -> str:
    """The views of some columns, joined, each with its plan: ``mean+cls``, ``echo/mean``."""
    return "+".join(dict.fromkeys(f"{c.plan}/{c.view}" if c.plan else c.view for c in columns))


def only_layer(columns: Sequence[Column]) -> int | None:
    """The layer, where there is one only."""
    layers = {column.layer for column in columns}
    return layers.pop() if len(layers) == 1 else None
