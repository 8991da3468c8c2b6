"""Inputs: cached latents as probes read them, from one plan or several, and the short names that say which."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.latents import LatentStore
from data.plan import LAYERS, Columns, resolve_layers
from data.ragged import TokenLatents
from data.shard import Latents
from data.spec import SpecError, nearest
from probes.probe import ProbeSpec
from probes.reading import Reading, Side, TokenStates

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


@dataclass(frozen=True)
class Stored:
    """The latents of one plan, ready to be read, and what it took to have them."""

    store: LatentStore
    columns: Columns
    """Those that the plan asks for."""

    texts_run: int
    truncated: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Inputs:
    """Latents as a probe reads them."""

    values: Tensor
    """``[layer, text, width]`` in float32: layers of each view and plan, one after another; narrower latents are padded
    with zeros. ``[layer, token, width]`` where it is tokens that are read, text after text."""

    columns: tuple[Column, ...]
    """What each index of the layer axis is."""

    widths: tuple[int, ...]
    """Width of each layer's latents."""

    offsets: NDArray[np.int64] | None = None
    """``[text + 1]``: text ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``; None for pooled latents."""

    @property
    def longest(self) -> int:
        """Most latents of a text in a layer: 1, or its tokens."""
        return 1 if self.offsets is None else int(np.diff(self.offsets).max(initial=1))

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """``[text, width]``: one vector a text, the mean of its tokens where it is tokens that are read."""
        if self.offsets is None:
            return self.values[layer, torch.from_numpy(texts)]
        sums = np.add.reduceat(self.values[layer].numpy(), self.offsets[:-1], axis=0)
        return torch.from_numpy((sums / np.diff(self.offsets)[:, None].astype(np.float32))[texts])

    def moments(self, texts: NDArray[np.int64], center: bool, scale: str) -> tuple[Tensor, Tensor]:
        """Mean and spread of the latents of ``texts``, layer by layer.

        Args:
            center: whether the mean is taken off at all; zeros else.
            scale: ``layer`` for one spread a layer, or ``dimension``.

        Returns:
            ``[layer, 1, width]``, and ``[layer, 1, 1]`` or ``[layer, 1, width]``; a spread of 0 is given as 1.
        """
        key = (texts.tobytes(), center, scale)
        if key not in self._moments:
            found = [self._moment(layer, texts, center, scale) for layer in range(len(self.values))]
            self._moments[key] = torch.stack([mean for mean, _ in found]), torch.stack([spread for _, spread in found])
        return self._moments[key]

    @cached_property
    def _moments(self) -> dict[tuple[bytes, bool, str], tuple[Tensor, Tensor]]:
        return {}

    def _moment(self, layer: int, texts: NDArray[np.int64], center: bool, scale: str) -> tuple[Tensor, Tensor]:
        known = self.pooled(layer, texts)
        mean = known.mean(0, keepdim=True) if center else torch.zeros(1, known.shape[1])
        square = (known - mean).square()
        if scale == "layer":
            spread = square[:, : self.widths[layer]].mean().sqrt().view(1, 1)
        else:
            spread = square.mean(0, keepdim=True).sqrt()
        return mean, torch.where(spread > 0, spread, 1)


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


def read_inputs(stored: Mapping[str, Stored], texts: Sequence[str], columns: Sequence[Column]) -> Inputs:
    """The latents of ``texts`` in ``columns``, from the store of each plan.

    Raises:
        SpecError: tokens beside pooled latents, or of two plans, which may cut a text differently.
    """
    if any(column.view == TOKENS for column in columns):
        if len({(column.plan, column.view) for column in columns}) > 1:
            raise SpecError(f"probe.inputs joins {view_name(columns)}: tokens are read alone, and of one plan.")
        read = stored[columns[0].plan].store.read_tokens(texts, [column.layer for column in columns])
        return tokens_as_inputs(read, columns)
    parts = [stored[column.plan].store.read(texts, column.view, [column.layer]) for column in columns]
    return Inputs(stack(parts), tuple(columns), tuple(part.shape[2] for part in parts))


def tokens_as_inputs(read: TokenLatents, columns: Sequence[Column]) -> Inputs:
    """Token states as a probe reads them, their layers in the order of ``columns``."""
    values = torch.from_numpy(np.asarray(read.states, np.float32))
    return Inputs(values, tuple(columns), (values.shape[2],) * len(columns), read.offsets)


def stack(parts: Sequence[Latents]) -> Tensor:
    """``[layer, text, width]`` one after another, as one tensor in float32, padded with zeros to the widest."""
    widest = max(part.shape[2] for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), parts[0].shape[1], widest), np.float32)
    start = 0
    for part in parts:
        stacked[start : start + len(part), :, : part.shape[2]] = part
        start += len(part)
    return torch.from_numpy(stacked)


def sides_of(inputs: Inputs, how: Reading, sides: NDArray[np.int64]) -> list[Side]:
    """Latents of rows, for each side ``[distinct, row, width]``, or its tokens.

    Args:
        sides: ``[order, row, side]``, indices of texts in each order of rows.
    """
    columns = np.moveaxis(sides, -1, 0)
    if inputs.offsets is not None:
        if len(sides) > 1:
            raise ValueError("members that read tokens take rows in one order.")
        layers = None if how.whole else how.sources
        return [tokens_of(inputs.values, inputs.offsets, column[0], layers) for column in columns]
    if how.whole:
        return [inputs.values[:, torch.from_numpy(column[0])] for column in columns]
    layers = how.sources[:, None]
    return [inputs.values[layers, torch.from_numpy(column[how.orders])] for column in columns]


def tokens_of(
    values: Tensor, offsets: NDArray[np.int64], texts: NDArray[np.int64], layers: Tensor | None = None
) -> TokenStates:
    """The tokens of some texts, one after another up to the longest: ``[layer, text, token, width]``."""
    starts, lengths = offsets[texts], np.diff(offsets)[texts]
    places = np.arange(lengths.max())
    real = places < lengths[:, None]
    index = np.where(real, starts[:, None] + places, starts[:, None])
    taken = slice(None) if layers is None else layers[:, None, None]
    return TokenStates(values[taken, torch.from_numpy(index)], torch.from_numpy(real))


def view_name(columns: Sequence[Column]) -> str:
    """The views of some columns, joined, each with its plan: ``mean+cls``, ``echo/mean``."""
    return "+".join(dict.fromkeys(f"{c.plan}/{c.view}" if c.plan else c.view for c in columns))


def only_layer(columns: Sequence[Column]) -> int | None:
    """The layer, where there is one only."""
    layers = {column.layer for column in columns}
    return layers.pop() if len(layers) == 1 else None
