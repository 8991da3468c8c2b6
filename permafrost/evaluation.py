"""Evaluation of finished runs on labelled data, and finished runs that predict and evaluate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError
from permafrost.data.files.opening import encoding_or
from permafrost.data.files.table import open_table
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.progress import Progress, ProgressOption
from permafrost.data.readers.registry import CORPORA
from permafrost.data.readers.resolve import file_format, line_pattern, resolve_corpus, sample_rows
from permafrost.data.readers.sources import find_files
from permafrost.data.spec import SpecError, Tree, override, parse, plain
from permafrost.data.text import describe_value
from permafrost.display.choose import display_of
from permafrost.named_runs import IfDone, PlannedEvaluation
from permafrost.probes.config.names import PROBE
from permafrost.probes.evaluation.corpus import EvaluationData
from permafrost.probes.evaluation.evaluate import evaluate_runs
from permafrost.probes.evaluation.evaluation import EvaluatedRun, EvaluationSettings
from permafrost.probes.evaluation.labels import parse_label_map
from permafrost.probes.evaluation.reading import read_evaluations
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.results.read_result import read_result
from permafrost.probes.results.run_folder import RunError, RunFolder, checked_folder
from permafrost.probes.runs.load import load_tasks
from permafrost.stage_one import PROVIDER
from permafrost.stages import check_backbone, with_backbone, with_device
from permafrost.user_data import Data, DataArguments, kind_of_corpus

SETTABLE = ("corpus", "extract", "device")
"""Tables and keys of a recipe that an evaluation can set."""


def evaluate(
    runs: Path | str | Sequence[Path | str],
    data: Data | Sequence[Data] = None,
    *,
    columns: Sequence[str] = (),
    target: Kind = "",
    split: str = "",
    label_map: Mapping[str, str] | Iterable[str] = (),
    task: str = "",
    backbone: str = "",
    overrides: Iterable[str] = (),
    folder: Path | str = "runs",
    progress: ProgressOption = None,
    name: str = "",
    if_done: IfDone = "skip",
) -> RunResult:
    """Evaluate finished runs on labelled data, and write a run folder with metrics, predictions and a page.

    Several runs or data sets make a transfer matrix; a run of several tasks is evaluated by those of the data's kind.

    Args:
        runs: a run folder, or several.
        data: as of :func:`permafrost.api.run`, or a list of such; None takes the corpus of each run.
        columns: as ``corpus.columns``, of all data; empty finds them.
        target: as ``corpus.target``, of all data; empty takes the kind of the run.
        split: ``train``, ``validation``, ``test``, or ``all`` for all rows. Empty takes test, else validation, else the
            only one; all rows of data without splits.
        label_map: label of the data -> label of the run, for labels of other names, or ``theirs=ours`` pairs; an empty
            one leaves the label out.
        task: the only task of each run to evaluate; empty takes all that fit the data.
        backbone: place of the runs' backbone, if it is not where it was.
        overrides: ``corpus.…=value``, ``extract.…=value`` and ``device=value`` settings, as after ``--set``.
        folder: the folder in which the run folder is written.
        progress: as of :func:`permafrost.api.run`.
        name, if_done: as of :func:`permafrost.api.run`; done is what is of the same runs, rows, labels and versions.

    Raises:
        InputError: data cannot be read or do not fit a run; a backbone is not the one that a run was trained on; or
            ``name`` is that of another run.
        MachineError: the machine failed; the message says what is safe.
    """
    paths = _distinct_paths([runs] if isinstance(runs, str | Path) else runs)
    progress, overrides = display_of(progress), list(overrides)
    destination = Destination(checked_folder(folder), name)
    arguments = [DataArguments(each, columns, target) for each in data_sets(data)]
    _check_settable(overrides)
    evaluated = _evaluated_runs(paths, task, backbone, arguments, overrides, progress)
    settings = EvaluationSettings(split=split, label_map=_label_map(label_map))
    read = read_evaluations(evaluated, settings, progress, PROVIDER)

    def work(place: Destination) -> RunResult:
        for run in [each.run for each in evaluated] if not backbone else ():
            check_backbone(run)
        return evaluate_runs("evaluation", read, place, progress)

    return PlannedEvaluation(destination, read.identity, read.digests, if_done).run(work, read_result, progress)


def _distinct_paths(runs: Sequence[Path | str]) -> list[Path]:
    """Return the paths of runs; one that is named twice counts where it is named first."""
    return list({path.resolve(): path for path in reversed([*map(Path, runs)])}.values())[::-1]


def _label_map(given: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        return parse_label_map(given)
    return {str(theirs): str(ours) for theirs, ours in given.items()}


def data_sets(data: Data | Sequence[Data]) -> list[Data]:
    """Return data sets one by one: a list of paths, names or tables is several, a list of rows is one table.

    Raises:
        CorpusError: one can be no data set.
    """
    if not isinstance(data, list | tuple) or not data or all(isinstance(each, Mapping | tuple) for each in data):
        return [data]
    for number, each in enumerate(data, 1):
        if each is not None and (isinstance(each, bytes) or not isinstance(each, Iterable | Path)):
            raise CorpusError(
                f"data set {number:,} is {describe_value(each)}: give files, folders, names or tables, or a list of "
                "rows, which are tuples or dicts."
            )
    return list(data)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path; all of it if several have the same."""
    names = [path.resolve().name for path in paths]
    return [str(path) if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


def _check_settable(overrides: Iterable[str]) -> None:
    for setting in overrides:
        if _table_of(setting) not in SETTABLE:
            raise SpecError(
                f"--set {setting}: an evaluation sets device, and keys of corpus and extract; the probe is that of the "
                "run."
            )


def _table_of(setting: str) -> str:
    """Return the table of ``table.key=value``, or the key of ``key=value``."""
    return setting.partition("=")[0].partition(".")[0].strip()


def _evaluated_runs(
    paths: Sequence[Path],
    task: str,
    backbone: str,
    arguments: Sequence[DataArguments],
    overrides: Sequence[str],
    progress: Progress,
) -> list[EvaluatedRun]:
    """Return the tasks of all runs with their data; errors as of :func:`evaluate`."""
    if not paths:
        raise RunError("name the folder of a finished run to evaluate, e.g. runs/nli-1.")
    return [
        each
        for name, path in zip(distinct_names(paths), paths, strict=True)
        for each in _evaluated_tasks(name, path, task, backbone, arguments, overrides, progress)
    ]


def _evaluated_tasks(
    name: str,
    path: Path,
    task: str,
    backbone: str,
    arguments: Sequence[DataArguments],
    overrides: Sequence[str],
    progress: Progress,
) -> list[EvaluatedRun]:
    """Return the tasks of a run with the data that each can be evaluated on.

    Raises:
        CorpusError: some data are of the kind of no task.
    """
    record = RunFolder(path, RunError).record
    tasks = load_tasks(path, task)
    evaluated, left_out = dict[str, list[EvaluationData]](), list[InputError]()
    runs = {name: with_backbone(_with_settings(run, overrides), backbone) for name, run in tasks.items()}
    for argument, data_name in zip(arguments, _data_names(arguments), strict=True):
        errors = list[InputError]()
        for task_name, run in runs.items():
            try:
                data = evaluation_data(run, argument, data_name, overrides)
            except CorpusError as error:
                errors.append(error)
                continue
            evaluated.setdefault(task_name, []).append(data)
        if len(errors) == len(runs):
            raise errors[0]
        left_out += errors
    for reason in left_out:
        progress.note(f"left out: {reason}")
    return [
        EvaluatedRun(
            name=name,
            task=task_name,
            run=runs[task_name],
            selected=str(record.get("selected") or runs[task_name].variant),
            metric=_metric_of(record, task_name, runs[task_name]),
            data=data,
        )
        for task_name, data in evaluated.items()
    ]


def _metric_of(record: Mapping[str, Any], task: str, run: LoadedRun) -> str:
    metric = str(record.get("metric") if task == PROBE else record.get("metrics", {}).get(task))
    return metric if run.task.has_metric(metric) else run.task.metric


def _with_settings(run: LoadedRun, overrides: Sequence[str]) -> LoadedRun:
    """Return a run whose recipe has the device and the settings of extraction that are given."""
    devices = [setting.partition("=")[2].strip() for setting in overrides if _table_of(setting) == "device"]
    run = with_device(run, devices[-1] if devices else "")
    own = [setting for setting in overrides if setting.startswith("extract.")]
    tree = override({"extract": plain(run.recipe.extract)}, own)["extract"]
    return replace(run, recipe=replace(run.recipe, extract=parse(ExtractSpec, tree, "evaluate", "extract.")))


def _data_names(arguments: Sequence[DataArguments]) -> list[str]:
    paths = [Path(str(each.data)) if isinstance(each.data, str | Path) else Path("data") for each in arguments]
    named = [str(each.data) if str(each.data) in CORPORA else "" for each in arguments]
    names = [path.name for path in paths]
    chosen = [
        own or (str(path) if names.count(name) > 1 else name)
        for own, path, name in zip(named, paths, names, strict=True)
    ]
    earlier = [chosen[:index].count(name) for index, name in enumerate(chosen)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(chosen, earlier, strict=True)]


def evaluation_data(run: LoadedRun, arguments: DataArguments, name: str, overrides: Sequence[str]) -> EvaluationData:
    """Return data for a run, with all that their files leave open.

    Data that are the corpus of the run keep its splits. Columns of the run are taken if a file has them all.

    Raises:
        CorpusError: there are no such data, or they are of another kind than the run.
    """
    recipe, own = run.recipe, False
    tree: Tree = plain(recipe.corpus)
    if arguments.data is not None:
        tree = replace(arguments, cache=recipe.extract.cache).corpus_table(replace(recipe, tasks={}))
        own = not arguments.columns and not arguments.target and _is_own(tree, recipe.corpus)
        tree = plain(recipe.corpus) if own else {key: value for key, value in tree.items() if key != "fractions"}
    changes = [setting for setting in overrides if setting.startswith("corpus.")]
    tree = override({"corpus": tree}, changes)["corpus"]
    spec = parse(CorpusSpec, tree, "evaluate", "corpus.")
    if arguments.data is None or own:
        return EvaluationData(name=spec.name or Path(spec.path).name, spec=spec, own=True)
    if spec.path:
        spec = resolve_corpus(_as_the_run_reads(spec, run), "" if spec.target else run.kind).spec
    kind = kind_of_corpus(spec) or run.kind
    if kind != run.kind:
        raise CorpusError(
            f"{name} has targets of the kind '{kind}', and {run.path} predicts '{run.kind}'; set --columns and "
            "--target if that is read wrongly."
        )
    return EvaluationData(name=name, spec=replace(spec, target="" if spec.rule else kind))


def _is_own(tree: Tree, spec: CorpusSpec) -> bool:
    """Return whether a source is that of a corpus."""
    if tree.get("name"):
        return bool(tree["name"] == spec.name)
    paths = [Path(path).expanduser().resolve() for path in (tree.get("path", ""), spec.path) if path]
    return len(paths) == 2 and paths[0] == paths[1]


def _as_the_run_reads(spec: CorpusSpec, run: LoadedRun) -> CorpusSpec:
    """Return a spec with the columns of the run's corpus, if the file has them all, and with its encoding."""
    corpus, entry = run.recipe.corpus, CORPORA.get(run.recipe.corpus.name)
    files = find_files(Path(spec.path).expanduser())
    if spec.encoding == "auto":
        spec = replace(spec, encoding=encoding_or(files[0][1], corpus.encoding))
    columns = corpus.columns or (entry.columns if entry else ())
    if spec.columns or spec.target or not columns:
        return spec
    pattern = line_pattern(columns)
    with_columns = replace(spec, columns=columns, rule=corpus.rule)
    rows = sample_rows(open_table(files[0][1], file_format(with_columns if pattern else spec)))
    if pattern:
        lines = [str(line) for _, fields in rows for line in fields.values()]
        fits = bool(lines) and sum(bool(pattern.fullmatch(line)) for line in lines) > len(lines) / 2
    else:
        fits = bool(rows) and set(columns) <= set(rows[0][1])
    return replace(with_columns, target="" if corpus.rule else run.kind) if fits else spec
