"""Evaluation of runs on data: every task of every run on every data set of its kind, and one folder of results."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import Progress
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import fingerprint, plain
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.evaluation.corpus import EvaluationData, check_split, other_corpus, own_corpus
from permafrost.probes.evaluation.evaluated import evaluated_task, measured_rows, probe_inputs, reading_recipe
from permafrost.probes.evaluation.evaluation import EvaluatedRun, Evaluation, EvaluationSettings
from permafrost.probes.evaluation.labels import LabelSpace, NoLabelMeetsError, check_label_map, check_label_map_used
from permafrost.probes.evaluation.transfer import matrix_rows, pair_names
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.metric_row import metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunWriter, TaskContents
from permafrost.probes.variants.record import data_record, task_record
from permafrost.probes.variants.tables import skipped_table, task_tables
from permafrost.probes.variants.workspace import Workspace


def evaluate_runs(
    name: str,
    runs: Sequence[EvaluatedRun],
    settings: EvaluationSettings,
    folder: Path,
    progress: Progress,
    provider: LatentProvider,
) -> RunResult:
    """Evaluate runs on data and write a run folder.

    Raises:
        InputError: data cannot be read, are of another kind than a run, or have none of its labels; or a backbone is
            not the one that a run was trained on.
        MachineError: the machine failed; the message says what is safe.
    """
    check_split(settings.split)
    writer = RunWriter(folder, name, None, "evaluation")
    spaces = [LabelSpace.of(each.run.kind, each.run.labels, each.run.first_number, settings.label_map) for each in runs]
    check_label_map(settings.label_map, spaces)
    training = TrainingCorpora(progress)
    workspaces = [Workspace(provider, progress) for _ in runs]
    pending, refused = (
        list[tuple[EvaluatedRun, EvaluationData, Recipe, Workspace]](),
        dict[tuple[str, str], InputError](),
    )
    for each, space, workspace in zip(runs, spaces, workspaces, strict=True):
        for data in each.data:
            try:
                pending.append((each, data, _load(each, data, space, settings, training, workspace), workspace))
            except NoLabelMeetsError as error:
                refused[each.name, data.name] = error
    for (run_name, data_name), refusal in refused.items():  # another task of the run may have the labels
        if not any((each.name, data.name) == (run_name, data_name) for each, data, _, _ in pending):
            raise refusal
        progress.note(f"a task of {run_name} is left out: {refusal}")
    if note := check_label_map_used(settings.label_map, spaces):
        progress.note(note)
    for workspace in workspaces:
        workspace.prepare([recipe for _, _, recipe, own in pending if own is workspace])
    progress.note("measuring, with intervals")
    evaluations = [_measure(*each, training) for each in pending]
    stores = [workspace.plan_latents(recipe, recipe.corpus) for _, _, recipe, workspace in pending]
    latents = [latents for workspace in workspaces for latents in workspace.stored.values()]
    return _write(evaluations, stores, latents, writer, settings)


class TrainingCorpora:
    """The corpora that runs were trained on, each read once."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._corpora = progress, dict[str, Corpus | InputError | MachineError]()

    def read(self, spec: CorpusSpec) -> Corpus:
        """Return a corpus; raise the error of reading it."""
        key = fingerprint(spec)
        if key not in self._corpora:
            try:
                self._corpora[key] = load_corpus(spec)
            except (InputError, MachineError) as error:
                self._corpora[key] = error
        if isinstance(found := self._corpora[key], Corpus):
            return found
        raise found

    def find(self, run: LoadedRun) -> Corpus | None:
        """Return the corpus of a run; None, and a note, if it cannot be read here or has changed."""
        try:
            corpus = self.read(run.recipe.corpus)
        except (InputError, MachineError) as error:
            without = "rows that it was trained on are not counted"
            if not run.task.compares_texts:
                without += ", and there is no untrained reference, which learns from them"
            self._progress.note(f"the corpus of {run.path} cannot be read, so {without}: {error}")
            return None
        return corpus if corpus.labels == run.labels and "train" in corpus.splits else None


def _load(
    each: EvaluatedRun,
    data: EvaluationData,
    space: LabelSpace,
    settings: EvaluationSettings,
    training: TrainingCorpora,
    workspace: Workspace,
) -> Recipe:
    """Read the rows of data for a run into its workspace; return the recipe by which the run reads their texts."""
    run = each.run
    if data.own:
        corpus = own_corpus(replace(training.read(data.spec), notes=()), run, settings.split)
    else:
        corpus = other_corpus(data, run, space, settings.split)
    recipe = reading_recipe(run, data.spec, settings.extract or run.recipe.extract)
    workspace.add_corpus(recipe.corpus, corpus)
    return recipe


def _measure(
    each: EvaluatedRun, data: EvaluationData, recipe: Recipe, workspace: Workspace, training: TrainingCorpora
) -> Evaluation:
    corpus = workspace.corpus(recipe.corpus)
    inputs = probe_inputs(each.run, recipe, workspace)
    predicted = evaluated_task(each.run, each.selected, each.metric, corpus, inputs)
    trained_on = training.find(each.run)
    if trained_on is not None:
        _note_leaks(trained_on, corpus, workspace.progress)
    rows = measured_rows(predicted, trained_on)
    if not rows:
        count = len(next(iter(corpus.splits.values())))
        raise CorpusError(f"{data.name}: its metrics need more rows with labels of the run than {count:,}.")
    return Evaluation(evaluated=each, data=data, recipe=recipe, predicted=predicted, rows=rows)


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
    settings: EvaluationSettings,
) -> RunResult:
    """Write the folder of an evaluation: of one run on one data set as that of a run, else with the transfer matrix.

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
        "label_map": dict(settings.label_map),
    }
    tasks = {
        name: TaskContents(None, task_tables(each.predicted, []), {})
        for name, each in zip(names, evaluations, strict=True)
    }
    path = writer.write(record, {"metrics": metrics_frame(rows), "skipped": skipped_table(corpora)}, tasks)
    return RunResult(
        path=path,
        seconds=writer.seconds,
        texts=common["texts"],
        texts_distinct=common["texts_distinct"],
        texts_run=common["texts_run"],
        selected=selected,
        parameters={},
        backbone_parameters={},
        metrics=[asdict(row) for row in rows],
    )


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
