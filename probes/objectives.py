"""Objectives: what a probe says of some rows, and what it costs, for each way that rows are labelled.

An objective knows the latents, the rows and how the two meet; a probe knows neither.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.corpus import Rows
from data.ragged import bounds, ranges
from probes.inputs import Inputs, ragged_of
from probes.losses import LOSSES
from probes.probe import ClassProbe, Probe, alone
from probes.reading import Reading, reading
from probes.spans import best_spans
from probes.token_places import answer_tokens, first_tokens, windows_of
from probes.token_probe import SpanProbe, TagProbe

CHUNK_BYTES = 256 << 20
"""Most latents that are read at once where nothing is learnt."""

IMPOSSIBLE = -1e9
"""The logit of a tag that a word without tokens cannot have."""


class Objective(Protocol):
    """Rows as a probe learns them and speaks of them."""

    def loss(self, probe: Probe, how: Reading, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str) -> Tensor:
        """What some rows cost each member, ``[member]``.

        Args:
            rows: ``[order, row]``.
            orders: ``[member]``, the order that each takes.
            name: of :data:`LOSSES`.
        """

    def said(self, probe: Probe) -> NDArray[np.float32]:
        """What each member says of all rows, ``[member, ...]``."""

    def joint(self, probe: Probe) -> NDArray[np.float32]:
        """What the members say together, shaped as what one says."""


class RowObjective:
    """A number or the logits of classes for every row."""

    def __init__(self, inputs: Inputs, rows: Rows) -> None:
        self.inputs, self.rows = inputs, rows

    def loss(self, probe: Probe, how: Reading, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str) -> Tensor:
        """As :meth:`Objective.loss`."""
        dtype = torch.int64 if isinstance(probe, ClassProbe) else torch.float32
        target = torch.from_numpy(self.rows.targets[rows[orders]]).to(dtype)
        return LOSSES[name](probe(self.inputs.sides(how, self.rows.sides[rows]), how), target)

    def said(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, row]`` numbers or ``[member, row, class]`` logits."""
        if probe.seats.tokens and len(probe.seats.members) > 1:  # each pools with queries of its own
            singles = [alone(probe, member).eval() for member in range(len(probe.seats.members))]
            return np.concatenate([self.said(single) for single in singles])
        how, sides = reading(probe.seats), self.rows.sides
        each = len(probe.seats.sources) * self.inputs.values.shape[2] * 4 * sides.shape[1] * self.inputs.longest
        chunk = max(1, CHUNK_BYTES // each)
        parts = [probe(self.inputs.sides(how, sides[None, at : at + chunk]), how) for at in range(0, len(sides), chunk)]
        said: NDArray[np.float32] = torch.cat(parts, 1).detach().numpy()
        return said

    def joint(self, probe: Probe) -> NDArray[np.float32]:
        """The mean of what the members say."""
        return np.asarray(self.said(probe).mean(0))


class TagObjective:
    """The logits of tags for every word, read off its first token."""

    def __init__(self, inputs: Inputs, rows: Rows) -> None:
        assert rows.marks is not None
        self.inputs, self.rows, self.marks = inputs, rows, rows.marks
        self.windows = inputs.windows[rows.sides[:, 0]]
        self.firsts = first_tokens(inputs, rows)

    def loss(self, probe: Probe, how: Reading, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str) -> Tensor:
        """As :meth:`Objective.loss`; words beyond the end of a cut text cost nothing."""
        logits, words, there = self._logits(probe, how, only_order(rows))
        if not there.any():
            nothing: Tensor = logits.float().sum((1, 2)) * 0  # a mean of none would be nan
            return nothing
        codes = torch.from_numpy(self.marks.codes[words[there]])
        return LOSSES[name](logits[:, torch.from_numpy(there)].float(), codes.expand(logits.shape[0], -1))

    def said(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, word, tag]`` logits; a word beyond the end of a cut text has the first tag, "O"."""
        how, outputs = reading(probe.seats), getattr(probe, "outputs", 0)
        said = np.full((len(probe.seats.members), len(self.marks.codes), outputs), IMPOSSIBLE, np.float32)
        said[..., 0] = 0
        for rows in _chunks(self.inputs, probe, self.windows):
            logits, words, there = self._logits(probe, how, rows)
            said[:, words[there]] = logits[:, torch.from_numpy(there)].detach().numpy()
        return said

    def joint(self, probe: Probe) -> NDArray[np.float32]:
        """The mean of what the members say."""
        return np.asarray(self.said(probe).mean(0))

    def _logits(
        self, probe: Probe, how: Reading, rows: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.bool_]]:
        """Logits of the words of some rows ``[member, word, tag]``, which words, and whether each has a token."""
        assert self.inputs.offsets is not None
        windows = self.windows[rows]
        scores = probe(ragged_of(self.inputs, how, windows), how)
        starts = bounds(np.diff(self.inputs.offsets)[windows])[:-1]
        counts = np.diff(self.marks.offsets)[rows]
        words = ranges(self.marks.offsets[rows], counts)
        there = self.firsts[words] >= 0
        places = self.firsts[words] - np.repeat(self.inputs.offsets[windows] - starts, counts)
        return scores[:, torch.from_numpy(np.where(there, places, 0))], words, there


class SpanObjective:
    """Where the answer of every row starts and ends, over the windows of its text."""

    def __init__(self, inputs: Inputs, rows: Rows) -> None:
        assert inputs.spans is not None
        self.inputs, self.rows, self.spans = inputs, rows, inputs.spans
        self.windows, self.offsets = windows_of(inputs, rows)

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """``[window, 2]``: first and last token of the answer within the window, 0 where it is not there."""
        return answer_tokens(self.inputs, self.rows, self.windows, self.offsets)

    def loss(self, probe: Probe, how: Reading, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str) -> Tensor:
        """As :meth:`Objective.loss`; every window of a row counts the same."""
        chosen = only_order(rows)
        taken = ranges(self.offsets[chosen], np.diff(self.offsets)[chosen])
        return LOSSES[name](self._logits(probe, how, taken).float(), torch.from_numpy(self.targets[taken]))

    def said(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, row, 3]``: first character of the answer in its context, the first after it, and how likely it is.

        The best span of all windows; -1 twice where no token of the context was read.
        """
        return self._spans(probe, len(probe.seats.members), lambda logits: logits)

    def joint(self, probe: Probe) -> NDArray[np.float32]:
        """The best span by the mean of the probabilities that the members give each token."""
        return np.asarray(
            self._spans(probe, 1, lambda logits: torch.softmax(logits, -2).mean(0, keepdim=True).log())[0]
        )

    def _spans(self, probe: Probe, members: int, meet: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        assert self.inputs.offsets is not None
        how, owners = reading(probe.seats), np.repeat(np.arange(len(self.rows)), np.diff(self.offsets))
        said = np.full((members, len(self.rows), 3), -1, np.float32)
        said[..., 2] = 0
        for taken in _chunks(self.inputs, probe, self.windows):
            first, last, likely = best_spans(meet(self._logits(probe, how, taken).detach()))
            starts = self.inputs.offsets[self.windows[taken]]
            begin, end = self.spans[starts + first, 0], self.spans[starts + last, 1]
            for member in range(len(said)):
                for place, row in enumerate(owners[taken]):
                    if likely[member, place] > said[member, row, 2]:
                        said[member, row] = begin[member, place], end[member, place], likely[member, place]
        return said

    def _logits(self, probe: Probe, how: Reading, taken: NDArray[np.int64]) -> Tensor:
        """``[member, window, token, 2]``; -inf where no answer can stand, but for token 0, which says that none is."""
        assert self.inputs.offsets is not None
        windows = self.windows[taken]
        states = ragged_of(self.inputs, how, windows)
        flat = probe(states, how)
        real = np.arange(max(states.lengths)) < np.array(states.lengths)[:, None]
        within = ranges(self.inputs.offsets[windows], np.array(states.lengths))
        allowed = self.spans[within, 0] >= 0
        allowed[bounds(np.array(states.lengths))[:-1]] = True
        padded: Tensor = flat.new_full((len(flat), *real.shape, flat.shape[-1]), -torch.inf)
        padded[:, torch.from_numpy(real)] = flat.masked_fill(~torch.from_numpy(allowed)[:, None], -torch.inf)
        return padded


OBJECTIVES: dict[type[Probe], Callable[[Inputs, Rows], Objective]] = {TagProbe: TagObjective, SpanProbe: SpanObjective}
"""Where rows are not labelled as a whole."""


def objective_of(probe: Probe, inputs: Inputs, rows: Rows) -> Objective:
    """How a probe learns rows and speaks of them."""
    return OBJECTIVES.get(type(probe), RowObjective)(inputs, rows)


def only_order(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[order, row]`` -> ``[row]``, where there is one order."""
    if len(rows) > 1:
        raise ValueError("members that read tokens take rows in one order.")
    return np.asarray(rows[0])


def _chunks(inputs: Inputs, probe: Probe, windows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Places among windows, those of like length together, as many at a time as there is room for."""
    assert inputs.offsets is not None
    lengths = np.diff(inputs.offsets)[windows]
    order = np.argsort(lengths, kind="stable")
    room = max(1, CHUNK_BYTES // (len(probe.seats.sources) * inputs.values.shape[2] * 4))
    filled = np.searchsorted(np.cumsum(lengths[order]) // room, np.arange(lengths.sum() // room + 2)).tolist()
    for start, end in pairwise(filled):
        if start < end:
            yield order[start:end]
