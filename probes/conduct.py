"""Conducting a recipe: its corpora, their latents, the pretraining and training of every variant.

Stage one is a callable that is handed in: whoever calls says whether what is missing is run, or an error.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from data.corpus import Corpus
from data.plan import CapturePlan, ExtractSpec, resolve_layers
from data.progress import Progress
from data.sentences import CorpusSpec, load_corpus
from data.spec import SpecError, fingerprint, nearest
from probes.components import UPPER
from probes.ensemble import Ensemble, gather
from probes.experiment import PROBE, Member, start, train_members
from probes.inputs import InputName, Inputs, Stored, parse_input, read_inputs, wanted_columns
from probes.pretraining import Pretrained, pretrain
from probes.recipe import Recipe
from probes.tasks import ONE_BY_ONE, check_probe, head_of, loss_and_metric, sides_of_rows, task_of
from probes.train import AfterEpoch
from probes.trials import Evaluated
from probes.unfinished import Unfinished
from probes.upper import Backbones, Below, UpperInputs, cached_below, upper_inputs

KEPT_BYTES = 4 << 30
"""Latents kept in memory for the next variant that reads the same."""

KEPT_ENCODERS = 32
"""Pretrained encoders kept for the next variant that begins with the same."""

StageOne = Callable[[CapturePlan, ExtractSpec, Corpus, Progress], Stored]
"""The latents of a plan for the texts of a corpus."""


Keep = Callable[[str, Callable[[], Inputs]], Inputs]
"""Key, and how to make its inputs where they are not at hand -> the inputs."""


class Kept:
    """Inputs in memory: those used last, as many as there is room for."""

    def __init__(self) -> None:
        self._inputs: OrderedDict[str, Inputs] = OrderedDict()

    def __call__(self, key: str, make: Callable[[], Inputs]) -> Inputs:
        """The inputs of a key, made where they are not in memory."""
        if key not in self._inputs:
            self._inputs[key] = make()
        self._inputs.move_to_end(key)
        while len(self._inputs) > 1 and sum(one.values.nbytes for one in self._inputs.values()) > KEPT_BYTES:
            self._inputs.popitem(last=False)
        return self._inputs[key]


@dataclass
class Conductor:
    """Corpora and latents of an experiment, each read once."""

    stage_one: StageOne
    progress: Progress
    keep: Keep = field(default_factory=Kept)
    stored: dict[tuple[str, CapturePlan], Stored] = field(default_factory=dict)
    """(corpus, plan) -> where its latents are."""

    unfinished: Unfinished | None = None
    """Where trainings are kept while they last."""

    _corpora: dict[str, Corpus] = field(default_factory=dict)
    _below: dict[str, Below] = field(default_factory=dict)
    _pretrained: dict[str, Pretrained] = field(default_factory=dict)

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
            if recipe.upper.learns:
                self._backbones(recipe).check(recipe.plan, recipe.upper, read_above(recipe)[1])
            if recipe.upper.cut == "none":
                self._below_of(recipe)
            for plan in recipe.read().values():
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
        one = self.stage_one(replace(common, views=views), recipe.extract, corpus, self.progress)
        cut = f"; {one.truncated:,} texts cut to {common.max_tokens} tokens" if one.truncated else ""
        ran = f"{one.texts_run:,}{' windows' if common.truncation == 'windows' else ''} of {len(corpus.texts):,} texts"
        self.progress.note(f"stage one, {common.backbone} on {corpus.name}: {ran} run, {one.seconds:.2f} s{cut}")
        for _, _, plan in asked:
            columns = {str(view): one.columns[view] for view in sorted(plan.views)}
            if self.stored.setdefault(self._key(spec, plan), replace(one, columns=columns)).texts_run:
                one = replace(one, texts_run=0, seconds=0.0)  # they ran once, and count once

    def sources(self, recipe: Recipe, spec: CorpusSpec) -> dict[str, Stored]:
        """Name -> where the latents are of every plan that the recipe's probe reads."""
        return {name: self.stored[self._key(spec, plan)] for name, plan in recipe.read().items()}

    def latents(self, recipe: Recipe) -> dict[str, str]:
        """Name of a plan that the recipe's probe reads, or "plan" -> the identity of its latents; where it reads no
        latents, the digests of the backbone that runs from the text on.
        """
        if recipe.upper.cut == "none":
            return dict(self._backbones(recipe).digests(recipe.plan, recipe.extract))
        return {name or "plan": one.store.identity.name for name, one in self.sources(recipe, recipe.corpus).items()}

    def inputs(self, recipe: Recipe, spec: CorpusSpec) -> Inputs:
        """What the recipe's probe reads of a corpus's texts; stage one runs first where it has not yet."""
        key = fingerprint([spec, recipe.read(), list(recipe.probe.inputs), recipe.probe.layers])

        def make() -> Inputs:
            self.prepare([recipe])
            stored = self.sources(recipe, spec)
            columns = wanted_columns(recipe.probe, {name: one.columns for name, one in stored.items()})
            return read_inputs(stored, self.corpus(spec).texts, columns)

        return self.keep(key, make)

    def upper(self, recipe: Recipe, trunk: nn.Module | None = None) -> UpperInputs:
        """What the recipe's probe reads of blocks that learn; fresh ones where none are given.

        Raises:
            SpecError: the recipe may not load a backbone, or its probe reads several views.
        """
        view, layers = read_above(recipe)
        trunk = trunk or self.trunk(recipe, layers)
        beside = recipe.upper.cached_beside()
        above = [layer for layer in trunk.layers if layer not in beside]  # type: ignore[union-attr]
        return upper_inputs(trunk, self._below_of(recipe), view, (*beside, *resolve_layers(layers, above)))

    def trunk(self, recipe: Recipe, layers: tuple[int, ...] | str) -> nn.Module:
        """Fresh blocks above the recipe's cut."""
        return self._backbones(recipe).trunk(recipe.plan, recipe.upper, layers)

    def _below_of(self, recipe: Recipe) -> Below:
        key = fingerprint([recipe.corpus, recipe.plan, recipe.upper.cut, recipe.upper.cached_beside()])
        if key not in self._below:
            texts = self.corpus(recipe.corpus).texts
            if recipe.upper.cut == "none":
                self._below[key] = self._backbones(recipe).ids(recipe.plan, texts)
            else:
                self.prepare([recipe])
                self._below[key] = cached_below(self.sources(recipe, recipe.corpus)[""], texts)
        return self._below[key]

    def _backbones(self, recipe: Recipe) -> Backbones:
        if not isinstance(self.stage_one, Backbones):
            raise SpecError(
                f"upper.cut = {recipe.upper.cut} trains blocks of '{recipe.plan.backbone}', and cached latents alone "
                "have none: 'run' the recipe."
            )
        return self.stage_one

    def members(self, variant: str, recipe: Recipe) -> list[Member]:
        """The variant's trainings, one a seed, their encoders pretrained where the recipe says so."""
        if recipe.upper.learns:
            found = [(seed, self.upper(recipe)) for seed in recipe.train.seeds]
            return [Member(variant, recipe, own, tuple(range(len(own.columns))), seed) for seed, own in found]
        inputs = self.inputs(recipe, recipe.corpus)
        everything = tuple(range(len(inputs.columns)))
        members = [Member(variant, recipe, inputs, everything, seed) for seed in recipe.train.seeds]
        if recipe.pretraining.task == "none":
            return members
        return [replace(member, pretrained=self._pretrain(member)) for member in members]

    def _pretrain(self, member: Member) -> Pretrained:
        recipe, spec = member.recipe, member.recipe.pretraining
        encoder = recipe.probe if recipe.probe.mixer == "unified" else replace(recipe.probe, mixer="softmax", hidden=0)
        plans = list(recipe.read().values())
        key = fingerprint([encoder, spec, plans, recipe.corpus, list(member.inputs.columns), member.seed])
        if key not in self._pretrained:
            probe = start(member, self.corpus(recipe.corpus))
            corpus, inputs = self.corpus(spec.corpus), self.inputs(recipe, spec.corpus)
            while len(self._pretrained) >= KEPT_ENCODERS:  # a study meets a new one in every trial
                self._pretrained.pop(next(iter(self._pretrained)))
            self._pretrained[key] = pretrain(probe, spec, corpus, inputs, member.seed, self.progress)
        return self._pretrained[key]

    def train(self, variant: str, recipe: Recipe) -> Ensemble:
        """Train every seed of a variant."""
        corpus = self.corpus(recipe.corpus)
        keep = self.unfinished
        trained = train_members(
            self.members(variant, recipe),
            corpus,
            self.progress,
            None,
            partial(keep.checkpoint, latents=self.latents(recipe)) if keep else None,
        )
        for one in trained:
            if one.fitted.best_epoch < 0:
                raise SpecError(
                    f"{variant}: its metric was never finite: its predictions of {corpus.selection} are constant."
                )
            self.progress.note(
                f"{variant}, seed {one.seed}: best epoch {one.fitted.best_epoch + 1} of {len(one.fitted.values)}, "
                f"{corpus.selection} {one.fitted.best_value:.4f}"
            )
        return gather(trained, corpus, self.progress)

    def evaluate(self, recipe: Recipe, after_epoch: AfterEpoch | None = None) -> Evaluated:
        """Train a recipe with its first seed, telling the validation metric after every epoch."""
        one = replace(recipe, train=replace(recipe.train, seeds=recipe.train.seeds[:1]))
        corpus = self.corpus(one.corpus)
        (trained,) = train_members(self.members("trial", one), corpus, None, after_epoch)
        if trained.fitted.best_epoch < 0:
            raise SpecError(f"its predictions of {corpus.selection} are constant.")
        layers = trained.pretrained.layers if trained.pretrained else []
        unexplained = {"unexplained": sum(layer.unexplained for layer in layers) / len(layers)} if layers else {}
        return Evaluated(trained.fitted.best_value, unexplained)

    @staticmethod
    def _key(spec: CorpusSpec, plan: CapturePlan) -> tuple[str, CapturePlan]:
        return fingerprint(spec), plan


def read_above(recipe: Recipe) -> tuple[str, tuple[int, ...] | str]:
    """The one view that a probe reads of blocks that learn, and its layers, as a plan names them."""
    names = [parse_input(name) for name in recipe.probe.inputs] or [
        InputName("", view, "") for view in recipe.plan.views
    ]
    if len({(name.view, name.layers) for name in names}) > 1:
        named = ", ".join(f"{name.view}:{name.layers}" if name.layers else name.view for name in names)
        raise SpecError(
            f"upper.cut = {recipe.upper.cut}: a probe of blocks that learn reads one view, some layers of it in one "
            f"range, as mean:5..6; probe.inputs or plan.views name {named}."
        )
    return names[0].view, names[0].layers or recipe.probe.layers


def check_fixed(recipe: Recipe, way_out: str = "'run' the recipe") -> None:
    """Raise a :class:`SpecError` where a recipe has blocks learn, and what is to be compared are layers as they are."""
    if recipe.upper.learns:
        raise SpecError(
            f"upper.cut = {recipe.upper.cut}: the layers of blocks that learn are no fixed inputs, and cannot be "
            f'compared; set upper.cut = "frozen", or {way_out}.'
        )


def check_names(recipe: Recipe, components: Sequence[str]) -> None:
    """Raise a :class:`SpecError` where a rate is given to what there is not, or it is to be frozen."""
    for table, names in (("rates", recipe.train.rates), ("freeze", recipe.train.freeze)):
        for name in names:
            if name.split(".")[0] not in components:
                raise SpecError(f"train.{table} names the component '{name}'. {nearest(name, components)}")


def check_upper(variant: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` where a recipe asks of blocks that learn what they cannot do."""
    if not recipe.upper.learns:
        return
    read_above(recipe)
    if recipe.upper.beside and recipe.probe.mixer == "last":
        raise SpecError(
            f'{variant}: upper.beside has the probe read several layers, and probe.mixer = "last" reads one; set it to '
            "softmax or concat, or leave upper.beside out."
        )
    cut = f"{variant}: upper.cut = {recipe.upper.cut}"
    if recipe.train.average:
        raise SpecError(f"{cut}: seeds that answer together would need a backbone each; leave train.average out.")
    if recipe.pretraining.task != "none":
        raise SpecError(f"{cut}: [pretraining] reads cached latents, and these change as blocks learn; leave it out.")
    if recipe.plan.rewording and recipe.upper.cut != "none":
        raise SpecError(f"{cut}: tokens are cached as they are, and plan.rewording changes texts; leave it out.")


def _corpora_of(recipe: Recipe) -> list[CorpusSpec]:
    further = [] if recipe.pretraining.task == "none" else [recipe.pretraining.corpus]
    return [recipe.corpus, *further]


def check(
    recipe: Recipe, variants: Mapping[str, Recipe], corpus: Corpus, components: Sequence[str] = (PROBE, UPPER)
) -> str:
    """Whether every variant fits the corpus's task, before stage one; returns the metric that chooses.

    Args:
        components: those whose parts the recipe may name.
    """
    task = task_of(corpus)
    for name, variant in variants.items():
        check_names(variant, components)
        loss_and_metric(variant, task)
        spec = variant.probe
        views = sorted({parse_input(one).view for one in spec.inputs} or set(variant.plan.views))
        try:
            check_probe(spec, corpus.kind, sides_of_rows(corpus), views)
        except SpecError as error:
            raise SpecError(f"{name}: {error}") from None
        check_upper(name, variant)
        if variant.pretraining.task != "none" and head_of(spec, corpus.kind, sides_of_rows(corpus)) in ONE_BY_ONE:
            raise SpecError(f"{name}: pretraining is of whole texts, and {task.name} reads every token; leave it out.")
        if spec.encoder == "none" and variant.pretraining.task != "none":
            raise SpecError(
                f"{name}: pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp."
            )
    return loss_and_metric(recipe, task)[1]
