"""A finished run that answers new texts; how a backbone is had for them is handed in."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from permafrost.data.progress import Progress
from permafrost.data.ragged import Counts
from permafrost.data.store.plan import Columns
from permafrost.data.text import Text

if TYPE_CHECKING:
    from permafrost.probes.tasks.fitted import LoadedRun


Answer = dict[str, Any]


class TextExtractor(Protocol):
    """A loaded backbone that serves one plan."""

    @property
    def backbone(self) -> Any:
        """What is in memory; another plan can be served from it too."""

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Every text with its further windows, and where those of each begin."""

    def __call__(self, texts: Sequence[Text], columns: Columns) -> Mapping[str, Any]:
        """Columns of distinct texts, by view."""


ExtractorOf = Callable[["LoadedRun", str, Any], TextExtractor]
"""The backbone of a run's plan, by the plan's name, from what is in memory already where that is given; an error where
it is another than the run was trained on."""


class LoadedBackbones:
    """The backbones of several runs; those that read the same one share what is in memory."""

    def __init__(self, extractor_of: ExtractorOf) -> None:
        self._extractor_of = extractor_of
        self._loaded: dict[tuple[str, ...], Any] = {}

    def __call__(self, run: "LoadedRun", plan: str) -> TextExtractor:
        """The backbone of a run's plan, loaded where it is not yet."""
        key = run.backbone(plan)
        made = self._extractor_of(run, plan, self._loaded.get(key))
        self._loaded.setdefault(key, made.backbone)
        return made


class Predictor:
    """A finished run that answers new texts; the backbone is loaded once, at the first question."""

    def __init__(self, run: "LoadedRun", backbones: LoadedBackbones) -> None:
        self.run = run
        self._backbones = backbones
        self._extractors: dict[str, TextExtractor] = {}

    @property
    def tasks(self) -> Mapping[str, "Predictor"]:
        """Itself, as the only task there is."""
        return {"": self}

    def predict(
        self,
        items: str | Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        places: Sequence[str] = (),
    ) -> list[Answer]:
        """One answer per item, in order, by what the run learnt.

        ==================  ================================================================================
        scores              ``score``, in the unit of the corpus
        classes             ``label``, and ``probabilities`` by label
        tags                ``entities``, each with ``text``, ``start``, ``end``, ``label``, ``probability``
        answers             ``answer``, with ``text`` (empty for none), ``start``, ``end`` and ``score``
        ==================  ================================================================================

        Starts and ends count characters of the text, or of the context, as it was given: ``text[start:end]`` is what
        was found.

        Args:
            items: a text each, or a tuple of two: a pair, or a question and its context. A text alone is one item.
            places: of the items, for messages, as ``file:line``; without, they are numbered.

        Raises:
            CorpusError: an item has not the texts that the run reads, or an empty one.
        """
        from permafrost.probes.prediction.predict import predict

        return predict(self.run, _as_items(items), self._latents, places, progress)

    def _latents(self, plan: str, texts: Sequence[Text], columns: Columns) -> tuple[Mapping[str, Any], Counts]:
        if plan not in self._extractors:
            self._extractors[plan] = self._backbones(self.run, plan)
        windows, starts = self._extractors[plan].windowed(texts)
        return self._extractors[plan](windows, columns), starts


class Predictors:
    """Tasks that learnt together, each a finished run: what is asked is answered by all that can read it."""

    def __init__(self, tasks: Mapping[str, Predictor]) -> None:
        self.tasks = dict(tasks)

    def predict(
        self,
        items: str | Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        places: Sequence[str] = (),
    ) -> list[Answer]:
        """One answer per item, in order.

        The fields are those of :meth:`Predictor.predict` where one task reads such items; of several they are under
        ``{"tasks": {name: {...}}}``.

        Args:
            items, places: as of :meth:`Predictor.predict`; texts alone and tuples of two may be mixed.

        Raises:
            CorpusError: an item is empty, or no task reads it, or it is a pair to this task and a question to that.
        """
        from permafrost.probes.prediction.requests import readers

        given = _as_items(items)
        places = places or [f"item {number}" for number in range(1, len(given) + 1)]
        tasks = readers({task: one.run for task, one in self.tasks.items()}, given, places)
        found: list[dict[str, Answer]] = [{} for _ in given]
        for task, one in self.tasks.items():
            mine = [place for place, names in enumerate(tasks) if task in names]
            said = one.predict([given[place] for place in mine], progress, [places[place] for place in mine])
            for place, answer in zip(mine, said, strict=True):
                found[place][task] = answer
        return [by_task(answers) for answers in found]


def by_task(answers: Mapping[str, Answer]) -> Answer:
    """Answers of several tasks as one: the fields of one alone, else all by the names of their tasks."""
    return next(iter(answers.values())) if len(answers) == 1 else {"tasks": dict(answers)}


def _as_items(items: str | Sequence[str | tuple[str, ...]]) -> list[tuple[str, ...]]:
    given = [items] if isinstance(items, str) else items
    return [(item,) if isinstance(item, str) else tuple(item) for item in given]
