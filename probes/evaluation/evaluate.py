"""Evaluation of runs on data: every task of every run on every data set of its kind, and one folder of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import Progress
from permafrost.data.spec import plain
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.names import PROBE
from permafrost.probes.evaluation.evaluated import evaluated_task, measured_rows, probe_inputs
from permafrost.probes.evaluation.evaluation import Evaluation
from permafrost.probes.evaluation.reading import ReadEvaluations, ReadRows, TrainingCorpora
from permafrost.probes.evaluation.transfer import matrix_rows, pair_names
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.metric_row import metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.results.read_result import read_result
from permafrost.probes.runs.write import RunWriter, TaskContents
from permafrost.probes.variants.record import data_record, task_record
from permafrost.probes.variants.tables import skipped_table, task_tables


def evaluate_runs(name: str, read: ReadEvaluations, runs: Path | Destination, progress: Progress) -> RunResult:
    """Evaluate runs on data that are read, and write a run folder.

    Raises:
        InputError: a backbone is not the one that a run was trained on, or the rows are too few for a metric.
        MachineError: the machine failed; the message says what is safe.
    """
    writer = RunWriter(runs, name, None, "evaluation")
    workspaces = list(dict.fromkeys(each.workspace for each in read.pairs))
    for workspace in workspaces:
        workspace.prepare([each.recipe for each in read.pairs if each.workspace is workspace])
    progress.note("measuring, with intervals")
    evaluations = [_measure(each, read.training) for each in read.pairs]
    stores = [each.workspace.plan_latents(each.recipe, each.recipe.corpus) for each in read.pairs]
    latents = [latents for workspace in workspaces for latents in workspace.stored.values()]
    return read_result(_write(evaluations, stores, latents, writer, read))


def _measure(read: ReadRows, training: TrainingCorpora) -> Evaluation:
    each, recipe, corpus = read.evaluated, read.recipe, read.corpus
    inputs = probe_inputs(each.run, recipe, read.workspace)
    predicted = evaluated_task(each.run, each.selected, each.metric, corpus, inputs)
    trained_on = training.find(each.run)
    if trained_on is not None:
        _note_leaks(trained_on, corpus, read.workspace.progress)
    rows = measured_rows(predicted, trained_on)
    if not rows:
        count = len(next(iter(corpus.splits.values())))
        raise CorpusError(f"{read.data.name}: its metrics need more rows with labels of the run than {count:,}.")
    return Evaluation(evaluated=each, data=read.data, recipe=recipe, predicted=predicted, rows=rows)


def _note_leaks(training: Corpus, corpus: Corpus, progress: Progress) -> None:
    """Say how many rows have the same texts as a training row of the run."""
    rows = next(iter(corpus.splits.values()))
    train = {frozenset(training.texts[text] for text in texts) for texts in training.split("train").texts}
    leaked = sum(frozenset(corpus.texts[text] for text in texts) in train for texts in rows.texts)
    if leaked:
        progress.note(
            f"{corpus.name}: {leaked:,} of {len(rows):,} rows have the same texts as a training row of the run, so "
            "figures read high"
        )


def _write(
    evaluations: Sequence[Evaluation],
    stores: Sequence[Mapping[str, PlanLatents]],
    latents: Sequence[PlanLatents],
    writer: RunWriter,
    read: ReadEvaluations,
) -> Path:
    """Write the folder of an evaluation: of one run on one data set as that of a run, else with the transfer matrix;
    return its path.

    Args:
        stores: of each evaluation, plan name -> the latents that it read.
        latents: all latents that were got.
    """
    single = len(evaluations) == 1
    names = [PROBE] if single else pair_names(evaluations)
    rows = list(evaluations[0].rows) if single else matrix_rows(evaluations)
    corpora = [each.problem.corpus for each in evaluations]
    common = data_record(corpora, dict(zip(names, stores, strict=True)), latents)
    selected = evaluations[0].evaluated.selected if single else ""
    record = common | {
        "selected": selected,
        "metric": evaluations[0].problem.metric,
        "tasks": task_record({name: each.problem for name, each in zip(names, evaluations, strict=True)}),
        "evaluations": {name: _about(each) for name, each in zip(names, evaluations, strict=True)},
        "label_map": dict(read.settings.label_map),
        "asked": read.identity,
        "data": read.digests,
    }
    tasks = {
        name: TaskContents(None, task_tables(each.predicted, []), {})
        for name, each in zip(names, evaluations, strict=True)
    }
    return writer.write(record, {"metrics": metrics_frame(rows), "skipped": skipped_table(corpora)}, tasks)


def _about(each: Evaluation) -> dict[str, Any]:
    """Return what the record says of one evaluation."""
    corpus, run = each.problem.corpus, each.evaluated
    return {
        "run": run.name,
        "path": str(run.run.path),
        "task": "" if run.task == PROBE else run.task,
        "variant": run.selected,
        "seeds": list(run.run.seeds),
        "data": each.data.name,
        "corpus": plain(each.data.spec),
        "own": each.data.own,
        "split": each.split,
        "rows": len(next(iter(corpus.splits.values()))),
        "left_out": len(corpus.skipped),
        "metric": each.problem.metric,
        "kind": corpus.kind,
    }
