"""Corpora of an experiment and their latents, each loaded once; nothing here loads torch.

Latents come from a provider that is passed in; it decides whether missing latents are extracted or are an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import fingerprint
from permafrost.data.store.store import PlanLatents
from permafrost.data.text import Segments
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.providers import LatentProvider

PlanKey = tuple[str, CapturePlan]
"""(fingerprint of a corpus spec, capture plan)."""


@dataclass(frozen=True)
class LatentRequest:
    """Latents that a recipe needs: one plan for the texts of one corpus."""

    corpus: CorpusSpec
    plan: CapturePlan
    extract: ExtractSpec

    @property
    def key(self) -> PlanKey:
        """Key of these latents in :attr:`LatentWorkspace.stored`."""
        return fingerprint(self.corpus), self.plan

    @property
    def forward_key(self) -> PlanKey:
        """Key that requests share if one store serves them all: they differ in views only."""
        return fingerprint(self.corpus), replace(self.plan.same_store, layers=self.plan.layers)


def requests_of(recipe: Recipe) -> list[LatentRequest]:
    """Return the latents that a recipe of one task needs."""
    corpora = [recipe.corpus] if recipe.pretraining.task == "none" else [recipe.corpus, recipe.pretraining.corpus]
    return [
        LatentRequest(corpus, plan, recipe.extraction)
        for plan, corpus in product(recipe.probe_plans().values(), corpora)
    ]


def plan_of_all(requests: Sequence[LatentRequest]) -> CapturePlan:
    """Return a plan with the views of several requests that differ in views only."""
    return replace(
        requests[0].plan, views=tuple(dict.fromkeys(view for request in requests for view in request.plan.views))
    )


class LatentWorkspace:
    """Corpora and latents of an experiment, each loaded once."""

    def __init__(self, provider: LatentProvider, progress: Progress) -> None:
        """Create a workspace that has loaded nothing yet."""
        self.provider, self.progress = provider, progress
        self.stored: dict[PlanKey, PlanLatents] = {}
        self._corpora: dict[str, Corpus] = {}
        self._lowered: set[str] = set()

    def corpus(self, spec: CorpusSpec) -> Corpus:
        """Return the corpus; the first call reads it and notes its sizes."""
        key = fingerprint(spec)
        if key not in self._corpora:
            self.add_corpus(spec, load_corpus(spec))
        return self._corpora[key]

    def add_corpus(self, spec: CorpusSpec, corpus: Corpus) -> None:
        """Hold a corpus under its spec, and note its sizes."""
        sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in corpus.splits.items())
        texts = f"{corpus.text_count:,} texts, {len(corpus.texts):,} distinct, each runs once"
        if corpus.source:
            self.progress.note(corpus.source)
        self.progress.note(f"{corpus.name}: {sizes} rows; {texts}")
        for note in corpus.notes:
            self.progress.note(f"{corpus.name}: {note}")
        self._corpora[fingerprint(spec)] = corpus

    def data_digests(self, specs: Iterable[CorpusSpec]) -> dict[str, str]:
        """Return the fingerprint of each corpus spec -> digest of texts, rows and targets as they were read."""
        return {fingerprint(spec): self.corpus(spec).digest for spec in specs}

    def prepare(self, recipes: Iterable[Recipe]) -> None:
        """Get the latents that the recipes read; plans that differ in views only share one forward pass.

        Raises:
            SpecError: a recipe fine-tunes blocks, and the backbone cannot be cut there or may not be loaded.
            InputError: a backbone or a text cannot be used.
        """
        requests: dict[PlanKey, list[LatentRequest]] = {}
        for recipe in recipes:
            self._check(recipe)
            for request in requests_of(recipe):
                requests.setdefault(request.forward_key, []).append(request)
        for group in requests.values():
            if any(request.key not in self.stored for request in group):
                self._extract(group)

    def _check(self, recipe: Recipe) -> None:
        """Raise an :class:`InputError` if the recipe fine-tunes blocks and the backbone or a text forbids it."""
        if recipe.finetune.trains_backbone:
            self.provider.check_blocks(recipe.plan, recipe.extract, recipe.finetune, finetuned_view(recipe)[1])
        if recipe.finetune.cut == "none":  # no latents are read
            texts = self.corpus(recipe.corpus).texts
            self._note_limit(recipe.plan, self.provider.check_token_ids(recipe.plan, recipe.extract, texts))

    def _note_limit(self, plan: CapturePlan, limit: int) -> None:
        if (note := plan.limit_note(limit)) and plan.backbone not in self._lowered:
            self._lowered.add(plan.backbone)
            self.progress.note(note)

    def _extract(self, requests: list[LatentRequest]) -> None:
        """Get the latents of requests that differ in views only, in one forward pass."""
        corpus, plan = self.corpus(requests[0].corpus), plan_of_all(requests)
        latents = self.provider.latents(plan, requests[0].extract, corpus, self.progress)
        unit = " windows" if plan.truncation == "windows" and isinstance(corpus.texts[0], Segments) else ""
        self._keep(requests, latents, corpus.name, f"{unit} of {len(corpus.texts):,}")

    def _keep(self, requests: list[LatentRequest], latents: PlanLatents, name: str, of_texts: str) -> None:
        """Note what ran on a corpus, and hold its latents for each request."""
        plan, limit = requests[0].plan, latents.store.identity.max_tokens
        self._note_limit(plan, limit)
        count = latents.truncated
        cut = f'; {count:,} texts cut to {limit} tokens (plan.truncation = "windows" reads them whole)' if count else ""
        run = f"{latents.texts_run:,}{of_texts} texts run, {latents.seconds:.2f} s"
        self.progress.note(f"stage one, {plan.backbone} on {name}: {run}{cut}")
        for request in requests:
            columns = {str(view): latents.columns[view] for view in sorted(request.plan.views)}
            if self.stored.setdefault(request.key, replace(latents, columns=columns)).texts_run:
                latents = replace(latents, texts_run=0, seconds=0.0)  # one forward pass is counted once

    def plan_latents(self, recipe: Recipe, spec: CorpusSpec) -> dict[str, PlanLatents]:
        """Return plan name -> latents of a corpus, for every plan that the recipe's probe reads."""
        return {name: self.stored[fingerprint(spec), plan] for name, plan in recipe.probe_plans().items()}
