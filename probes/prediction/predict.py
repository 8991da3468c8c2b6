"""Predictions of one finished run for new texts; the caller provides the latents of the texts.

Each distinct item is predicted once, in a fixed order and in slices of bounded size: a prediction depends neither on
the order of the items nor on repetitions, and memory does not grow with their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.ragged import Counts, TokenLatents
from permafrost.data.store.plan import Columns
from permafrost.data.store.shard import Latents
from permafrost.data.text import Segments, Text, TextError
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import ProbeInputs, pooled_inputs
from permafrost.probes.inputs.token_inputs import stored_tokens
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.prediction.requests import check_items
from permafrost.probes.tasks.base import Item, Prediction

SLICE_TEXTS = 256
"""Maximum number of texts in a slice."""

SLICE_CHARACTERS = 1 << 16
"""Maximum number of characters in a slice; a longer text has a slice of its own."""


class LatentExtractor(Protocol):
    """Function from texts to their latents."""

    def __call__(
        self, plan: str, texts: Sequence[Text], columns: Columns
    ) -> tuple[Mapping[str, Latents | TokenLatents], Counts]:
        """Return the latents of distinct texts by a named plan; a text that is not too long is one window.

        Args:
            plan: name of the plan.
            texts: distinct texts.
            columns: layers of each view.

        Returns:
            View -> ``[layer, window, width]``, or the tokens of the windows; and the index of the first window of each
            text, ``[text + 1]``.
        """


def predict(
    run: LoadedRun,
    items: Sequence[Item],
    extract: LatentExtractor,
    locations: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Prediction]:
    """Return one prediction per item, in order.

    Args:
        items: as many texts each as a row of the run's corpus; for question answering, a question and its context.
        locations: of the items, for error messages; numbers if empty.

    Returns:
        As of :meth:`permafrost.probes.prediction.predictor.Predictor.predict`, for one task.

    Raises:
        CorpusError: an item has the wrong number of texts, an empty one, or one that the backbone cannot read.
    """
    check_items(run, items, locations)
    read = partial(_read_inputs, run, extract)
    predictions: dict[Item, Prediction] = {}
    with (progress or NoProgress()).bar("answering", len(set(items))) as advance, torch.inference_mode():
        for distinct in _slices(items):
            try:
                predictions |= zip(distinct, run.answers(distinct, read), strict=True)
            except TextError as error:
                raise CorpusError(f"{_message_prefix(error.text, items, locations)}{error}") from error
            advance(len(distinct))
    return [dict(predictions[item]) for item in items]


def _message_prefix(text: Text, items: Sequence[Item], locations: Sequence[str]) -> str:
    """Return the location of the first item with a text, as the start of a message; empty if no item has it."""
    for index, item in enumerate(items):
        if text in item or (isinstance(text, Segments) and item == (text.first, text.second)):
            return f"{locations[index] if locations else f'item {index + 1}'}: "
    return ""


def _slices(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the distinct items in slices, items of similar length together; a pair is next to its reverse."""
    current: list[Item] = []
    texts = characters = 0
    for item in sorted(set(items), key=lambda item: (sum(map(len, item)), sorted(item), item)):
        size = sum(map(len, item))
        if current and (texts + len(item) > SLICE_TEXTS or characters + size > SLICE_CHARACTERS):
            yield current
            current, texts, characters = [], 0, 0
        current.append(item)
        texts, characters = texts + len(item), characters + size
    if current:
        yield current


def _read_inputs(run: LoadedRun, extract: LatentExtractor, texts: Sequence[Text]) -> ProbeInputs:
    """Return the latents of texts, in the order of the run's columns."""
    by_column: dict[Column, Latents] = {}
    for plan in dict.fromkeys(column.plan for column in run.columns):
        view_layers: dict[str, tuple[int, ...]] = {}
        for _, view, layer in sorted(column for column in run.columns if column.plan == plan):
            view_layers[view] = (*view_layers.get(view, ()), layer)
        views, starts = extract(plan, texts, view_layers)
        for view, layers in view_layers.items():
            latents = views[view]
            if isinstance(latents, TokenLatents):  # tokens are always read alone
                tokens = _in_order(latents, layers, run.columns)
                return stored_tokens(tokens.select, tokens.index(starts), run.columns, tokens.states.shape[2])
            by_column |= {Column(plan, view, layer): latents[[index]] for index, layer in enumerate(layers)}
    return pooled_inputs([by_column[column] for column in run.columns], run.columns)


def _in_order(tokens: TokenLatents, layers: Sequence[int], columns: Sequence[Column]) -> TokenLatents:
    """Return token latents with their layers in the order of some columns."""
    order = [layers.index(column.layer) for column in columns]
    return tokens if order == sorted(order) else replace(tokens, states=tokens.states[order])
