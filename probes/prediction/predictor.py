"""Predictors of finished runs for new texts; backbones are loaded by a function that the caller provides.

Each distinct item is predicted once, in a fixed order and in slices of bounded size: a prediction depends neither on
the order of the items nor on repetitions, and memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.corpora.records import CorpusError
from permafrost.data.device.transfer import to_numpy
from permafrost.data.plan.plan import Columns
from permafrost.data.progress import Progress, ProgressOption, given_display
from permafrost.data.ragged import Counts, TokenLatents
from permafrost.data.spec import SpecError, nearest
from permafrost.data.store.block import Latents
from permafrost.data.text import Segments, Text, TextError, list_of_texts
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import ProbeInputs, pooled_inputs
from permafrost.probes.inputs.token_inputs import stored_tokens
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.prediction.embedding import describe_vectors, text_vectors
from permafrost.probes.prediction.items import check_items, check_text, list_of_items, tasks_of_items
from permafrost.probes.tasks.base import Item, Prediction

SLICE_TEXTS = 256
"""Maximum number of texts in a slice."""

SLICE_CHARACTERS = 1 << 16
"""Maximum number of characters in a slice; a longer text has a slice of its own."""


class TextExtractor(Protocol):
    """Extractor of one plan, with a loaded backbone."""

    @property
    def backbone(self) -> Any:
        """The loaded backbone, which other plans can share."""

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Return the windows of all texts, and the index of the first window of each text, ``[text + 1]``."""

    def __call__(self, texts: Sequence[Text], columns: Columns) -> Mapping[str, Latents | TokenLatents]:
        """Return the latents of distinct texts by view, ``[layer, text, width]`` or the tokens of the texts."""


MakeExtractor = Callable[[LoadedRun, str, Any], TextExtractor]
"""Function that makes the extractor of a run's plan, from a loaded backbone if one is given instead of None.

Raises an error if the backbone is not the one that the run was trained on."""


class Predictor:
    """Predictor of a finished run; every item is predicted by all tasks that can read it."""

    def __init__(
        self,
        tasks: Mapping[str, LoadedRun],
        make_extractor: MakeExtractor,
        display_of: Callable[[ProgressOption], Progress] = given_display,
    ) -> None:
        """Create a predictor, which loads backbones at the first prediction.

        Args:
            tasks: task -> its probe; a run of one task has it under the name "probe".
            display_of: returns the display that an argument ``progress`` asks for.
        """
        self.tasks = dict(tasks)
        self._make_extractor, self._display_of = make_extractor, display_of
        self._backbones: dict[tuple[str, ...], Any] = {}
        self._extractors: dict[tuple[str, str], TextExtractor] = {}

    def predict(
        self,
        items: str | Sequence[str | tuple[str, ...]],
        progress: ProgressOption = None,
        locations: Sequence[str] = (),
    ) -> list[Prediction]:
        """Return one prediction per item, in order; its fields depend on the task.

        ==================  ================================================================================
        scores              ``score``, in the unit of the corpus; ``raw``, the same before calibration
        classes             ``label``, and ``probabilities`` by label
        labels              ``labels``, a list, and ``probabilities`` by label
        tags                ``entities``, each with ``text``, ``start``, ``end``, ``label``, ``probability``
        pairs to rank       ``score``, and ``rank`` among the items with the same query
        answers             ``answer``, with ``text`` (empty for none), ``start``, ``end`` and ``score``; of a run
                            whose corpus has questions without an answer, also ``has_answer`` and ``null_score``
        ==================  ================================================================================

        Starts and ends are characters of the original text or context: ``text[start:end]`` is the entity or answer. If
        several tasks of the run can read an item, the fields of each are under ``{"tasks": {name: {...}}}``.

        Args:
            items: one text each, or a tuple of two: a pair, or a question and its context; they may be mixed. A single
                string is one item.
            locations: location of each item for error messages, as ``file:line``; numbers if empty.

        Raises:
            CorpusError: an item is empty or no text, no task reads it, it is a pair to one task and a question to
                another, or the backbone cannot read it.
        """
        given = list_of_items(items, locations)
        locations = locations or [f"item {number}" for number in range(1, len(given) + 1)]
        readers = tasks_of_items(self.tasks, given, locations)
        by_item: list[dict[str, Prediction]] = [{} for _ in given]
        for task in self.tasks:
            indices = [index for index, tasks in enumerate(readers) if task in tasks]
            own_items, own_locations = [given[index] for index in indices], [locations[index] for index in indices]
            predictions = self.predict_task(task, own_items, progress, own_locations) if indices else []
            for index, prediction in zip(indices, predictions, strict=True):
                by_item[index][task] = prediction
        return [next(iter(by_task.values())) if len(by_task) == 1 else {"tasks": by_task} for by_task in by_item]

    def predict_task(
        self, task: str, items: Sequence[Item], progress: ProgressOption = None, locations: Sequence[str] = ()
    ) -> list[Prediction]:
        """Return the prediction of one task for each item; arguments and errors as of :meth:`predict`."""
        run, items = self.tasks[task], list_of_items(items, locations)
        locations = locations or [f"item {number}" for number in range(1, len(items) + 1)]
        check_items(run, items, locations)
        predictions: dict[Item, Prediction] = {}
        with self._display_of(progress).bar("answering", len(set(items))) as advance, torch.inference_mode():
            for distinct in _slices(items):
                try:
                    predictions |= zip(distinct, run.answers(distinct, partial(self._inputs, task)), strict=True)
                except TextError as error:
                    text = (error.text.first, error.text.second) if isinstance(error.text, Segments) else error.text
                    asked = [location for item, location in zip(items, locations, strict=True) if text in (item, *item)]
                    raise CorpusError(f"{asked[0]}: {error}" if asked else str(error)) from error
                advance(len(distinct))
        return run.task.compared(items, [dict(predictions[item]) for item in items])

    def embed(self, texts: str | Sequence[str], task: str = "", progress: ProgressOption = None) -> NDArray[np.float32]:
        """Return the vectors that the probe makes of texts, ``[text, width]``.

        The cosine of two of them is the raw score of the pair, if :func:`describe_vectors` says so.

        Args:
            texts: one text each, also if the run reads pairs; repeated ones are run once.
            task: whose probe makes the vectors, if the run has several.

        Raises:
            SpecError: the run has several tasks and none is named, or it predicts from single tokens; or one of the
                texts is no string.
            CorpusError: a text is empty, or the backbone cannot read it.
        """
        texts = list_of_texts([texts] if isinstance(texts, str) else texts)
        task = self.task_to_embed(task)
        run, vectors = self.tasks[task], dict[str, NDArray[np.float32]]()
        describe_vectors(run)
        for number, text in enumerate(texts, 1):
            check_text(f"text {number}", "text", text)
        with self._display_of(progress).bar("embedding", len(set(texts))) as advance, torch.inference_mode():
            for items in _slices([(text,) for text in texts]):
                distinct = [text for (text,) in items]
                try:
                    made = to_numpy(text_vectors(run.probe, self._inputs(task, distinct), len(distinct)))
                except TextError as error:
                    number = texts.index(str(error.text)) + 1 if error.text in texts else 0
                    raise CorpusError(f"text {number}: {error}") from error
                vectors |= zip(distinct, made, strict=True)
                advance(len(distinct))
        return np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def task_to_embed(self, task: str = "") -> str:
        """Return the task whose probe embeds texts; raise a :class:`SpecError` if it is not clear which."""
        if task and task not in self.tasks:
            raise SpecError(f"this run has no task '{task}'. {nearest(task, self.tasks)}")
        if not task and len(self.tasks) > 1:
            raise SpecError(f"this run has several tasks: set task (--task) to one of {', '.join(self.tasks)}.")
        return task or next(iter(self.tasks))

    def columns_by_plan(self, task: str) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return what the probe of a task reads: name of a plan -> view -> layers."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        columns = self.tasks[task].columns
        for plan in dict.fromkeys(column.plan for column in columns):
            for _, view, layer in sorted(column for column in columns if column.plan == plan):
                layers = found.setdefault(plan, {})
                layers[view] = (*layers.get(view, ()), layer)
        return found

    def read_by(self, task: str, plan: str, extractor: TextExtractor) -> None:
        """Read the latents of a task's plan by an extractor of the caller."""
        self._extractors[task, plan] = extractor

    def _inputs(self, task: str, texts: Sequence[Text]) -> ProbeInputs:
        """Return the latents of texts, in the order of the run's columns."""
        columns, device = self.tasks[task].columns, self.tasks[task].probe.device
        by_column: dict[Column, Latents] = {}
        for plan, view_layers in self.columns_by_plan(task).items():
            extractor = self._extractor(task, plan)
            windows, starts = extractor.windowed(texts)  # a text that is not too long is one window
            views = extractor(windows, view_layers)
            for view, layers in view_layers.items():
                latents = views[view]
                if isinstance(latents, TokenLatents):  # tokens are always read alone
                    order = [layers.index(column.layer) for column in columns]
                    in_order = order == sorted(order)
                    tokens = latents if in_order else replace(latents, states=latents.states[order])
                    inputs = stored_tokens(tokens.select, tokens.index(starts), columns, tokens.states.shape[2])
                    return inputs.to(device)
                by_column |= {Column(plan, view, layer): latents[[index]] for index, layer in enumerate(layers)}
        return pooled_inputs([by_column[column] for column in columns], columns).to(device)

    def _extractor(self, task: str, plan: str) -> TextExtractor:
        """Return the extractor of a task's plan; runs with the same backbone share it."""
        if (task, plan) not in self._extractors:
            run = self.tasks[task]
            key = run.backbone_key(plan)
            extractor = self._make_extractor(run, plan, self._backbones.get(key))
            self._backbones.setdefault(key, extractor.backbone)
            self._extractors[task, plan] = extractor
        return self._extractors[task, plan]


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
