"""What the command extract is asked for, and what it answers, whoever runs it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from permafrost import api
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.store.store import PlanLatents
from permafrost.data.streams.texts import TextStream
from permafrost.extract.distributed.distribution import Distribution
from permafrost.probes.config.load import check_trainable, load_training
from permafrost.probes.config.recipe import Recipe
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

    def run(self, progress: Progress, distribution: Distribution | None = None) -> Extracted:
        """Extract what is not stored; raise as :func:`permafrost.extract.extraction.extract`.

        Args:
            distribution: how packs are shared with other processes; None runs all here.
        """
        started = time.monotonic()
        own = self.data, self.columns, self.target
        corpora, latents = api.extract(self.recipe, self.overrides, progress, *own, distribution)
        return Extracted(
            corpora=corpora,
            latents=latents,
            texts_run=sum(plan.texts_run for plan in latents),
            truncated=sum(plan.truncated for plan in latents),
            missing=distribution.missing if distribution else 0,
            seconds=time.monotonic() - started,
        )
