"""Workspace of an experiment: its corpora, their latents and the probe inputs made of them, each loaded once.

Latents come from a provider that is passed in; it decides whether missing latents are extracted or are an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import Progress
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import fingerprint
from permafrost.data.store.plan import CapturePlan, ExtractSpec, resolve_layers
from permafrost.probes.config.columns import resolve_columns
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.finetuned import cached_states, finetuned_inputs
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.providers import FrozenStates, LatentProvider, PlanLatents
from permafrost.probes.inputs.token_inputs import read_inputs
from permafrost.probes.tasks.registry import Problem, make_problem
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.caches import EncoderCache, GetInputs, InputCache

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
        """Key of these latents in :attr:`Workspace.stored`."""
        return fingerprint(self.corpus), self.plan

    @property
    def forward_key(self) -> PlanKey:
        """Key that requests share if one store serves them all: they differ in views only."""
        return fingerprint(self.corpus), replace(self.plan, views=("mean" if self.plan.pools_text else "last",))


class Workspace:
    """Corpora, latents and probe inputs of an experiment, each loaded once."""

    def __init__(
        self,
        provider: LatentProvider,
        progress: Progress,
        input_cache: GetInputs | None = None,
        unfinished: UnfinishedTrainings | None = None,
    ) -> None:
        """Create a workspace that has loaded nothing yet.

        Args:
            input_cache: where inputs are looked up before they are read; the default keeps them in memory.
            unfinished: where checkpoints of trainings under way are kept; None keeps none.
        """
        self.provider, self.progress, self.unfinished = provider, progress, unfinished
        self.encoders = EncoderCache()
        self.stored: dict[PlanKey, PlanLatents] = {}
        self._input_cache = InputCache() if input_cache is None else input_cache
        self._corpora: dict[str, Corpus] = {}
        self._problems: dict[str, Problem] = {}
        self._frozen_states: dict[str, FrozenStates] = {}
        self._lowered: set[str] = set()

    def corpus(self, spec: CorpusSpec) -> Corpus:
        """Return the corpus; the first call reads it and notes its sizes."""
        key = fingerprint(spec)
        if key not in self._corpora:
            corpus = load_corpus(spec)
            sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in corpus.splits.items())
            texts = f"{corpus.text_count:,} texts, {len(corpus.texts):,} distinct, each runs once"
            self.progress.note(f"{corpus.name}: {sizes} rows; {texts}")
            for note in corpus.notes:
                self.progress.note(f"{corpus.name}: {note}")
            self._corpora[key] = corpus
        return self._corpora[key]

    def problem(self, recipe: Recipe) -> Problem:
        """Return what a recipe of one task trains on its corpus: task, head, loss and metric, resolved once.

        Raises:
            CorpusError: the corpus cannot be read, or has nothing to learn.
            SpecError: the recipe names a head, loss or metric that does not fit.
        """
        key = fingerprint([recipe.corpus, recipe.probe.head, recipe.train.loss, recipe.train.metric])
        if key not in self._problems:
            self._problems[key] = make_problem(recipe, self.corpus(recipe.corpus))
        return self._problems[key]

    def prepare(self, recipes: Iterable[Recipe]) -> None:
        """Get the latents that the recipes read; plans that differ in views only share one forward pass.

        Texts of recipes that fine-tune the whole backbone are tokenized before any forward pass.

        Raises:
            SpecError: a recipe fine-tunes blocks, and the backbone cannot be cut there or may not be loaded.
            InputError: a backbone or a text cannot be used.
        """
        requests: dict[PlanKey, list[LatentRequest]] = {}
        for recipe in recipes:
            if recipe.finetune.trains_backbone:
                self.provider.check_blocks(recipe.plan, recipe.extract, recipe.finetune, finetuned_view(recipe)[1])
            if recipe.finetune.cut == "none":
                self._frozen_states_of(recipe)
            corpora = (
                [recipe.corpus] if recipe.pretraining.task == "none" else [recipe.corpus, recipe.pretraining.corpus]
            )
            for plan, corpus in product(recipe.probe_plans().values(), corpora):
                request = LatentRequest(corpus, plan, recipe.extract)
                requests.setdefault(request.forward_key, []).append(request)
        for group in requests.values():
            if any(request.key not in self.stored for request in group):
                self._extract(group)

    def _extract(self, requests: list[LatentRequest]) -> None:
        """Get the latents of requests that differ in views only, in one forward pass."""
        corpus, plan = self.corpus(requests[0].corpus), requests[0].plan
        views = tuple(dict.fromkeys(view for request in requests for view in request.plan.views))
        latents = self.provider.latents(replace(plan, views=views), requests[0].extract, corpus, self.progress)
        limit = latents.store.identity.max_tokens
        if limit < plan.token_limit and plan.backbone not in self._lowered:
            self._lowered.add(plan.backbone)
            self.progress.note(
                f'{plan.backbone} reads {limit} tokens, which plan.max_tokens = "{plan.max_tokens}" becomes'
            )
        cut = f"; {latents.truncated:,} texts cut to {limit} tokens" if latents.truncated else ""
        unit = " windows" if plan.truncation == "windows" else ""
        run = f"{latents.texts_run:,}{unit} of {len(corpus.texts):,} texts run, {latents.seconds:.2f} s"
        self.progress.note(f"stage one, {plan.backbone} on {corpus.name}: {run}{cut}")
        for request in requests:
            columns = {str(view): latents.columns[view] for view in sorted(request.plan.views)}
            if self.stored.setdefault(request.key, replace(latents, columns=columns)).texts_run:
                latents = replace(latents, texts_run=0, seconds=0.0)  # one forward pass is counted once

    def plan_latents(self, recipe: Recipe, spec: CorpusSpec) -> dict[str, PlanLatents]:
        """Return plan name -> latents of a corpus, for every plan that the recipe's probe reads."""
        return {name: self.stored[fingerprint(spec), plan] for name, plan in recipe.probe_plans().items()}

    def latent_identities(self, recipe: Recipe) -> dict[str, str]:
        """Return plan name, or "plan" -> identity of its latents, for every plan that the recipe's probe reads.

        If the whole backbone is fine-tuned, no latents are read: returns the digests of the backbone.
        """
        if recipe.finetune.cut == "none":
            return dict(self.provider.digests(recipe.plan, recipe.extract))
        stored = self.plan_latents(recipe, recipe.corpus)
        return {name or "plan": latents.store.identity.name for name, latents in stored.items()}

    def inputs(self, recipe: Recipe, spec: CorpusSpec) -> ProbeInputs:
        """Return what the recipe's probe reads of a corpus; latents that are missing are got first."""
        key = fingerprint([spec, recipe.probe_plans(), list(recipe.probe.inputs), recipe.probe.layers])

        def read() -> ProbeInputs:
            self.prepare([recipe])
            stored = self.plan_latents(recipe, spec)
            columns = resolve_columns(recipe.probe, {name: latents.columns for name, latents in stored.items()})
            return read_inputs(stored, self.corpus(spec).texts, columns)

        return self._input_cache(key, read)

    def finetuned_inputs(self, recipe: Recipe, blocks: nn.Module | None = None) -> ProbeInputs:
        """Return what the recipe's probe reads of fine-tuned blocks; blocks are created if none are given.

        Raises:
            SpecError: the recipe may not load a backbone, or its probe reads several views.
        """
        view, layers = finetuned_view(recipe)
        blocks = blocks or self.top_blocks(recipe, layers)
        frozen = recipe.finetune.frozen_layer_indices()
        finetuned = [layer for layer in blocks.layers if layer not in frozen]  # type: ignore[union-attr]
        read_layers = (*frozen, *resolve_layers(layers, finetuned))
        return finetuned_inputs(
            blocks, self._frozen_states_of(recipe), view, read_layers, view in recipe.plan.text_views
        )

    def top_blocks(self, recipe: Recipe, layers: tuple[int, ...] | str) -> nn.Module:
        """Create the blocks above the recipe's cut, with the backbone's weights."""
        return self.provider.blocks(recipe.plan, recipe.extract, recipe.finetune, layers)

    def _frozen_states_of(self, recipe: Recipe) -> FrozenStates:
        key = fingerprint([recipe.corpus, recipe.plan, recipe.finetune.cut, recipe.finetune.frozen_layer_indices()])
        if key not in self._frozen_states:
            texts = self.corpus(recipe.corpus).texts
            if recipe.finetune.cut == "none":
                self._frozen_states[key] = self.provider.token_ids(recipe.plan, recipe.extract, texts)
            else:
                self.prepare([recipe])
                self._frozen_states[key] = cached_states(self.plan_latents(recipe, recipe.corpus)[""], texts)
        return self._frozen_states[key]
