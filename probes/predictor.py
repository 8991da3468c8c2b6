"""A finished run that answers new texts; how a backbone is had for them is handed in."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from data.plan import Columns
from data.progress import Progress
from data.ragged import Counts
from data.text import Text

if TYPE_CHECKING:
    from probes.runs import LoadedRun


class TextExtractor(Protocol):
    """A loaded backbone that serves one plan."""

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Every text with its further windows, and where those of each begin."""

    def __call__(self, texts: Sequence[Text], columns: Columns) -> Mapping[str, Any]:
        """Columns of distinct texts, by view."""


ExtractorOf = Callable[["LoadedRun", str], TextExtractor]
"""The backbone of a run's plan, by the plan's name; an error where it is another than the run was trained on."""


class Predictor:
    """A finished run that answers new texts; the backbone is loaded once, at the first question."""

    def __init__(self, run: "LoadedRun", extractor_of: ExtractorOf) -> None:
        self.run = run
        self._extractor_of = extractor_of
        self._extractors: dict[str, TextExtractor] = {}

    def predict(
        self,
        items: Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        places: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
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
        from probes.predict import predict

        items = [items] if isinstance(items, str) else items
        given = [(item,) if isinstance(item, str) else tuple(item) for item in items]
        return predict(self.run, given, self._latents, places, progress)

    def _latents(self, plan: str, texts: Sequence[Text], columns: Columns) -> tuple[Mapping[str, Any], Counts]:
        if plan not in self._extractors:
            self._extractors[plan] = self._extractor_of(self.run, plan)
        windows, starts = self._extractors[plan].windowed(texts)
        return self._extractors[plan](windows, columns), starts
