"""What is asked of a finished run: texts from the command line or a file, with the columns and targets beside them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.corpus import CorpusError
from data.files import Row, read_table
from data.named import NAMED
from data.spec import nearest
from data.text import fault
from probes.runs import LoadedRun

Item = tuple[str, ...]
Target = str | float | None

PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"))
SINGLES = (("sentence",), ("text",))
QUESTION = ("question", "context")


@dataclass(frozen=True)
class Asked:
    """One item."""

    texts: Item
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
    return ("first", "second") if run.sides == 2 else ("text",)


def check_items(run: LoadedRun, items: Sequence[Item], places: Sequence[str] = ()) -> None:
    """Every item has as many texts as the run reads, and none is empty.

    Raises:
        CorpusError: one does not; it is named by its place, or by its number.
    """
    names = names_of(run)
    what = {1: "one text", 2: "two texts"}[len(names)] if names != QUESTION else "a question and its context"
    for number, item in enumerate(items):
        place = places[number] if places else f"item {number + 1}"
        if len(item) != len(names):
            raise CorpusError(f"{place}: this run reads {what} an item, got {len(item)}.")
        for name, text in zip(names, item, strict=True):
            _check_text(place, name if name in (*QUESTION, "text") else f"{name} text", text)


def from_words(run: LoadedRun, texts: Sequence[str]) -> list[Asked]:
    """The items that texts one after another make; raises :class:`CorpusError` where the last is not whole."""
    names = names_of(run)
    if len(texts) % len(names):
        what = "pairs" if names != QUESTION else "a question, then its context"
        raise CorpusError(f"this run reads {what}: give an even number of texts, got {len(texts)}.")
    items = [tuple(texts[at : at + len(names)]) for at in range(0, len(texts), len(names))]
    return [Asked(item, f"item {number}", dict(zip(names, item, strict=True))) for number, item in enumerate(items, 1)]


def from_file(run: LoadedRun, path: Path) -> list[Asked]:
    """The items of a file, by the columns that the run was trained on or the usual names for them.

    Raises:
        CorpusError: the file is missing, broken or empty, lacks the columns, or has a target that the run cannot say.
    """
    asked = []
    columns: Item = ()
    wanted = _target_column(run)
    for row in read_table(path):
        columns = columns or _columns(run, row)
        place, fields = row
        for column in columns:
            if column not in fields:
                raise CorpusError(f"{place}: no column '{column}'. {nearest(column, fields)}")
        labelled = wanted in fields
        target = _target(run, place, wanted, fields[wanted]) if labelled else None
        beside = {name: value for name, value in fields.items() if name != wanted}
        asked.append(Asked(tuple(fields[column] for column in columns), place, beside, labelled, target))
    if not asked:
        raise CorpusError(f"{path}: it holds no rows.")
    return asked


def _check_text(place: str, name: str, text: object) -> None:
    if not isinstance(text, str):
        raise CorpusError(f"{place}: the {name} must be a text, got {type(text).__name__}.")
    if wrong := fault(text):
        why = "; a question needs a context that answers it" if name in QUESTION and not text.strip() else ""
        raise CorpusError(f"{place}: the {name} {wrong}{why}.")


def _columns(run: LoadedRun, row: Row) -> Item:
    """The columns of a file that hold the texts of its items."""
    place, fields = row
    count = len(names_of(run))
    known: list[Item] = [QUESTION] if run.kind == "answers" else list(PAIRS if count == 2 else SINGLES)
    own = _trained_on(run)[:count] if run.kind != "tags" else ()
    known = [own, *known] if len(own) == count else known
    for names in known:
        if set(names) <= set(fields):
            return names
    expected = " or ".join(dict.fromkeys(", ".join(names) for names in known))
    if run.kind == "answers":
        expected += ": a question needs a context that answers it"
    raise CorpusError(f"{place}: expected the columns {expected}; found {', '.join(fields)}.")


def _trained_on(run: LoadedRun) -> Item:
    """The columns of the run's corpus: texts, then the target; empty where they are not known."""
    spec = run.recipe.corpus
    named = NAMED.get(spec.name)
    return spec.columns or (named.columns if named else ())


def _target_column(run: LoadedRun) -> str:
    columns = _trained_on(run)
    ruled = run.recipe.corpus.rule
    return columns[run.sides] if run.kind in ("score", "class") and len(columns) > run.sides and not ruled else ""


def _target(run: LoadedRun, place: str, column: str, said: str) -> Target:
    """What an item is labelled with; None where its file says nothing, or that annotators did not agree."""
    spec = run.recipe.corpus
    named = NAMED.get(spec.name)
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
