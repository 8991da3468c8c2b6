"""Conducting a recipe: its corpora, their latents, the pretraining and training of every variant.

Stage one is a callable that is handed in: whoever calls says whether what is missing is run, or an error.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import Progress
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import SpecError, fingerprint
from permafrost.data.store.layers import resolve_layers
from permafrost.data.store.plan import CapturePlan
from permafrost.probes.config.columns import wanted_columns
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.finetuned import FinetunedInputs, cached_states, finetuned_inputs
from permafrost.probes.inputs.latents import ProbeInputs, read_inputs
from permafrost.probes.inputs.providers import FrozenStates, LatentProvider, PlanLatents
from permafrost.probes.search.trials import Evaluation
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder, pretrain
from permafrost.probes.training.loop import AfterEpoch
from permafrost.probes.training.resume import Unfinished
from permafrost.probes.variants.members import MemberConfig, start, train_members
from permafrost.probes.variants.trained_variant import TrainedVariant, combine_seeds

KEPT_BYTES = 4 << 30
"""Latents kept in memory for the next variant that reads the same."""

KEPT_ENCODERS = 32
"""Pretrained encoders kept for the next variant that begins with the same."""

Keep = Callable[[str, Callable[[], ProbeInputs]], ProbeInputs]
"""Key, and how to make its inputs where they are not at hand -> the inputs."""


class InputCache:
    """Inputs in memory: those used last, as many as there is room for."""

    def __init__(self) -> None:
        self._inputs: OrderedDict[str, ProbeInputs] = OrderedDict()

    def __call__(self, key: str, make: Callable[[], ProbeInputs]) -> ProbeInputs:
        """The inputs of a key, made where they are not in memory."""
        if key not in self._inputs:
            self._inputs[key] = make()
        self._inputs.move_to_end(key)
        while len(self._inputs) > 1 and sum(one.values.nbytes for one in self._inputs.values()) > KEPT_BYTES:
            self._inputs.popitem(last=False)
        return self._inputs[key]


@dataclass
class Workspace:
    """Corpora and latents of an experiment, each read once."""

    provider: LatentProvider
    progress: Progress
    keep: Keep = field(default_factory=InputCache)
    stored: dict[tuple[str, CapturePlan], PlanLatents] = field(default_factory=dict)
    """(corpus, plan) -> where its latents are."""

    unfinished: Unfinished | None = None
    """Where trainings are kept while they last."""

    _corpora: dict[str, Corpus] = field(default_factory=dict)
    _frozen_states: dict[str, FrozenStates] = field(default_factory=dict)
    _pretrained: dict[str, PretrainedEncoder] = field(default_factory=dict)

    def corpus(self, spec: CorpusSpec) -> Corpus:
        """The corpus, read and announced once."""
        key = fingerprint(spec)
        if key not in self._corpora:
            corpus = load_corpus(spec)
            sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in corpus.splits.items())
            texts = f"{corpus.sentences:,} texts, {len(corpus.texts):,} distinct, each runs once"
            self.progress.note(f"{corpus.name}: {sizes} rows; {texts}")
            for note in corpus.notes:
                self.progress.note(f"{corpus.name}: {note}")
            self._corpora[key] = corpus
        return self._corpora[key]

    def prepare(self, recipes: Iterable[Recipe]) -> None:
        """Stage one for all that the recipes read; plans that differ in views only share one forward.

        Texts that blocks are to read from the text on are tokenised before anything runs.

        Raises:
            SpecError: blocks are to learn, and the backbone cannot be cut there, or may not be loaded.
            InputError: a backbone or a text cannot be used.
        """
        wanted: dict[tuple[str, CapturePlan], list[tuple[CorpusSpec, Recipe, CapturePlan]]] = {}
        for recipe in recipes:
            if recipe.finetune.learns:
                self.provider.check_blocks(recipe.plan, recipe.finetune, finetuned_view(recipe)[1])
            if recipe.finetune.cut == "none":
                self._frozen_states_of(recipe)
            for plan in recipe.probe_plans().values():
                for spec in _corpora_of(recipe):
                    key = fingerprint(spec), replace(plan, views=("mean",))
                    wanted.setdefault(key, []).append((spec, recipe, plan))
        for (_, common), asked in wanted.items():
            if any(self._key(spec, plan) not in self.stored for spec, _, plan in asked):
                self._extract(common, asked)

    def _extract(self, common: CapturePlan, asked: list[tuple[CorpusSpec, Recipe, CapturePlan]]) -> None:
        spec, recipe, _ = asked[0]
        corpus = self.corpus(spec)
        views = tuple(dict.fromkeys(view for _, _, plan in asked for view in plan.views))
        one = self.provider.latents(replace(common, views=views), recipe.extract, corpus, self.progress)
        cut = f"; {one.truncated:,} texts cut to {common.max_tokens} tokens" if one.truncated else ""
        ran = f"{one.texts_run:,}{' windows' if common.truncation == 'windows' else ''} of {len(corpus.texts):,} texts"
        self.progress.note(f"stage one, {common.backbone} on {corpus.name}: {ran} run, {one.seconds:.2f} s{cut}")
        for _, _, plan in asked:
            columns = {str(view): one.columns[view] for view in sorted(plan.views)}
            if self.stored.setdefault(self._key(spec, plan), replace(one, columns=columns)).texts_run:
                one = replace(one, texts_run=0, seconds=0.0)  # they ran once, and count once

    def sources(self, recipe: Recipe, spec: CorpusSpec) -> dict[str, PlanLatents]:
        """Name -> where the latents are of every plan that the recipe's probe reads."""
        return {name: self.stored[self._key(spec, plan)] for name, plan in recipe.probe_plans().items()}

    def latents(self, recipe: Recipe) -> dict[str, str]:
        """Name of a plan that the recipe's probe reads, or "plan" -> the identity of its latents; where it reads no
        latents, the digests of the backbone that runs from the text on.
        """
        if recipe.finetune.cut == "none":
            return dict(self.provider.digests(recipe.plan, recipe.extract))
        return {name or "plan": one.store.identity.name for name, one in self.sources(recipe, recipe.corpus).items()}

    def inputs(self, recipe: Recipe, spec: CorpusSpec) -> ProbeInputs:
        """What the recipe's probe reads of a corpus's texts; stage one runs first where it has not yet."""
        key = fingerprint([spec, recipe.probe_plans(), list(recipe.probe.inputs), recipe.probe.layers])

        def make() -> ProbeInputs:
            self.prepare([recipe])
            stored = self.sources(recipe, spec)
            columns = wanted_columns(recipe.probe, {name: one.columns for name, one in stored.items()})
            return read_inputs(stored, self.corpus(spec).texts, columns)

        return self.keep(key, make)

    def finetuned_inputs(self, recipe: Recipe, blocks: nn.Module | None = None) -> FinetunedInputs:
        """What the recipe's probe reads of blocks that learn; fresh ones where none are given.

        Raises:
            SpecError: the recipe may not load a backbone, or its probe reads several views.
        """
        view, layers = finetuned_view(recipe)
        blocks = blocks or self.top_blocks(recipe, layers)
        beside = recipe.finetune.frozen_layer_indices()
        above = [layer for layer in blocks.layers if layer not in beside]  # type: ignore[union-attr]
        return finetuned_inputs(blocks, self._frozen_states_of(recipe), view, (*beside, *resolve_layers(layers, above)))

    def top_blocks(self, recipe: Recipe, layers: tuple[int, ...] | str) -> nn.Module:
        """Fresh blocks above the recipe's cut."""
        return self.provider.blocks(recipe.plan, recipe.finetune, layers)

    def _frozen_states_of(self, recipe: Recipe) -> FrozenStates:
        key = fingerprint([recipe.corpus, recipe.plan, recipe.finetune.cut, recipe.finetune.frozen_layer_indices()])
        if key not in self._frozen_states:
            texts = self.corpus(recipe.corpus).texts
            if recipe.finetune.cut == "none":
                self._frozen_states[key] = self.provider.token_ids(recipe.plan, texts)
            else:
                self.prepare([recipe])
                self._frozen_states[key] = cached_states(self.sources(recipe, recipe.corpus)[""], texts)
        return self._frozen_states[key]

    def members(self, variant: str, recipe: Recipe) -> list[MemberConfig]:
        """The variant's trainings, one a seed, their encoders pretrained where the recipe says so."""
        if recipe.finetune.learns:
            found = [(seed, self.finetuned_inputs(recipe)) for seed in recipe.train.seeds]
            return [MemberConfig(variant, recipe, own, tuple(range(len(own.columns))), seed) for seed, own in found]
        inputs = self.inputs(recipe, recipe.corpus)
        everything = tuple(range(len(inputs.columns)))
        members = [MemberConfig(variant, recipe, inputs, everything, seed) for seed in recipe.train.seeds]
        if recipe.pretraining.task == "none":
            return members
        return [replace(member, pretrained=self._pretrain(member)) for member in members]

    def _pretrain(self, member: MemberConfig) -> PretrainedEncoder:
        recipe, spec = member.recipe, member.recipe.pretraining
        encoder = recipe.probe if recipe.probe.mixer == "unified" else replace(recipe.probe, mixer="softmax", hidden=0)
        plans = list(recipe.probe_plans().values())
        key = fingerprint([encoder, spec, plans, recipe.corpus, list(member.inputs.columns), member.seed])
        if key not in self._pretrained:
            probe = start(member, self.corpus(recipe.corpus))
            corpus, inputs = self.corpus(spec.corpus), self.inputs(recipe, spec.corpus)
            while len(self._pretrained) >= KEPT_ENCODERS:  # a study meets a new one in every trial
                self._pretrained.pop(next(iter(self._pretrained)))
            self._pretrained[key] = pretrain(probe, spec, corpus, inputs, member.seed, self.progress)
        return self._pretrained[key]

    def train(self, variant: str, recipe: Recipe) -> TrainedVariant:
        """Train every seed of a variant."""
        corpus = self.corpus(recipe.corpus)
        keep = self.unfinished
        trained = train_members(
            self.members(variant, recipe),
            corpus,
            self.progress,
            None,
            partial(_checkpoint, keep, self.latents(recipe)) if keep else None,
        )
        for one in trained:
            if one.history.best_epoch < 0:
                raise SpecError(
                    f"{variant}: its metric was never finite: its predictions of {corpus.selection} are constant."
                )
            self.progress.note(
                f"{variant}, seed {one.seed}: best epoch {one.history.best_epoch + 1} of {len(one.history.values)}, "
                f"{corpus.selection} {one.history.best_value:.4f}"
            )
        return combine_seeds(trained, corpus, self.progress)

    def evaluate(self, recipe: Recipe, after_epoch: AfterEpoch | None = None) -> Evaluation:
        """Train a recipe with its first seed, telling the validation metric after every epoch."""
        one = replace(recipe, train=replace(recipe.train, seeds=recipe.train.seeds[:1]))
        corpus = self.corpus(one.corpus)
        (trained,) = train_members(self.members("trial", one), corpus, None, after_epoch)
        if trained.history.best_epoch < 0:
            raise SpecError(f"its predictions of {corpus.selection} are constant.")
        layers = trained.pretrained.layers if trained.pretrained else []
        unexplained = {"unexplained": sum(layer.unexplained for layer in layers) / len(layers)} if layers else {}
        return Evaluation(trained.history.best_value, unexplained)

    @staticmethod
    def _key(spec: CorpusSpec, plan: CapturePlan) -> tuple[str, CapturePlan]:
        return fingerprint(spec), plan


def _corpora_of(recipe: Recipe) -> list[CorpusSpec]:
    further = [] if recipe.pretraining.task == "none" else [recipe.pretraining.corpus]
    return [recipe.corpus, *further]


def _checkpoint(
    unfinished: Unfinished, latents: Mapping[str, str], members: Sequence[MemberConfig], corpus: Corpus
) -> Checkpoint:
    """Where the training of some members of one task is kept; arguments as of :meth:`Unfinished.of_training`."""
    first = members[0]
    variants = "+".join(dict.fromkeys(member.variant for member in members))
    layers = [list(member.layers) for member in members]
    return unfinished.of_training(
        variants, first.recipe, [member.seed for member in members], {"": corpus}, latents, {"layers": layers}
    )
