"""Predictions of a finished run on new texts: whoever calls says how texts become latents.

Distinct items are answered once, in an order of their own and in slices of bounded size: neither the order in which
they are asked nor how often changes an answer, and many take no more memory than some.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch

from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import Progress, Silent
from permafrost.data.ragged import Counts, TokenLatents
from permafrost.data.store.plan import Columns
from permafrost.data.store.shard import Latents
from permafrost.data.text import Segments, Text, TextError
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import ProbeInputs, stack, tokens_as_inputs
from permafrost.probes.prediction.requests import check_items
from permafrost.probes.tasks.base import Answer, Item
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.registry import ANSWERED

SLICE_TEXTS = 256

SLICE_CHARACTERS = 1 << 16
"""Most texts, and characters of them, that are answered at once; a longer text is alone."""


class LatentsOf(Protocol):
    """How texts become latents."""

    def __call__(
        self, plan: str, texts: Sequence[Text], columns: Columns
    ) -> tuple[Mapping[str, Latents | TokenLatents], Counts]:
        """Columns of a named plan for distinct texts; a text that is not too long is one window.

        Returns:
            view -> ``[layer, window, width]``, or the tokens of windows; and ``[text + 1]``, where the windows of each
            text begin.
        """


def predict(
    run: LoadedRun,
    items: Sequence[Item],
    latents_of: LatentsOf,
    places: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Answer]:
    """One answer per item, in order.

    Args:
        items: as many texts each as a row of the run's corpus; for answers, a question and its context.
        places: of the items, for messages; without, they are numbered.

    Returns:
        by the kind of the run's targets: ``score`` in the corpus's unit; ``label`` and ``probabilities``; ``entities``,
        each with ``text``, ``start``, ``end``, ``label`` and ``probability``; or ``answer``, with ``text``, ``start``,
        ``end`` and ``score``. Starts and ends are characters of the text, or of the context, as it was given.

    Raises:
        CorpusError: an item has the wrong number of texts, an empty one, or one that the backbone cannot read.
    """
    check_items(run, items, places)
    read, said = partial(_inputs, run, latents_of), ANSWERED[run.kind]
    found: dict[Item, Answer] = {}
    with (progress or Silent()).bar("answering", len(set(items))) as advance, torch.inference_mode():
        for some in _slices(items):
            try:
                found |= zip(some, said(run, some, read), strict=True)
            except TextError as error:
                raise CorpusError(f"{_place(error.text, items, places)}{error}") from error
            advance(len(some))
    return [dict(found[item]) for item in items]


def _place(text: Text, items: Sequence[Item], places: Sequence[str]) -> str:
    """How a message about a text begins: with the first item that has it; nothing where none has it as it is."""
    for number, item in enumerate(items):
        if text in item or (isinstance(text, Segments) and item == (text.first, text.second)):
            return f"{places[number] if places else f'item {number + 1}'}: "
    return ""


def _slices(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The distinct items, those of like length together; a pair lies beside its own reverse."""
    some: list[Item] = []
    texts = characters = 0
    for item in sorted(set(items), key=lambda item: (sum(map(len, item)), sorted(item), item)):
        size = sum(map(len, item))
        if some and (texts + len(item) > SLICE_TEXTS or characters + size > SLICE_CHARACTERS):
            yield some
            some, texts, characters = [], 0, 0
        some.append(item)
        texts, characters = texts + len(item), characters + size
    if some:
        yield some


def _inputs(run: LoadedRun, latents_of: LatentsOf, texts: Sequence[Text]) -> ProbeInputs:
    """The latents of texts, in the order of the run's columns."""
    found: dict[Column, Latents] = {}
    for plan in dict.fromkeys(column.plan for column in run.columns):
        wanted: dict[str, tuple[int, ...]] = {}
        for _, view, layer in sorted(column for column in run.columns if column.plan == plan):
            wanted[view] = (*wanted.get(view, ()), layer)
        latents, starts = latents_of(plan, texts, wanted)
        for view, layers in wanted.items():
            read = latents[view]
            if isinstance(read, TokenLatents):
                order = [layers.index(column.layer) for column in run.columns]
                states = read.states if order == sorted(order) else read.states[order]
                ordered = TokenLatents(states, read.offsets, read.ids, read.spans)
                return tokens_as_inputs(ordered, run.columns, starts)
            found |= {Column(plan, view, layer): read[[at]] for at, layer in enumerate(layers)}
    values = stack([found[column] for column in run.columns])
    return ProbeInputs(values=values, columns=run.columns, widths=run.probe.layout.input_widths)
