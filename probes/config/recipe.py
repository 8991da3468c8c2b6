"""The recipe: all settings of one experiment, as one TOML file, with variants that a run trains and compares.

Order of precedence: defaults < recipe < ``--set`` < the ``set`` of a variant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.machine import check_device
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError, assign, fingerprint, nearest, parse, plain
from permafrost.probes.config.ablation import AblationSpec
from permafrost.probes.config.columns import Column, InputName, parse_input
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.multitask import BalancingSpec, MultitaskSpec
from permafrost.probes.config.names import PROBE, TASK_NAME, UNTRAINED
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.similarity import SimilaritySpec
from permafrost.probes.config.study import StudySpec
from permafrost.probes.config.train import OF_WHOLE_RUN, PretrainingSpec, TrainSpec

RESERVED = ("backbone", "shared", PROBE)
"""Names that no task can have: components of a training, and the only task of a recipe, have them."""

TASK_TABLES = ("corpus", "plan", "probe", "train")
"""Recipe tables whose keys a task can set."""

VARIABLE_TABLES = ("plan", "plans", "probe", "pretraining", "train", "finetune", "multitask", "balancing", "tasks")
"""Recipe tables whose keys a variant or a trial can set."""


@dataclass(frozen=True)
class Variant:
    """A named set of overrides of a recipe."""

    name: str
    """Name of the variant in the result tables."""

    set: dict[str, object] = field(default_factory=dict)
    """Overrides, dotted key = value, e.g. {"probe.encoder" = "mlp"}."""

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith((UNTRAINED, "_")):
            raise SpecError(
                f"a variant needs a name, and '{UNTRAINED}' is taken by the untrained reference, got '{self.name}'."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of an experiment: corpus, feature extraction, probes and their training."""

    summary: str = ""
    """One-line description, listed by 'permafrost recipes'."""

    duration: str = ""
    """Measured duration of the whole experiment, printed at its start; empty for short ones."""

    device: str = "auto"
    """Device that everything runs on: "cpu", "cuda", "cuda:1" (the second GPU), or "mps"; "auto" is the GPU of CUDA or
    ROCm if there is one, else the CPU. Latents stay in the memory of a GPU while a probe trains if they take at most
    half of what is free there. It is no part of what is trained: checkpoints and run folders move between devices."""

    corpus: CorpusSpec = field(default_factory=CorpusSpec)
    plan: CapturePlan = field(default_factory=CapturePlan)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Additional capture plans by name, each a table of the [plan] keys that differ; probe.inputs reads them as
    NAME/VIEW."""

    extract: ExtractSpec = field(default_factory=ExtractSpec)
    language: LanguageSpec = field(default_factory=LanguageSpec)
    probe: ProbeSpec = field(default_factory=ProbeSpec)
    pretraining: PretrainingSpec = field(default_factory=PretrainingSpec)
    finetune: FinetuneSpec = field(default_factory=FinetuneSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    variants: tuple[Variant, ...] = ()
    """Named sets of overrides that one run trains and compares; if empty, the recipe is one variant called "probe"."""

    tasks: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Tasks by name, each a table of the [corpus], [plan], [probe] and [train] keys that differ, e.g. [tasks.nli] with
    corpus.name = "snli". A run trains one probe per layer and task, or all tasks together, see multitask.schedule."""

    multitask: MultitaskSpec = field(default_factory=MultitaskSpec)
    balancing: BalancingSpec = field(default_factory=BalancingSpec)

    ablation: AblationSpec = field(default_factory=AblationSpec)
    study: StudySpec = field(default_factory=StudySpec)
    similarity: SimilaritySpec = field(default_factory=SimilaritySpec)

    def __post_init__(self) -> None:
        check_device(self.device)
        plans = {name: _with_types(self.plan, table, f"[plans.{name}]") for name, table in self.plans.items()}
        object.__setattr__(self, "plans", plans)
        for task, tables in self.tasks.items():
            if not TASK_NAME.fullmatch(task) or task in RESERVED:
                raise SpecError(
                    f"[tasks.{task}]: a task is named by letters, digits, - and _, and not {' or '.join(RESERVED)}."
                )
            for table, values in tables.items():
                if table not in TASK_TABLES or not isinstance(values, dict):
                    raise SpecError(f"[tasks.{task}]: '{table}' is not one of the tables {', '.join(TASK_TABLES)}.")
            if whole := [key for key in OF_WHOLE_RUN if key in tables.get("train", {})]:
                raise SpecError(f"[tasks.{task}]: train.{whole[0]} is of the whole run; set it in [train].")
        self.task_recipes()
        object.__setattr__(self, "tasks", {task: self._typed_task(task) for task in self.tasks})
        for name in self.probe.inputs:
            plan = parse_input(name).plan
            if plan and plan not in self.plans:
                raise SpecError(f"probe.inputs names the plan '{plan}'. {nearest(plan, self.plans)}")
            if plan and self.finetune.trains_backbone:
                raise SpecError(
                    f"finetune.cut fine-tunes the backbone of [plan], but probe.inputs names '{name}' of another plan."
                )
        names = [variant.name for variant in self.variants]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise SpecError(f"two variants are called '{repeated[0]}'.")

    def _typed_task(self, task: str) -> dict[str, Any]:
        tables = self.tasks[task].items()
        return {name: _with_types(getattr(self, name), table, f"[tasks.{task}.{name}]") for name, table in tables}

    def capture_plan(self, name: str) -> CapturePlan:
        """Return the capture plan called ``name``; the empty name stands for ``[plan]``."""
        tree = plain(self.plan) | self.plans.get(name, {}) if name else plain(self.plan)
        return parse(CapturePlan, tree, f"[plans.{name}]")

    def probe_plans(self) -> dict[str, CapturePlan]:
        """Return the capture plans that the probe reads, name -> plan; empty if it reads the text itself."""
        if self.finetune.trains_backbone:
            below = self.finetune.cached_plan(self.plan)
            return {"": below} if below else {}
        names = dict.fromkeys(parse_input(name).plan for name in self.probe.inputs) or {"": None}
        return {name: self.capture_plan(name) for name in names}

    def task_recipes(self) -> dict[str, "Recipe"]:
        """Return the recipe of each trained task, task name -> recipe.

        A recipe without ``[tasks]`` is its own single task, under the name "probe".
        """
        for name in self.multitask.tasks:
            if name not in self.tasks:
                raise SpecError(f"multitask.tasks names the task '{name}'. {nearest(name, self.tasks)}")
        if not self.tasks:
            return {PROBE: self}
        chosen = self.multitask.tasks or tuple(self.tasks)
        return {name: _with_task(self, name, self.tasks[name]) for name in chosen}

    def relevant_settings(self) -> "Recipe":
        """Return the recipe without the settings that change no weight and no figure."""
        train = replace(self.train, checkpoint_seconds=0.0, track=(), memory="auto")
        return replace(self, summary="", duration="", device="auto", extract=ExtractSpec(), train=train)

    @property
    def extraction(self) -> ExtractSpec:
        """Settings of the extraction, on the device of the recipe unless they name another."""
        own = self.extract.device != "auto"
        return self.extract if own or self.device == "auto" else replace(self.extract, device=self.device)

    def corpora(self) -> list[CorpusSpec]:
        """Return the specs of the corpora that a run reads, each once; a comparison of sentences reads none."""
        if self.similarity.texts:
            return []
        task_recipes = [task for variant in self.variant_recipes().values() for task in variant.task_recipes().values()]
        pretraining = [task.pretraining.corpus for task in task_recipes if task.pretraining.task != "none"]
        specs = [*(task.corpus for task in task_recipes), *pretraining]
        return list({fingerprint(spec): spec for spec in specs}.values())

    def select_variants(self, names: Sequence[str]) -> "Recipe":
        """Return the recipe with the named variants only, or with all if no name is given.

        Raises:
            SpecError: the recipe has no variant of that name.
        """
        known = {variant.name: variant for variant in self.variants}
        for name in names:
            if name not in known:
                raise SpecError(f"there is no variant '{name}'. {nearest(name, known)}")
        return replace(self, variants=tuple(known[name] for name in names)) if names else self

    def select_variant(self, variant: str = "") -> "Recipe":
        """Return the recipe of one variant, or the recipe without its variants if no name is given."""
        if not variant:
            return replace(self, variants=())
        (selected,) = self.select_variants([variant]).variant_recipes().values()
        return selected

    def variant_recipes(self) -> dict[str, "Recipe"]:
        """Return the recipe of each variant, variant name -> recipe."""
        return {variant.name: with_variant(self, variant) for variant in self.variants or (Variant("probe"),)}


def _with_types(spec: Any, table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the values of a table that changes keys of a spec, text of ``--set`` among them, with their types."""
    parsed = plain(parse(type(spec), plain(spec) | table, source))
    return {key: parsed[key] for key in table}


def _with_task(recipe: Recipe, name: str, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    shared = {key: value for key, value in plain(recipe).items() if key not in ("variants", "tasks", "balancing")}
    tree = shared | {"multitask": {"keep": recipe.multitask.keep}}
    for table, values in changes.items():
        tree[table] = tree[table] | values
    return parse(Recipe, tree, f"[tasks.{name}]")


def with_variant(recipe: Recipe, variant: Variant) -> Recipe:
    """Return the recipe with the overrides of a variant applied, and without variants.

    Raises:
        SpecError: the variant sets a key that is unknown or cannot vary.
    """
    tree = {key: value for key, value in plain(recipe).items() if key != "variants"}
    for key, value in variant.set.items():
        if key.split(".")[0] not in VARIABLE_TABLES:
            raise SpecError(
                f"variant '{variant.name}': '{key}' cannot vary; a variant sets keys of {', '.join(VARIABLE_TABLES)}."
            )
        if key in [f"train.{name}" for name in OF_WHOLE_RUN]:
            raise SpecError(f"variant '{variant.name}': {key} is of the whole run; set it in [train].")
        assign(tree, key, value)
    varied = parse(Recipe, tree, f"variant '{variant.name}'")
    before, after = _metrics(recipe), _metrics(varied)
    for key, metric in before.items():
        if after.get(key, metric) != metric:
            raise SpecError(f"variant '{variant.name}': '{key}' cannot vary: variants are compared by one metric.")
    return varied


def _metrics(recipe: Recipe) -> dict[str, object]:
    """Return the metric of [train] and of every task, dotted key -> metric."""
    metrics: dict[str, object] = {"train.metric": recipe.train.metric}
    for task, tables in recipe.tasks.items():
        metrics[f"tasks.{task}.train.metric"] = tables.get("train", {}).get("metric", recipe.train.metric)
    return metrics


def finetuned_view(recipe: Recipe) -> tuple[str, tuple[int, ...] | str]:
    """Return the view and the layers that a probe reads of fine-tuned blocks.

    Raises:
        SpecError: ``probe.inputs`` names several views, or several ranges of layers.
    """
    names = [parse_input(name) for name in recipe.probe.inputs] or [
        InputName("", view, "") for view in recipe.plan.views
    ]
    if len({(name.view, name.layers) for name in names}) > 1:
        listed = ", ".join(f"{name.view}:{name.layers}" if name.layers else name.view for name in names)
        raise SpecError(
            f"finetune.cut = {recipe.finetune.cut}: a probe on fine-tuned blocks reads a single view and one range of "
            f"layers, e.g. mean:5..6; probe.inputs or plan.views name {listed}."
        )
    return names[0].view, names[0].layers or recipe.probe.layers


def untrained_recipe(recipe: Recipe, column: Column) -> Recipe:
    """Return the recipe of the untrained reference of scores: the cosine of one layer, with nothing to train."""
    plan = f"{column.plan}/" if column.plan else ""
    layer = f"{plan}{column.view}:{column.layer}"
    probe = ProbeSpec(inputs=(layer,), center=False, encoder="none", mixer="last", head="cosine")
    train = replace(recipe.train, average=True)  # there are no seeds, and a single prediction
    return replace(recipe, probe=probe, pretraining=PretrainingSpec(), train=train)
