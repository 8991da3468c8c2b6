"""A finished run on a corpus, in the form of a trained task; and the recipe by which it reads the texts."""

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import plain
from permafrost.data.store.identity import check_same_latents
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.token_inputs import read_inputs
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.tasks.registry import Problem, find_own_metrics
from permafrost.probes.variants.combine_seeds import mean_predictions, predict_splits, reference_cosines
from permafrost.probes.variants.metric_rows import cosine_rows, reference_rows, variant_rows
from permafrost.probes.variants.trained_variant import TrainedTask
from permafrost.probes.variants.workspace import Workspace


def reading_recipe(run: LoadedRun, spec: CorpusSpec, extract: ExtractSpec) -> Recipe:
    """Return the recipe by which the probe of a run reads a corpus: its plans, with the columns that it reads alone.

    A fine-tuned backbone is read as the frozen model in the folder of the run.
    """
    plans = {name: _reading_plan(run, name) for name in dict.fromkeys(column.plan for column in run.columns)}
    return replace(
        run.recipe,
        corpus=spec,
        plan=plans.pop("", run.recipe.plan),
        plans=run.recipe.plans | {name: plain(plan) for name, plan in plans.items()},
        extract=extract,
        finetune=FinetuneSpec(),
        pretraining=PretrainingSpec(),
        variants=(),
    )


def _reading_plan(run: LoadedRun, name: str) -> CapturePlan:
    columns = [column for column in run.columns if column.plan == name]
    layers = tuple(sorted({column.layer for column in columns}))
    views: Any = tuple(dict.fromkeys(column.view for column in columns))
    dtypes: dict[str, Any] = {}
    if run.backbone_folder is None:
        identity = run.identities[name]
        dtypes = {"compute_dtype": identity.compute_dtype, "stored_dtype": identity.stored_dtype}
    return replace(run.capture_plan(name), views=views, layers=layers, **dtypes)


def probe_inputs(run: LoadedRun, recipe: Recipe, workspace: Workspace) -> ProbeInputs:
    """Return what the probe of a run reads of a corpus, whose latents the workspace has got.

    Raises:
        CorpusError: they are of another backbone than the run was trained on.
    """
    stored = workspace.plan_latents(recipe, recipe.corpus)
    for name, latents in stored.items():
        if run.backbone_folder is None:
            check_same_latents(
                latents.store.identity, run.identities[name], str(run.path), recipe.capture_plan(name).backbone
            )
    inputs = read_inputs(stored, workspace.corpus(recipe.corpus).texts, run.columns, workspace.memory_limit(recipe))
    return inputs.to(run.probe.device)


def evaluated_task(run: LoadedRun, variant: str, metric: str, corpus: Corpus, inputs: ProbeInputs) -> TrainedTask:
    """Return the predictions of a run for a corpus of one split, in the form of a trained task.

    Args:
        variant: name of the run's chosen variant.
        metric: the run's selection metric.
    """
    problem = Problem(
        corpus=corpus,
        task=run.task,
        head=run.task.head(run.recipe.probe, run.texts_per_row),
        loss="",
        metric=metric,
        own_metrics=find_own_metrics(run.task, run.recipe.train),
    )
    predicted, seeds = predict_splits(run.probe, inputs, corpus), run.seeds
    if run.untrained:
        predicted = {split: values[:0] for split, values in predicted.items()}
    return TrainedTask(
        variant=variant,
        untrained_of=run.variant if run.untrained else "",
        recipe=run.recipe,
        problem=problem,
        columns=run.columns,
        seeds=seeds,
        probe=run.probe,
        parameters=0,
        histories=(),
        pretrained=(),
        predictions=predicted,
        mean_predictions=mean_predictions(run.probe, inputs, corpus) if run.recipe.train.average else {},
        untrained_cosines={} if run.backbone_folder else reference_cosines(problem, inputs),
        calibrations=(run.task.fixed_calibration(run),),
        value=float("nan"),
        best_index=0,
    )


def measured_rows(evaluated: TrainedTask, training: Corpus | None) -> list[MetricRow]:
    """Return the rows of the untrained reference, then those of the run.

    Args:
        training: the corpus that the run was trained on; None if it cannot be read, and a reference that learns from
            its training rows is left out.
    """
    problem = evaluated.problem
    split = problem.corpus.test_split
    rows = list(cosine_rows([evaluated], problem, split))
    if not rows and not problem.task.compares_texts and training:
        rows = reference_rows(evaluated, split, _untrained(problem, split, training))
    return rows + variant_rows(evaluated, split)


def _untrained(problem: Problem, split: str, training: Corpus) -> NDArray[Any]:
    """Return the decoded predictions of the reference that learns from the training rows of another corpus."""
    corpus, rows = problem.corpus, problem.scorer(split).rows
    joined = replace(training, texts=(*training.texts, *corpus.texts), splits={"train": training.split("train")})
    reference = problem.task.untrained(joined, replace(rows, texts=rows.texts + len(training.texts)))
    assert reference is not None
    return reference
