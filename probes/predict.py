"""Predictions of a finished run on new texts: whoever calls says how texts become latents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.corpus import CorpusError, Rows
from data.files import read_table, select
from data.plan import Columns
from data.ragged import TokenLatents
from data.shard import Latents
from probes.experiment import predictions
from probes.inputs import TOKENS, Column, Inputs, stack, tokens_as_inputs
from probes.results import in_unit, probabilities
from probes.runs import LoadedRun

LatentsOf = Callable[[str, Sequence[str], Columns], Mapping[str, Latents | TokenLatents]]
"""Name of a plan, distinct texts and columns -> view -> ``[layer, text, width]``, or the tokens."""

Item = tuple[str, ...]
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"))
SINGLES = (("sentence",),)


def predict(run: LoadedRun, items: Sequence[Item], latents_of: LatentsOf) -> list[dict[str, Any]]:
    """One answer per item, in order: ``score`` in the corpus's unit, or ``label`` and ``probabilities``.

    Raises:
        CorpusError: an item has the wrong number of texts, or an empty one.
    """
    for number, item in enumerate(items, 1):
        if len(item) != run.sides:
            raise CorpusError(f"item {number}: this run reads {run.sides} text(s) an item, got {len(item)}.")
        if not all(text.strip() for text in item):
            raise CorpusError(f"item {number}: a text is empty.")
    if not items:
        return []
    index = {text: place for place, text in enumerate(dict.fromkeys(text for item in items for text in item))}
    inputs = _inputs(run, list(index), latents_of)
    sides = np.array([[index[text] for text in item] for item in items])
    with torch.inference_mode():
        raw = predictions(run.probe, inputs, Rows(sides, np.zeros(len(sides)))).mean(0)
    if run.calibration and run.score_range:
        return [{"score": float(score)} for score in in_unit(run.calibration(raw), run.score_range)]
    return [
        {"label": run.labels[best], "probabilities": dict(zip(run.labels, map(float, said), strict=True))}
        for best, said in zip(raw.argmax(1), probabilities(raw), strict=True)
    ]


def read_items(run: LoadedRun, path: Path) -> Iterator[Item]:
    """The texts of a file, by the columns the run was trained on or the usual names for them."""
    own = run.recipe.corpus.columns[: run.sides]
    names = [own] if len(own) == run.sides else []
    names += PAIRS if run.sides == 2 else SINGLES
    columns: Item = ()
    for row in read_table(path):
        columns = columns or next((known for known in names if set(known) <= set(row[1])), names[0])
        yield select(row, columns)


def _inputs(run: LoadedRun, texts: Sequence[str], latents_of: LatentsOf) -> Inputs:
    """The latents of texts, in the order of the run's columns."""
    found: dict[Column, Latents] = {}
    for plan in dict.fromkeys(column.plan for column in run.columns):
        wanted: dict[str, tuple[int, ...]] = {}
        for _, view, layer in sorted(column for column in run.columns if column.plan == plan):
            wanted[view] = (*wanted.get(view, ()), layer)
        latents = latents_of(plan, texts, wanted)
        if isinstance(read := latents.get(TOKENS), TokenLatents):
            return tokens_as_inputs(read, sorted(run.columns))
        for view, layers in wanted.items():
            pooled = latents[view]
            assert not isinstance(pooled, TokenLatents)
            found |= {Column(plan, view, layer): pooled[[at]] for at, layer in enumerate(layers)}
    return Inputs(stack([found[column] for column in run.columns]), run.columns, run.probe.seats.input_widths)
