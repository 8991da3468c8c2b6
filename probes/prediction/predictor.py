"""Predictors of finished runs for new texts; backbones are loaded by a function that the caller provides."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from permafrost.data.progress import Progress
from permafrost.data.ragged import Counts
from permafrost.data.store.plan import Columns
from permafrost.data.text import Text
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.prediction.predict import predict
from permafrost.probes.prediction.requests import tasks_of_items
from permafrost.probes.tasks.base import Item, Prediction


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
    """Predictor of a finished run; every item is predicted by all tasks that can read it."""

    def __init__(self, tasks: Mapping[str, LoadedRun], make_extractor: MakeExtractor) -> None:
        """Create a predictor, which loads backbones at the first prediction.

        Args:
            tasks: task -> its probe; a run of one task has it under the name "probe".
        """
        self.tasks = dict(tasks)
        self._backbones = LoadedBackbones(make_extractor)
        self._extractors: dict[tuple[str, str], TextExtractor] = {}

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
        labels              ``labels``, a list, and ``probabilities`` by label
        tags                ``entities``, each with ``text``, ``start``, ``end``, ``label``, ``probability``
        answers             ``answer``, with ``text`` (empty for none), ``start``, ``end`` and ``score``
        ==================  ================================================================================

        Starts and ends are characters of the original text or context: ``text[start:end]`` is the entity or answer. If
        several tasks of the run can read an item, the fields of each are under ``{"tasks": {name: {...}}}``.

        Args:
            items: one text each, or a tuple of two: a pair, or a question and its context; they may be mixed. A single
                string is one item.
            locations: location of each item for error messages, as ``file:line``; numbers if empty.

        Raises:
            CorpusError: an item is empty, no task reads it, or it is a pair to one task and a question to another.
        """
        given = [
            (item,) if isinstance(item, str) else tuple(item) for item in ([items] if isinstance(items, str) else items)
        ]
        locations = locations or [f"item {number}" for number in range(1, len(given) + 1)]
        readers = tasks_of_items(self.tasks, given, locations)
        by_item: list[dict[str, Prediction]] = [{} for _ in given]
        for task in self.tasks:
            indices = [index for index, tasks in enumerate(readers) if task in tasks]
            own_items, own_locations = [given[index] for index in indices], [locations[index] for index in indices]
            predictions = self.predict_task(task, own_items, progress, own_locations) if indices else []
            for index, prediction in zip(indices, predictions, strict=True):
                by_item[index][task] = prediction
        return [merge_predictions(by_task) for by_task in by_item]

    def predict_task(
        self, task: str, items: Sequence[Item], progress: Progress | None = None, locations: Sequence[str] = ()
    ) -> list[Prediction]:
        """Return the prediction of one task for each item; arguments and errors as of :meth:`predict`."""
        return predict(self.tasks[task], items, partial(self._latents, task), locations, progress)

    def _latents(
        self, task: str, plan: str, texts: Sequence[Text], columns: Columns
    ) -> tuple[Mapping[str, Any], Counts]:
        if (task, plan) not in self._extractors:
            self._extractors[task, plan] = self._backbones(self.tasks[task], plan)
        extractor = self._extractors[task, plan]
        windows, starts = extractor.windowed(texts)
        return extractor(windows, columns), starts


def merge_predictions(by_task: Mapping[str, Prediction]) -> Prediction:
    """Return the prediction of a single task as it is, and those of several tasks under ``tasks``, by task name."""
    return next(iter(by_task.values())) if len(by_task) == 1 else {"tasks": dict(by_task)}
