"""Predictors of finished runs for new texts; backbones are loaded by a function that the caller provides."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from permafrost.data.progress import Progress
from permafrost.data.ragged import Counts
from permafrost.data.store.plan import Columns
from permafrost.data.text import Text
from permafrost.probes.prediction.predict import predict
from permafrost.probes.prediction.requests import tasks_of_items
from permafrost.probes.tasks.base import Item, Prediction
from permafrost.probes.tasks.fitted import LoadedRun


class TextExtractor(Protocol):
    """Extractor of one plan, with a loaded backbone."""

    @property
    def backbone(self) -> Any:
        """The loaded backbone, which other plans can share."""

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Return the windows of all texts, and the index of the first window of each text, ``[text + 1]``."""

    def __call__(self, texts: Sequence[Text], columns: Columns) -> Mapping[str, Any]:
        """Return the latents of distinct texts, by view."""


MakeExtractor = Callable[[LoadedRun, str, Any], TextExtractor]
"""Function that makes the extractor of a run's plan, from a loaded backbone if one is given instead of None.

Raises an error if the backbone is not the one that the run was trained on."""


class LoadedBackbones:
    """Cache of loaded backbones; runs with the same backbone share it."""

    def __init__(self, make_extractor: MakeExtractor) -> None:
        self._make_extractor = make_extractor
        self._loaded: dict[tuple[str, ...], Any] = {}

    def __call__(self, run: LoadedRun, plan: str) -> TextExtractor:
        """Return the extractor of a run's plan; load its backbone if it is not loaded yet."""
        key = run.backbone_key(plan)
        extractor = self._make_extractor(run, plan, self._loaded.get(key))
        self._loaded.setdefault(key, extractor.backbone)
        return extractor


class Predictor:
    """Predictor of a run of one task; loads the backbone at the first prediction."""

    def __init__(self, run: LoadedRun, backbones: LoadedBackbones) -> None:
        self.run = run
        self._backbones = backbones
        self._extractors: dict[str, TextExtractor] = {}

    @property
    def tasks(self) -> Mapping[str, "Predictor"]:
        """Predictor of each task: this one, under an empty name."""
        return {"": self}

    def predict(
        self,
        items: str | Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        locations: Sequence[str] = (),
    ) -> list[Prediction]:
        """Return one prediction per item, in order; its fields depend on the task.

        ==================  ================================================================================
        scores              ``score``, in the unit of the corpus
        classes             ``label``, and ``probabilities`` by label
        tags                ``entities``, each with ``text``, ``start``, ``end``, ``label``, ``probability``
        answers             ``answer``, with ``text`` (empty for none), ``start``, ``end`` and ``score``
        ==================  ================================================================================

        Starts and ends are characters of the original text or context: ``text[start:end]`` is the entity or answer.

        Args:
            items: one text each, or a tuple of two: a pair, or a question and its context. A single string is one item.
            locations: location of each item for error messages, as ``file:line``; numbers if empty.

        Raises:
            CorpusError: an item has the wrong number of texts for the run, or an empty text.
        """
        return predict(self.run, _as_items(items), self._latents, locations, progress)

    def _latents(self, plan: str, texts: Sequence[Text], columns: Columns) -> tuple[Mapping[str, Any], Counts]:
        if plan not in self._extractors:
            self._extractors[plan] = self._backbones(self.run, plan)
        windows, starts = self._extractors[plan].windowed(texts)
        return self._extractors[plan](windows, columns), starts


class MultitaskPredictor:
    """Predictor of a multi-task run; every item is predicted by all tasks that can read it."""

    def __init__(self, tasks: Mapping[str, Predictor]) -> None:
        self.tasks = dict(tasks)

    def predict(
        self,
        items: str | Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        locations: Sequence[str] = (),
    ) -> list[Prediction]:
        """Return one prediction per item, in order.

        If one task can read an item, the fields are those of :meth:`Predictor.predict`; if several can, the fields of
        each are under ``{"tasks": {name: {...}}}``.

        Args:
            items, locations: as for :meth:`Predictor.predict`; single texts and tuples of two may be mixed.

        Raises:
            CorpusError: an item is empty, no task reads it, or it is a pair to one task and a question to another.
        """
        given = _as_items(items)
        locations = locations or [f"item {number}" for number in range(1, len(given) + 1)]
        readers = tasks_of_items({task: predictor.run for task, predictor in self.tasks.items()}, given, locations)
        by_item: list[dict[str, Prediction]] = [{} for _ in given]
        for task, predictor in self.tasks.items():
            indices = [index for index, tasks in enumerate(readers) if task in tasks]
            predictions = predictor.predict(
                [given[index] for index in indices], progress, [locations[index] for index in indices]
            )
            for index, prediction in zip(indices, predictions, strict=True):
                by_item[index][task] = prediction
        return [merge_predictions(by_task) for by_task in by_item]


def merge_predictions(by_task: Mapping[str, Prediction]) -> Prediction:
    """Return the prediction of a single task as it is, and those of several tasks under ``tasks``, by task name."""
    return next(iter(by_task.values())) if len(by_task) == 1 else {"tasks": dict(by_task)}


def _as_items(items: str | Sequence[str | tuple[str, ...]]) -> list[Item]:
    given = [items] if isinstance(items, str) else items
    return [(item,) if isinstance(item, str) else tuple(item) for item in given]
