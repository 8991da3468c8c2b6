"""What is asked of a finished run: texts from the command line or a file, with the columns and targets beside them."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.corpora.records import CorpusError
from permafrost.data.readers.registry import CORPORA
from permafrost.data.readers.tabular import Row, read_table
from permafrost.data.spec import nearest
from permafrost.data.text import fault
from permafrost.probes.tasks.base import Item, Target
from permafrost.probes.tasks.fitted import LoadedRun

PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"))

SINGLES = (("sentence",), ("text",))

SINGLE, PAIR, QUESTION = ("text",), ("first", "second"), ("question", "context")

WHAT = {SINGLE: "one text", PAIR: "two texts", QUESTION: "a question and its context"}


@dataclass(frozen=True)
class PredictionRequest:
    """One item."""

    texts: Item
    names: Item
    """What a table on the screen calls them."""

    place: str
    """For messages: ``file:line``, or its number."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """What stands beside the answer: the columns of its file but for the target, or its texts by their names."""

    labelled: bool = False
    """Whether its file says what the run should answer."""

    target: Target = None
    """What that is; None where the file leaves it open."""


def names_of(run: LoadedRun) -> Item:
    """What the texts of an item are called."""
    if run.kind == "answers":
        return QUESTION
    return PAIR if run.texts_per_row == 2 else SINGLE


def by_names(runs: Mapping[str, LoadedRun]) -> dict[Item, list[str]]:
    """What the texts of an item are called -> the tasks that read such items."""
    found: dict[Item, list[str]] = {}
    for task, run in runs.items():
        found.setdefault(names_of(run), []).append(task)
    return found


def readers(runs: Mapping[str, LoadedRun], items: Sequence[Item], places: Sequence[str]) -> list[list[str]]:
    """For each item, the tasks that read it.

    Raises:
        CorpusError: no task reads as many texts, or they are one thing to this task and another to that.
    """
    reading, found = by_names(runs), []
    for item, place in zip(items, places, strict=True):
        fitting = [names for names in reading if len(names) == len(item)]
        if not fitting:
            raise CorpusError(f"{place}: this run reads {_any(reading)} an item, got {len(item)}.")
        if len(fitting) > 1:
            raise CorpusError(f"{place}: it may be {_any(reading, fitting)}; name the task.")
        found.append(reading[fitting[0]])
    return found


def _any(reading: Mapping[Item, Sequence[str]], of: Sequence[Item] = ()) -> str:
    """What an item may be, and for which tasks."""
    return " or ".join(f"{WHAT[names]} ({', '.join(reading[names])})" for names in of or reading)


def check_items(run: LoadedRun, items: Sequence[Item], places: Sequence[str] = ()) -> None:
    """Every item has as many texts as the run reads, and none is empty.

    Raises:
        CorpusError: one does not; it is named by its place, or by its number.
    """
    names = names_of(run)
    for number, item in enumerate(items):
        place = places[number] if places else f"item {number + 1}"
        if len(item) != len(names):
            raise CorpusError(f"{place}: this run reads {WHAT[names]} an item, got {len(item)}.")
        for name, text in zip(names, item, strict=True):
            _check_text(place, name if name in (*QUESTION, "text") else f"{name} text", text)


def from_words(run: LoadedRun, texts: Sequence[str]) -> list[PredictionRequest]:
    """The items that texts one after another make; raises :class:`CorpusError` where the last is not whole."""
    names = names_of(run)
    if len(texts) % len(names):
        what = "pairs" if names != QUESTION else "a question, then its context"
        raise CorpusError(f"this run reads {what}: give an even number of texts, got {len(texts)}.")
    items = [tuple(texts[at : at + len(names)]) for at in range(0, len(texts), len(names))]
    return [
        PredictionRequest(item, names, f"item {number}", dict(zip(names, item, strict=True)))
        for number, item in enumerate(items, 1)
    ]


def each_from_words(runs: Mapping[str, LoadedRun], texts: Sequence[str]) -> dict[str, list[PredictionRequest]]:
    """Task -> its items, for the tasks that texts one after another can be meant for.

    Raises:
        CorpusError: the last item is not whole, or the texts are one thing to this task and another to that.
    """
    reading = by_names(runs)
    fitting = [names for names in reading if len(texts) % len(names) == 0] or list(reading)[:1]
    if len(fitting) > 1:
        raise CorpusError(f"{len(texts)} texts: an item may be {_any(reading, fitting)}; name the task with --task.")
    return {task: from_words(runs[task], texts) for task in reading[fitting[0]]}


def from_file(run: LoadedRun, path: Path) -> list[PredictionRequest]:
    """The items of a file; see :func:`each_from_file`."""
    return each_from_file({"": run}, path)[""]


def each_from_file(runs: Mapping[str, LoadedRun], path: Path) -> dict[str, list[PredictionRequest]]:
    """Task -> the items of a file, by the columns that the task was trained on or the usual names for them.

    Tasks whose columns the file has not are left out.

    Raises:
        CorpusError: the file is missing, broken or empty, lacks the columns of all tasks, or has a target that a task
            cannot say.
    """
    rows = list(read_table(path))
    if not rows:
        raise CorpusError(f"{path}: it holds no rows.")
    columns = {task: found for task, run in runs.items() if (found := _columns(run, rows[0][1]))}
    if not columns:
        place, fields = rows[0]
        expected = " or ".join(dict.fromkeys(", ".join(names) for run in runs.values() for names in _known(run)))
        if all(run.kind == "answers" for run in runs.values()):
            expected += ": a question needs a context that answers it"
        raise CorpusError(f"{place}: expected the columns {expected}; found {', '.join(fields)}.")
    alone = len(columns) == 1
    return {
        task: _from_rows(runs[task], rows, mine, names_of(runs[task]) if alone else mine)
        for task, mine in columns.items()
    }


def _from_rows(run: LoadedRun, rows: Sequence[Row], columns: Item, names: Item) -> list[PredictionRequest]:
    asked = []
    wanted = _target_column(run)
    for place, fields in rows:
        for column in columns:
            if column not in fields:
                raise CorpusError(f"{place}: no column '{column}'. {nearest(column, fields)}")
        labelled = wanted in fields
        target = _target(run, place, wanted, fields[wanted]) if labelled else None
        beside = {name: value for name, value in fields.items() if name != wanted}
        asked.append(
            PredictionRequest(tuple(fields[column] for column in columns), names, place, beside, labelled, target)
        )
    return asked


def _check_text(place: str, name: str, text: object) -> None:
    if not isinstance(text, str):
        raise CorpusError(f"{place}: the {name} must be a text, got {type(text).__name__}.")
    if wrong := fault(text):
        why = "; a question needs a context that answers it" if name in QUESTION and not text.strip() else ""
        raise CorpusError(f"{place}: the {name} {wrong}{why}.")


def _columns(run: LoadedRun, fields: Collection[str]) -> Item:
    """The columns of a file that hold the texts of its items; none where it has them not."""
    return next((names for names in _known(run) if set(names) <= set(fields)), ())


def _known(run: LoadedRun) -> list[Item]:
    """The columns that may hold the texts of an item, the run's own first."""
    count = len(names_of(run))
    usual: list[Item] = [QUESTION] if run.kind == "answers" else list(PAIRS if count == 2 else SINGLES)
    own = _trained_on(run)[:count] if run.kind != "tags" else ()
    return [own, *usual] if len(own) == count else usual


def _trained_on(run: LoadedRun) -> Item:
    """The columns of the run's corpus: texts, then the target; empty where they are not known."""
    spec = run.recipe.corpus
    named = CORPORA.get(spec.name)
    return spec.columns or (named.columns if named else ())


def _target_column(run: LoadedRun) -> str:
    columns = _trained_on(run)
    ruled = run.recipe.corpus.rule
    return (
        columns[run.texts_per_row]
        if run.kind in ("score", "class") and len(columns) > run.texts_per_row and not ruled
        else ""
    )


def _target(run: LoadedRun, place: str, column: str, said: str) -> Target:
    """What an item is labelled with; None where its file says nothing, or that annotators did not agree."""
    spec = run.recipe.corpus
    named = CORPORA.get(spec.name)
    if not said.strip() or (named and said in named.unlabelled):
        return None
    if run.kind == "score":
        return _score(run, place, column, said)
    if said in run.labels:
        return said
    given = spec.labels or (named.labels if named else ())
    if given and said.isascii() and said.isdigit() and int(said) < len(run.labels):
        return run.labels[int(said)]
    raise CorpusError(f"{place}: unknown label {said!r} in column '{column}'. {nearest(said, run.labels)}")


def _score(run: LoadedRun, place: str, column: str, said: str) -> float:
    assert run.score_range is not None
    low, high = run.score_range
    try:
        score = float(said)
    except ValueError:
        score = math.nan
    if not low <= score <= high:
        raise CorpusError(f"{place}: expected a score from {low:g} to {high:g} in column '{column}', got {said!r}.")
    return score
