"""Prediction requests: texts from the command line or a file, parsed into the items that a trained run expects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from permafrost.data.corpora.records import CorpusError
from permafrost.data.files.opening import encoding_or
from permafrost.data.files.settings import FileFormat, refuse_row
from permafrost.data.files.table import Row, as_text, open_table, suffix_of
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.readers.layout import named_column
from permafrost.data.readers.registry import CORPORA
from permafrost.data.readers.resolve import line_pattern, pattern_columns
from permafrost.data.spec import nearest
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.prediction.items import describe_items, tasks_by_text_names
from permafrost.probes.tasks.base import PAIR, QUESTION, RANKED, SINGLE, Item, Target

USUAL_COLUMNS: dict[Item, Sequence[Item]] = {
    SINGLE: (("sentence",), ("text",)),
    PAIR: (("sentence1", "sentence2"), ("premise", "hypothesis")),
    QUESTION: (QUESTION,),
    RANKED: (RANKED, ("question", "answer")),
}
"""Names of the texts of an item -> usual column names, which are read if a file lacks the columns of the corpus."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """One item to predict, with what its file says about it."""

    texts: Item
    names: Item
    """Names of the texts, for tables on the screen."""

    location: str
    """Location for error messages: ``file:line``, or the number of the item."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Input columns of the output table: the columns of the file but for the target, or the texts by name."""

    labelled: bool = False
    """Whether the file has a target column."""

    target: Target = None
    """Gold label or score of the item, or None if the file does not provide one."""


def requests_from_texts(runs: Mapping[str, LoadedRun], texts: Sequence[str]) -> dict[str, list[PredictionRequest]]:
    """Return the items of texts given one after another, task -> items, for the tasks that can read them.

    Raises:
        CorpusError: the last item is incomplete, or the texts fit several forms of items.
    """
    by_names = tasks_by_text_names(runs)
    candidates = [names for names in by_names if len(texts) % len(names) == 0] or list(by_names)[:1]
    if len(candidates) > 1:
        forms = describe_items(by_names, candidates)
        raise CorpusError(f"{len(texts)} texts: an item may be {forms}; name the task with --task.")
    names = candidates[0]
    if len(texts) % len(names):
        expected = "pairs" if names != QUESTION else "a question, then its context"
        raise CorpusError(f"this run reads {expected}: give an even number of texts, got {len(texts)}.")
    items = [tuple(texts[start : start + len(names)]) for start in range(0, len(texts), len(names))]
    requests = [
        PredictionRequest(
            texts=item, names=names, location=f"item {number}", columns=dict(zip(names, item, strict=True))
        )
        for number, item in enumerate(items, 1)
    ]
    return dict.fromkeys(by_names[names], requests)


def requests_from_file(
    runs: Mapping[str, LoadedRun], path: Path, progress: Progress | None = None, columns: Sequence[str] = ()
) -> dict[str, list[PredictionRequest]]:
    """Return the items of a file, task -> items, by the columns of the task's corpus or their usual names.

    Tasks whose columns the file lacks are left out. A target column with a value that is no target of the run is
    carried along like any other column.

    Args:
        columns: names or positions from 1 of other columns of texts, and of that of the target if there is one more.

    Raises:
        CorpusError: the file is missing, broken or empty, or lacks the columns of all tasks.
    """
    rows = _read_rows(path, runs, progress or NoProgress())
    if not rows:
        raise CorpusError(f"{path}: it holds no rows.")
    location, fields = rows[0]
    if columns:
        return _requests_from_columns(runs, rows, [named_column(fields, name, str(path)) for name in columns], progress)
    candidates = {task: _candidate_columns(run) for task, run in runs.items()}
    present = {task: [names for names in known if set(names) <= set(fields)] for task, known in candidates.items()}
    found = {task: names[0] for task, names in present.items() if names}
    if not found:
        expected = " or ".join(dict.fromkeys(", ".join(names) for known in candidates.values() for names in known))
        if all(run.text_names == QUESTION for run in runs.values()):
            expected += ": a question needs a context that answers it"
        raise CorpusError(
            f"{location}: expected the columns {expected}; found {', '.join(fields)}; name its columns of texts by "
            "--columns."
        )
    return {
        task: _requests_from_rows(
            runs[task], rows, columns, runs[task].text_names if len(found) == 1 else columns, progress
        )
        for task, columns in found.items()
    }


def _requests_from_columns(
    runs: Mapping[str, LoadedRun], rows: Sequence[Row], columns: Sequence[str], progress: Progress | None
) -> dict[str, list[PredictionRequest]]:
    """Return the items of the tasks that read as many texts as the user names, or one less and a target."""
    found = {task: len(run.text_names) for task, run in runs.items()}
    found = {task: count for task, count in found.items() if len(columns) - count in (0, 1)}
    if not found:
        raise CorpusError(
            f"--columns {','.join(columns)}: this run reads {describe_items(tasks_by_text_names(runs))} an item; name "
            "the columns of these texts, and one for a target if there is one."
        )
    return {
        task: _requests_from_rows(
            runs[task], rows, tuple(columns[:count]), runs[task].text_names, progress, "".join(columns[count:])
        )
        for task, count in found.items()
    }


def _read_rows(path: Path, runs: Mapping[str, LoadedRun], progress: Progress) -> list[Row]:
    """Return the rows of a file; the lines of a run whose corpus is read by a regular expression are read by it too.

    A file that does not tell its encoding is read in the one that the runs set for their corpus. A line that does not
    match is a text without a target.
    """
    patterns = {line_pattern(run.recipe.corpus.columns) for run in runs.values()}
    pattern = patterns.pop() if len(patterns) == 1 else None
    encodings = {run.recipe.corpus.encoding for run in runs.values()}
    encoding = encoding_or(path, encodings.pop()) if len(encodings) == 1 else "auto"
    corpora = [run.recipe.corpus for run in runs.values()]
    readers = {corpus.reader for corpus in corpora if suffix_of(Path(corpus.path)) == suffix_of(path)}
    reader = readers.pop() if len(readers) == 1 else ""
    if not pattern:
        empty = list[str]()

        def skip(origin: str, reason: str, problem: str) -> None:
            refuse_row(origin, reason, problem)
            empty.append(origin)

        table = open_table(path, FileFormat(encoding, reader=reader))
        rows: list[Row] = [(origin, as_text(fields)) for origin, fields in table.rows(skip)]
        if empty:
            progress.note(f"{path.name}: {len(empty):,} rows of empty cells are left out; the first: {empty[0]}")
        return rows
    lines = open_table(path, FileFormat(encoding, delimiter="none")).rows()
    matched = ((origin, line, pattern.fullmatch(line)) for origin, fields in lines for line in fields.values())
    return [(origin, match.groupdict(default="") if match else {"text": line}) for origin, line, match in matched]


def _requests_from_rows(
    run: LoadedRun,
    rows: Sequence[Row],
    columns: Item,
    names: Item,
    progress: Progress | None = None,
    target_column: str | None = None,
) -> list[PredictionRequest]:
    """Return the items of rows; the target column is that of the run's corpus unless it is given."""
    of_corpus, count = _corpus_columns(run), run.texts_per_row
    if target_column is None:
        has_target = run.task.target_is_column and len(of_corpus) > count and not run.recipe.corpus.rule
        target_column = of_corpus[count] if has_target else ""
    targets: list[Target] = []
    try:
        for location, fields in rows:
            known = target_column in fields
            targets.append(_target(run, location, target_column, fields[target_column]) if known else None)
    except CorpusError as error:
        (progress or NoProgress()).note(
            f"column '{target_column}' holds no targets of this run and is carried along: {error}"
        )
        target_column, targets = "", [None] * len(rows)
    requests = []
    for (location, fields), target in zip(rows, targets, strict=True):
        for column in columns:
            if column not in fields:
                raise CorpusError(f"{location}: no column '{column}'. {nearest(column, fields)}")
        requests.append(
            PredictionRequest(
                texts=tuple(fields[column] for column in columns),
                names=names,
                location=location,
                columns={name: value for name, value in fields.items() if name != target_column},
                labelled=target_column in fields,
                target=target,
            )
        )
    return requests


def _candidate_columns(run: LoadedRun) -> list[Item]:
    """Return the columns that may hold the texts of an item, those of the run's corpus first."""
    count, target_is_column = len(run.text_names), run.task.target_is_column
    usual = USUAL_COLUMNS[run.text_names]
    of_corpus = _corpus_columns(run)[:count] if target_is_column or run.text_names == QUESTION else ()
    return [of_corpus, *usual] if len(of_corpus) == count else list(usual)


def _corpus_columns(run: LoadedRun) -> Item:
    """Return the columns of the run's corpus, texts then target; empty if they are unknown."""
    spec = run.recipe.corpus
    entry = CORPORA.get(spec.name)
    if pattern := line_pattern(spec.columns):
        return pattern_columns(pattern)
    return spec.columns or (entry.columns if entry else ())


def _target(run: LoadedRun, location: str, column: str, value: str) -> Target:
    """Return the target of an item; None if it is unknown: an empty field, or one that the corpus ignores."""
    spec = run.recipe.corpus
    entry = CORPORA.get(spec.name)
    if not (value.strip() or run.task.empty_is_target) or value in (*spec.ignore, *(entry.ignore if entry else ())):
        return None
    if run.first_number is None and (spec.labels or (entry and entry.labels)):  # a run of an earlier version
        run = replace(run, first_number=0)
    try:
        return run.task.parse_target(run, value, column, spec)
    except CorpusError as error:
        raise CorpusError(f"{location}: {error}") from None
