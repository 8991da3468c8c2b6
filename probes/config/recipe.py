"""Recipes: one experiment in one TOML file, with variants that a run trains and compares.

Order of precedence: defaults < recipe < ``--set`` < a variant's own ``set``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.spec import SpecError, assign, nearest, parse, plain
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.probes.config.ablation import AblationSpec
from permafrost.probes.config.columns import InputName, parse_input
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.multitask import BalancingSpec, MultitaskSpec
from permafrost.probes.config.names import TASK_NAME, UNTRAINED
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.similarity import SimilaritySpec
from permafrost.probes.config.study import StudySpec
from permafrost.probes.config.train import PretrainingSpec, TrainSpec

RESERVED = ("backbone", "shared")
"""Names that are of something else."""

TASK_TABLES = ("corpus", "plan", "probe", "train")
"""Tables whose keys a task may set."""

VARIABLE_TABLES = ("plan", "plans", "probe", "pretraining", "train", "finetune", "multitask", "balancing", "tasks")
"""Tables whose keys a variant or a trial may set."""


@dataclass(frozen=True)
class Variant:
    """A named set of overrides."""

    name: str
    """What the tables call it."""

    set: dict[str, object] = field(default_factory=dict)
    """Dotted keys and their values, for example {"probe.encoder" = "mlp"}."""

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith((UNTRAINED, "_")):
            raise SpecError(
                f"a variant needs a name, and '{UNTRAINED}' is taken by the untrained reference, got '{self.name}'."
            )


@dataclass(frozen=True)
class Recipe:
    """An experiment: texts, what is kept of them, what is trained on it."""

    summary: str = ""
    """One line that 'recipes' prints."""

    duration: str = ""
    """How long all of it took where it was measured, said before anything else; empty for what is quick."""

    corpus: CorpusSpec = field(default_factory=CorpusSpec)
    plan: CapturePlan = field(default_factory=CapturePlan)
    plans: dict[str, dict[str, object]] = field(default_factory=dict)
    """Further captures by name, each a table of [plan] keys to change; a probe reads them as NAME/VIEW."""

    extract: ExtractSpec = field(default_factory=ExtractSpec)
    language: LanguageSpec = field(default_factory=LanguageSpec)
    probe: ProbeSpec = field(default_factory=ProbeSpec)
    pretraining: PretrainingSpec = field(default_factory=PretrainingSpec)
    finetune: FinetuneSpec = field(default_factory=FinetuneSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    variants: tuple[Variant, ...] = ()
    """Named sets of overrides that one run trains and compares; none is one variant called 'probe'."""

    tasks: dict[str, dict[str, object]] = field(default_factory=dict)
    """Several tasks, each by name with the [corpus], [plan], [probe] and [train] keys in which it differs, for example
    [tasks.nli] with corpus.name = "snli". A run trains every layer alone on each of them, or all tasks together."""

    multitask: MultitaskSpec = field(default_factory=MultitaskSpec)
    balancing: BalancingSpec = field(default_factory=BalancingSpec)

    ablation: AblationSpec = field(default_factory=AblationSpec)
    study: StudySpec = field(default_factory=StudySpec)
    similarity: SimilaritySpec = field(default_factory=SimilaritySpec)

    def __post_init__(self) -> None:
        for name in self.plans:
            self.capture_plan(name)
        self.task_recipes()
        for read in self.probe.inputs:
            plan = parse_input(read).plan
            if plan and plan not in self.plans:
                raise SpecError(f"probe.inputs names the plan '{plan}'. {nearest(plan, self.plans)}")
            if plan and self.finetune.learns:
                raise SpecError(
                    f"finetune.cut has blocks of [plan] learn, and probe.inputs names '{read}' of another plan."
                )
        names = [variant.name for variant in self.variants]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SpecError(f"two variants are called '{twice[0]}'.")

    def capture_plan(self, name: str) -> CapturePlan:
        """The capture plan called ``name``; the empty name is ``[plan]`` itself."""
        tree = plain(self.plan) | self.plans.get(name, {}) if name else plain(self.plan)
        return parse(CapturePlan, tree, f"[plans.{name}]")

    def probe_plans(self) -> dict[str, CapturePlan]:
        """Name -> plan of every capture that the probe reads."""
        if self.finetune.learns:
            below = self.finetune.below(self.plan)
            return {"": below} if below else {}
        names = dict.fromkeys(parse_input(name).plan for name in self.probe.inputs) or {"": None}
        return {name: self.capture_plan(name) for name in names}

    def task_recipes(self) -> dict[str, "Recipe"]:
        """Name of a task -> the recipe of that task alone; nothing where the recipe names no tasks."""
        for name in self.multitask.tasks:
            if name not in self.tasks:
                raise SpecError(f"multitask.tasks names the task '{name}'. {nearest(name, self.tasks)}")
        chosen = self.multitask.tasks or tuple(self.tasks)
        return {name: _with_task(self, name, self.tasks[name]) for name in chosen}

    def only(self, names: Sequence[str]) -> "Recipe":
        """The recipe with some of its variants; with all of them where none is named."""
        known = {variant.name: variant for variant in self.variants}
        for name in names:
            if name not in known:
                raise SpecError(f"there is no variant '{name}'. {nearest(name, known)}")
        return replace(self, variants=tuple(known[name] for name in names)) if names else self

    def select(self, variant: str = "") -> "Recipe":
        """The recipe without variants, or one of them as a recipe of its own."""
        if not variant:
            return replace(self, variants=())
        (chosen,) = self.only([variant]).variant_recipes().values()
        return chosen

    def variant_recipes(self) -> dict[str, "Recipe"]:
        """Variant name -> the recipe it stands for."""
        return {variant.name: with_variant(self, variant) for variant in self.variants or (Variant("probe"),)}


def _with_task(recipe: Recipe, name: str, changes: Mapping[str, object]) -> Recipe:
    if not TASK_NAME.fullmatch(name) or name in RESERVED:
        raise SpecError(
            f"[tasks.{name}]: a task is named by letters, digits, - and _, and not {' or '.join(RESERVED)}."
        )
    kept = {key: value for key, value in plain(recipe).items() if key not in ("variants", "tasks", "balancing")}
    tree = kept | {"multitask": {"keep": recipe.multitask.keep}}
    for table, values in changes.items():
        if table not in TASK_TABLES or not isinstance(values, dict):
            raise SpecError(f"[tasks.{name}]: '{table}' is not one of the tables {', '.join(TASK_TABLES)}.")
        tree[table] = tree[table] | values
    return parse(Recipe, tree, f"[tasks.{name}]")


def with_variant(recipe: Recipe, variant: Variant) -> Recipe:
    """The recipe with a variant's overrides applied, and no variants of its own."""
    tree = {key: value for key, value in plain(recipe).items() if key != "variants"}
    for key, value in variant.set.items():
        if key.split(".")[0] not in VARIABLE_TABLES:
            raise SpecError(
                f"variant '{variant.name}': '{key}' cannot vary; a variant sets keys of {', '.join(VARIABLE_TABLES)}."
            )
        assign(tree, key, value)
    found = parse(Recipe, tree, f"variant '{variant.name}'")
    before, after = _metrics(recipe), _metrics(found)
    for key, metric in before.items():
        if after.get(key, metric) != metric:
            raise SpecError(f"variant '{variant.name}': '{key}' cannot vary: variants are compared by one metric.")
    return found


def _metrics(recipe: Recipe) -> dict[str, object]:
    """Key -> the metric that is set there, or taken from [train]."""
    found: dict[str, object] = {"train.metric": recipe.train.metric}
    for task, tables in recipe.tasks.items():
        train = tables.get("train")
        own = train.get("metric") if isinstance(train, dict) else None
        found[f"tasks.{task}.train.metric"] = recipe.train.metric if own is None else own
    return found


def finetuned_view(recipe: Recipe) -> tuple[str, tuple[int, ...] | str]:
    """The one view that a probe reads of blocks that learn, and its layers, as a plan names them."""
    names = [parse_input(name) for name in recipe.probe.inputs] or [
        InputName("", view, "") for view in recipe.plan.views
    ]
    if len({(name.view, name.layers) for name in names}) > 1:
        named = ", ".join(f"{name.view}:{name.layers}" if name.layers else name.view for name in names)
        raise SpecError(
            f"finetune.cut = {recipe.finetune.cut}: a probe of blocks that learn reads one view, some layers of it in one "
            f"range, as mean:5..6; probe.inputs or plan.views name {named}."
        )
    return names[0].view, names[0].layers or recipe.probe.layers
