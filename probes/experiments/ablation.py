"""Ablation: the same probe on subsets of its layers, with several seeds, and controls for comparison.

Every distinct subset is trained once, whichever kinds name it. Metrics are means over seeds, or of the seeds' mean
prediction (``train.average``), with a bootstrap 95 % interval over rows and the p-value of a paired test against the
last layer alone.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.spec import assign, parse, plain
from permafrost.probes.config.ablation import Subset, column_positions, subsets
from permafrost.probes.config.load import check_frozen
from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.subset_metrics import SubsetMetrics
from permafrost.probes.experiments.subset_training import SubsetTrainer
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.outcomes import AblationResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.tasks.control import shuffle_targets
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.train_variant import member_configs
from permafrost.probes.variants.workspace import Workspace

UNTRAINED = "untrained"
"""Name of the control on an untrained backbone, in the column ``control``."""


def run_ablation(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> AblationResult:
    """Ablate a recipe and write a run folder ``ablate-<recipe>-<n>``."""
    started = time.perf_counter()
    recipe = replace(recipe, variants=())
    check_frozen(recipe)
    workspace = Workspace(provider, progress)
    corpus = workspace.corpus(recipe.corpus)
    metric = check_variants(recipe, {name: recipe}, corpus)
    workspace.prepare([recipe])
    rows = sorted(ablate(recipe, workspace, corpus), key=lambda row: row.metric != metric)
    texts_run = sum(latents.texts_run for latents in workspace.stored.values())
    record = make_record(corpus, [], {name: workspace.plan_latents(recipe, recipe.corpus)}) | {
        "experiment": "ablation",
        "name": f"ablate-{name}",
        "summary": recipe.summary,
        "texts_run": texts_run,
        "metric": metric,
        "seeds": list(recipe.train.seeds),
        "seconds": {"all": time.perf_counter() - started},
    }
    tables = {"metrics": metrics_frame(rows)}
    path = write_run(runs, f"ablate-{name}", RunContents(recipe=recipe, record=record, tables=tables))
    return AblationResult(
        path=path,
        seconds=time.perf_counter() - started,
        texts=corpus.text_count,
        texts_distinct=len(corpus.texts),
        texts_run=texts_run,
        metrics=[asdict(row) for row in rows],
    )


def ablate(recipe: Recipe, workspace: Workspace, corpus: Corpus) -> list[MetricRow]:
    """Train and evaluate the subsets, controls and further backbones of ``recipe.ablation``.

    Raises:
        SpecError: a setting that does not fit the task.
    """
    spec = recipe.ablation
    trainer = _make_trainer(recipe, workspace, corpus)
    kinds = ["all", "single", *(kind for kind in spec.kinds if kind not in ("single", "greedy"))]
    wanted = [subset for kind in kinds for subset in subsets(kind, trainer.columns)]
    trainer.train([subset.layer_positions for subset in wanted], "subsets of layers")
    if "greedy" in spec.kinds:
        wanted += trainer.select_greedily(spec.greedy)
    metrics = SubsetMetrics(trainer)
    rows = [row for subset in wanted for row in metrics.rows(subset)]
    if "random_targets" in spec.controls:
        memorised = [subset for subset in wanted if subset.kind in ("all", "single")]
        rows += [row for subset in memorised for row in metrics.rows(subset, ["train"])]
    for control in spec.controls:
        rows += _control_rows(control, recipe, workspace, metrics)
    for backbone in spec.backbones:
        rows += _backbone_rows(backbone, recipe, workspace, metrics)
    return list(dict.fromkeys(rows))


def _make_trainer(recipe: Recipe, workspace: Workspace, corpus: Corpus) -> SubsetTrainer:
    return SubsetTrainer(member_configs("ablation", recipe, workspace), corpus, workspace.progress)


def _control_rows(control: str, recipe: Recipe, workspace: Workspace, reference: SubsetMetrics) -> list[MetricRow]:
    """Train and evaluate each layer alone and all of them, on an untrained backbone or on shuffled targets."""
    corpus, splits = reference.corpus, list[str]()
    if control == "untrained":
        recipe, name = _with_setting(recipe, "plan.init", "random"), UNTRAINED
        workspace.prepare([recipe])
    else:
        corpus, name, splits = shuffle_targets(corpus, recipe.train.seeds[0]), RANDOM_TARGETS, ["train"]
    trainer = _make_trainer(recipe, workspace, corpus)
    wanted = [*subsets("all", trainer.columns), *subsets("single", trainer.columns)]
    trainer.train([subset.layer_positions for subset in wanted], f"control: {name}")
    metrics = SubsetMetrics(trainer, name, reference)
    return [row for subset in wanted for row in metrics.rows(subset, splits)]


def _backbone_rows(name: str, recipe: Recipe, workspace: Workspace, reference: SubsetMetrics) -> list[MetricRow]:
    """Train and evaluate all layers, and the last layer alone, of another backbone."""
    recipe = _with_setting(recipe, "plan.backbone", name)
    workspace.prepare([recipe])
    trainer = _make_trainer(recipe, workspace, reference.corpus)
    all_positions = subsets("all", trainer.columns)[0].layer_positions
    trainer.train([all_positions, trainer.last_layer], f"backbone {name}")
    metrics = SubsetMetrics(trainer, reference=reference)
    last_layer = trainer.columns[trainer.last_layer[0]].layer
    last_positions = column_positions(trainer.columns, lambda column: column.layer == last_layer)
    return [
        *metrics.rows(Subset("all", "all", all_positions)),
        *metrics.rows(Subset("single", str(last_layer), last_positions)),
    ]


def _with_setting(recipe: Recipe, key: str, value: str) -> Recipe:
    tree = plain(recipe)
    assign(tree, key, value)
    return parse(Recipe, tree, f"ablation: {key} = {value}")
