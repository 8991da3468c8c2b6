"""Readers of questions that a passage answers: SQuAD's JSON, and rows of question, context and answer.

An answer is a stretch of its context. One that is not where the file says is left out and counted, or refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.readers.tabular import (
    TypedRow,
    jsonl_objects,
    parquet_objects,
    read_by_suffix,
    read_csv,
    read_json,
    read_tsv,
    suffix_of,
)
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import Segments

T = TypeVar("T")

USUAL = ("question", "context", "answer", "start")

ROW_FILES = {".jsonl": jsonl_objects, ".parquet": parquet_objects, ".csv": read_csv, ".tsv": read_tsv}

KINDS = (".json", *ROW_FILES)

Answer = tuple[str, int | None]
"""Its text and its first character in the context; None for wherever it first occurs."""


@dataclass
class Omissions:
    """What was left out of questions while they were read."""

    strict: bool = False
    """Refuse answers that would be left out."""

    answers: int = 0
    """How many were read."""

    misplaced: list[str] = field(default_factory=list)
    """Places of the answers that are not at their offset."""

    empty: list[str] = field(default_factory=list)
    """Places of the answers without text."""

    impossible: int = 0
    """Questions that say of themselves that their context does not answer them."""

    unanswered: int = 0
    """Questions that no answer was left for."""

    def notes(self) -> tuple[str, ...]:
        """What a user should know, a sentence each."""
        told = []
        for places, fault in ((self.misplaced, "not at their offset"), (self.empty, "empty")):
            if places:
                count = f"{len(places):,} of {self.answers:,} answers are {fault} and are left out"
                told.append(f"{count}; the first: {places[0]}")
        for number, fault in ((self.impossible, "said to be impossible"), (self.unanswered, "without an answer")):
            if number:
                told.append(f"questions {fault} are left out: {number:,}")
        return tuple(told)


def read_questions(path: Path, columns: tuple[str, ...], split_column: str, omitted: Omissions) -> Iterator[Record]:
    """The questions of a file, each a text of two segments with a mark for every answer.

    Args:
        columns: names of question, context, answer and, where there is one, of the answer's first character;
            without, the usual ones. JSON in the layout of SQuAD has none.

    Raises:
        CorpusError: the file is missing or broken, or a question or context is empty.
        SpecError: columns are named of a file that has none.
    """
    if columns and suffix_of(path) == ".json":
        raise SpecError("corpus.columns: JSON in the layout of SQuAD names no columns; leave it out.")

    def rows(path: Path) -> Iterator[Record]:
        for row in read_by_suffix(path, ROW_FILES):
            yield from question_row(row, columns, split_column, omitted)

    readers = {".json": lambda path: read_squad(path, omitted), **dict.fromkeys(ROW_FILES, rows)}
    yield from read_by_suffix(path, readers)


def read_squad(path: Path, omitted: Omissions) -> Iterator[Record]:
    """SQuAD's layout, versions 1.1 and 2.0; an article may have a ``split`` of its own."""
    number = 0
    for at, article in enumerate(_part(str(path), read_json(path), "data", list), 1):
        place = f"{path}: article {at}"
        paragraphs = _part(place, article, "paragraphs", list)
        split = _part(place, article, "split", str) if "split" in article else ""
        for below, paragraph in enumerate(paragraphs, 1):
            inside = f"{place}, paragraph {below}"
            context = _part(inside, paragraph, "context", str)
            for item in _part(inside, paragraph, "qas", list):
                number += 1
                own = item.get("id") if isinstance(item, dict) else None
                which = _shown(own) if isinstance(own, str) else str(number)
                yield from _squad_question(f"{path}: question {which}", item, context, split, omitted)


def question_row(row: TypedRow, columns: tuple[str, ...], split_column: str, omitted: Omissions) -> Iterator[Record]:
    """The question of a row; none where it has no answer.

    The answer is a text, with or without its first character; or, as the hub has it, a table of lists, ``text`` and
    ``answer_start``, in a column ``answers``.
    """
    place, fields = row
    names = columns or (*USUAL[:2], "answers" if "answers" in fields and "answer" not in fields else "answer", "start")
    question, context = (_text(place, fields, name) for name in names[:2])
    said = fields.get(names[2])
    if isinstance(said, Mapping):
        answers = _listed(place, said)
    else:
        text = _text(place, fields, names[2])
        if columns[3:] and columns[3] not in fields:
            raise CorpusError(f"{place}: no column '{columns[3]}'; set corpus.columns. {nearest(columns[3], fields)}")
        start = _start(place, fields.get(names[3])) if names[3:] else None
        answers = [(text, start)]
    yield from _record(place, str(fields.get(split_column) or ""), question, context, answers, omitted)


def _squad_question(place: str, item: Any, context: str, split: str, omitted: Omissions) -> Iterator[Record]:
    question = _part(place, item, "question", str)
    if item.get("is_impossible") is True:
        omitted.impossible += 1
        return
    answers: list[Answer] = [
        (_part(place, answer, "text", str), _part(place, answer, "answer_start", int))
        for answer in _part(place, item, "answers", list)
    ]
    yield from _record(place, split, question, context, answers, omitted)


def _record(
    place: str, split: str, question: str, context: str, answers: list[Answer], omitted: Omissions
) -> Iterator[Record]:
    for which, text in (("question", question), ("context", context)):
        if not text.strip():
            raise CorpusError(f"{place}: the {which} is empty; a question needs a context that answers it.")
    marks = dict.fromkeys(mark for answer in answers if (mark := _mark(place, context, *answer, omitted)))
    if marks:
        yield Record(place, split, (Segments(question, context),), spans=tuple(marks))
    else:
        omitted.unanswered += 1


def _mark(place: str, context: str, text: str, start: int | None, omitted: Omissions) -> Span | None:
    """Where an answer stands, without blanks around it; None where it is left out."""
    omitted.answers += 1
    at = context.find(text) if start is None else start
    if text.strip() and at >= 0 and context.startswith(text, at):
        first = at + len(text) - len(text.lstrip())
        return Span(first, first + len(text.strip()))
    if not text.strip():
        fault, places = "an answer is empty", omitted.empty
    elif start is None:
        fault, places = f"the answer {_shown(text)} does not occur in its context", omitted.misplaced
    else:
        found = f"where the context has {_shown(context[at : at + len(text)])}" if at >= 0 else "before the context"
        fault, places = f"the answer {_shown(text)} is not at its offset {start}, {found}", omitted.misplaced
    if omitted.strict:
        raise CorpusError(f"{place}: {fault}; correct it, or set corpus.strict = false to leave such answers out.")
    places.append(place)
    return None


def _listed(place: str, said: Mapping[str, Any]) -> list[Answer]:
    texts, starts = _part(place, said, "text", list), _part(place, said, "answer_start", list)
    wrong = [value for value in texts if type(value) is not str] + [value for value in starts if type(value) is not int]
    if wrong or len(texts) != len(starts):
        raise CorpusError(f"{place}: 'answers' must hold as many whole numbers in 'answer_start' as texts in 'text'.")
    return list(zip(texts, starts, strict=True))


def _part(place: str, holder: Any, key: str, kind: type[T]) -> T:
    if not isinstance(holder, Mapping):
        raise CorpusError(f"{place}: expected a JSON object with '{key}', found {_type(holder)}.")
    if key not in holder:
        raise CorpusError(f"{place}: no '{key}'. {nearest(key, map(str, holder))}")
    value = holder[key]
    if type(value) is not kind:
        raise CorpusError(f"{place}: '{key}' must be {NAMES[kind]}, found {_type(value)}.")
    return value


def _text(place: str, fields: Mapping[str, Any], column: str) -> str:
    if column not in fields:
        raise CorpusError(f"{place}: no column '{column}'; set corpus.columns. {nearest(column, fields)}")
    value = fields[column]
    if isinstance(value, list | Mapping):
        raise CorpusError(f"{place}: '{column}' must be a text, found {_type(value)}.")
    return "" if value is None else str(value)


def _start(place: str, value: Any) -> int | None:
    """A whole number, also as a text or as ``12.0``; None for nothing."""
    if value is None or value == "" or value != value:  # not a number, as tables write nothing  # noqa: PLR0124
        return None
    try:
        if float(value).is_integer() and type(value) is not bool:
            return int(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise CorpusError(f"{place}: the first character of the answer must be a whole number, got {value!r}.")


NAMES: dict[type, str] = {list: "a list", str: "a text", int: "a whole number", dict: "an object", float: "a number"}


def _type(value: Any) -> str:
    return NAMES.get(type(value), "nothing" if value is None else type(value).__name__)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
