"""What is to be extracted, and what was done, whoever runs it: of a recipe, or of new texts that a run predicts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from permafrost import api
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.store.store import PlanLatents
from permafrost.data.streams.texts import TextStream
from permafrost.data.text import Text
from permafrost.extract.distributed.distribution import Distribution
from permafrost.extract.extraction import extract
from permafrost.probes.config.load import check_trainable, load_training
from permafrost.probes.config.recipe import Recipe
from permafrost.stage_one import with_pretrained_backbone
from permafrost.user_data import Data, DataArguments, load_with_data


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """Latents of a request, and what was done for them."""

    corpora: list[Corpus | TextStream]
    latents: list[PlanLatents]
    texts_run: int
    """Number of texts that ran, in whatever process."""

    truncated: int
    """Number of texts that were cut, of those that are stored."""

    missing: int
    """Number of texts that are not stored: parts of other workers, or what failed."""

    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        """What the command prints."""
        facts = {
            "stores": [str(plan.store.path) for plan in self.latents],
            "seconds": self.seconds,
            "texts": sum(corpus.text_count for corpus in self.corpora),
            "texts_distinct": sum(corpus.texts_distinct for corpus in self.corpora),
            "texts_run": self.texts_run,
            "truncated": self.truncated,
        }
        return facts | ({"missing": self.missing} if self.missing else {})


class Request(Protocol):
    """What is to be extracted; it can be sent to other processes."""

    def check(self) -> ExtractSpec:
        """Return how it is extracted; raise an :class:`InputError` if it cannot be used."""

    def prepare(self, progress: Progress) -> None:
        """Do what comes before, once for all workers."""

    def on_device(self, device: str) -> Self:
        """Return the same request on another device."""

    def run(self, progress: Progress, distribution: Distribution | None = None) -> Extracted:
        """Extract what is not stored; raise as :func:`permafrost.extract.extraction.extract`.

        Args:
            distribution: how packs are shared with other processes; None runs all here.
        """


def _extracted(
    corpora: list[Corpus | TextStream], latents: list[PlanLatents], distribution: Distribution | None, started: float
) -> Extracted:
    return Extracted(
        corpora=corpora,
        latents=latents,
        texts_run=sum(plan.texts_run for plan in latents),
        truncated=sum(plan.truncated for plan in latents),
        missing=distribution.missing if distribution else 0,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class ExtractionRequest:
    """A recipe, settings and data, as the command line or Python has them."""

    recipe: str
    overrides: Sequence[str] = ()
    data: Data = None
    columns: Sequence[str] = ()
    target: str = ""

    def load(self) -> tuple[str, Recipe]:
        """Return the recipe and its name.

        Raises:
            InputError: the recipe or the data cannot be used.
        """
        arguments = DataArguments(self.data, self.columns, self.target)
        name, recipe = load_with_data(load_training, self.recipe, self.overrides, arguments)
        check_trainable(name, recipe)
        return name, recipe

    def check(self) -> ExtractSpec:
        """As of :class:`Request`."""
        return self.load()[1].extraction

    def prepare(self, progress: Progress) -> None:
        """Pretrain the recipe's own language model if it names one that is missing."""
        name, recipe = self.load()
        with_pretrained_backbone(name, recipe, None, progress)

    def on_device(self, device: str) -> Self:
        """As of :class:`Request`."""
        return replace(self, overrides=(*self.overrides, f"extract.device={device}"))

    def run(self, progress: Progress, distribution: Distribution | None = None) -> Extracted:
        """As of :class:`Request`."""
        started = time.monotonic()
        own = self.data, self.columns, self.target
        corpora, latents = api.extract(self.recipe, self.overrides, progress, *own, distribution)
        return _extracted(corpora, latents, distribution, started)


@dataclass(frozen=True)
class TextsRequest:
    """Plans and the texts of each, as a finished run or a backbone reads them."""

    plans: tuple[tuple[CapturePlan, tuple[Text, ...]], ...]
    spec: ExtractSpec

    def check(self) -> ExtractSpec:
        """As of :class:`Request`."""
        return self.spec

    def prepare(self, progress: Progress) -> None:
        """Nothing comes before."""

    def on_device(self, device: str) -> Self:
        """As of :class:`Request`."""
        return replace(self, spec=replace(self.spec, device=device))

    def run(self, progress: Progress, distribution: Distribution | None = None) -> Extracted:
        """As of :class:`Request`."""
        started = time.monotonic()
        latents = [extract(plan, texts, self.spec, progress, distribution) for plan, texts in self.plans]
        return _extracted([], latents, distribution, started)
