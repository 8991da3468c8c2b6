"""Readers of extractive question answering: SQuAD's JSON, and tables with question, context and answer.

An answer is a character span of its context. An answer that is not at the offset in the file is left out and counted,
or refused. A question without an answer, as in SQuAD 2.0, is a record without spans.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.table import get_field
from permafrost.data.spec import nearest
from permafrost.data.text import Segments

T = TypeVar("T")

Answer = tuple[str, int | None]
"""Text and first character in the context; None takes the first occurrence."""


@dataclass(kw_only=True)
class Omissions:
    """Counts of the answers and questions that a reader left out."""

    strict: bool = False
    """Raise an error for an answer that would be left out."""

    answers: int = 0
    """Number of answers read."""

    misplaced: list[str] = field(default_factory=list)
    """Origins of the answers that are not at their offset."""

    empty: list[str] = field(default_factory=list)
    """Origins of the answers without text."""

    questions: int = 0
    """Number of questions read."""

    without_answer: list[str] = field(default_factory=list)
    """Origins of the questions that the corpus gives no answer to; they are not left out."""

    unanswered: int = 0
    """Number of questions whose answers are all left out."""

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason that something was left out, and for questions without an answer."""
        sentences = []
        for origins, reason in ((self.misplaced, "not at their offset"), (self.empty, "empty")):
            if origins:
                count = f"{len(origins):,} of {self.answers:,} answers are {reason} and are left out"
                sentences.append(f"{count}; the first: {origins[0]}")
        if self.unanswered:
            sentences.append(f"questions whose answers are all left out are left out too: {self.unanswered:,}")
        if self.without_answer:
            count = f"{len(self.without_answer):,} of {self.questions:,} questions have no answer"
            sentences.append(f"{count}, which the probe learns to say; the first: {self.without_answer[0]}")
        return tuple(sentences)


def read_squad(path: Path, value: Any, omissions: Omissions) -> Iterator[Record]:
    """Yield the questions of JSON in SQuAD's layout, 1.1 or 2.0; an article may have a ``split`` of its own.

    Each question is a text of two segments with a span for every answer, none if it is impossible to answer;
    ``omissions`` counts what is left out.
    """
    number = 0
    for article_number, article in enumerate(_get_typed(str(path), value, "data", list), 1):
        article_origin = f"{path}: article {article_number}"
        paragraphs = _get_typed(article_origin, article, "paragraphs", list)
        split = _get_typed(article_origin, article, "split", str) if "split" in article else ""
        for paragraph_number, paragraph in enumerate(paragraphs, 1):
            origin = f"{article_origin}, paragraph {paragraph_number}"
            context = _get_typed(origin, paragraph, "context", str)
            for item in _get_typed(origin, paragraph, "qas", list):
                number += 1
                item_id = item.get("id") if isinstance(item, dict) else None
                name = _quote(item_id) if isinstance(item_id, str) else str(number)
                yield from _parse_squad_question(f"{path}: question {name}", item, context, split, omissions)


def question_row(row: TypedRow, columns: tuple[str, ...], split_column: str, omissions: Omissions) -> Iterator[Record]:
    """Yield the question of a row; nothing if its answers are left out.

    The answer is a text, with or without its first character, or empty if the question has none; or, as on the hub, a
    column ``answers`` with the lists ``text`` and ``answer_start``.

    Args:
        columns: names of the columns of question, context, answer and, if there is one, first character of the
            answer; empty takes the default names.
        omissions: counts what is left out; changed in place.
    """
    origin, fields = row
    answer = "answers" if "answers" in fields and "answer" not in fields else "answer"
    names = columns or ("question", "context", answer, "start")
    question, context = (_get_text(row, name) for name in names[:2])
    value = fields.get(names[2])
    if isinstance(value, Mapping):
        answers = _parse_answer_lists(origin, value)
    else:
        text = _get_text(row, names[2])
        if columns[3:]:
            get_field(row, columns[3])
        start = _parse_start(origin, fields.get(names[3])) if names[3:] else None
        answers = [(text, start)] if text.strip() else []
    yield from _question_record(origin, str(fields.get(split_column) or ""), question, context, answers, omissions)


def _parse_squad_question(origin: str, item: Any, context: str, split: str, omissions: Omissions) -> Iterator[Record]:
    question = _get_typed(origin, item, "question", str)
    answers: list[Answer] = [
        (_get_typed(origin, answer, "text", str), _get_typed(origin, answer, "answer_start", int))
        for answer in ([] if item.get("is_impossible") is True else _get_typed(origin, item, "answers", list))
    ]
    yield from _question_record(origin, split, question, context, answers, omissions)


def _question_record(
    origin: str, split: str, question: str, context: str, answers: list[Answer], omissions: Omissions
) -> Iterator[Record]:
    for noun, segment in (("question", question), ("context", context)):
        if not segment.strip():
            raise CorpusError(f"{origin}: the {noun} is empty; a question needs a context that answers it.")
    omissions.questions += 1
    if not answers:
        omissions.without_answer.append(origin)
    spans = [_answer_span(origin, context, text, start, omissions) for text, start in answers]
    distinct = tuple(dict.fromkeys(span for span in spans if span))
    if distinct or not answers:
        yield Record(origin=origin, split=split, texts=(Segments(question, context),), spans=distinct)
    else:
        omissions.unanswered += 1


def _answer_span(origin: str, context: str, text: str, start: int | None, omissions: Omissions) -> Span | None:
    """Return the span of an answer, without white space around it; None if the answer is left out."""
    omissions.answers += 1
    offset = context.find(text) if start is None else start
    if text.strip() and offset >= 0 and context.startswith(text, offset):
        first = offset + len(text) - len(text.lstrip())
        return Span(first, first + len(text.strip()))
    if not text.strip():
        problem, origins = "an answer is empty", omissions.empty
    elif start is None:
        problem, origins = f"the answer {_quote(text)} does not occur in its context", omissions.misplaced
    else:
        actual = context[offset : offset + len(text)]
        reason = f"where the context has {_quote(actual)}" if offset >= 0 else "before the context"
        problem, origins = f"the answer {_quote(text)} is not at its offset {start}, {reason}", omissions.misplaced
    if omissions.strict:
        raise CorpusError(f"{origin}: {problem}; correct it, or set corpus.strict = false to leave such answers out.")
    origins.append(origin)
    return None


def _parse_answer_lists(origin: str, lists: Mapping[str, Any]) -> list[Answer]:
    texts, starts = _get_typed(origin, lists, "text", list), _get_typed(origin, lists, "answer_start", list)
    wrong = [value for value in texts if type(value) is not str] + [value for value in starts if type(value) is not int]
    if wrong or len(texts) != len(starts):
        raise CorpusError(f"{origin}: 'answers' must hold as many whole numbers in 'answer_start' as texts in 'text'.")
    return list(zip(texts, starts, strict=True))


def _get_typed(origin: str, json_object: Any, key: str, value_type: type[T]) -> T:
    if not isinstance(json_object, Mapping):
        raise CorpusError(f"{origin}: expected a JSON object with '{key}', found {_type_name(json_object)}.")
    if key not in json_object:
        raise CorpusError(f"{origin}: no '{key}'. {nearest(key, map(str, json_object))}")
    value = json_object[key]
    if type(value) is not value_type:
        raise CorpusError(f"{origin}: '{key}' must be {TYPE_NAMES[value_type]}, found {_type_name(value)}.")
    return value


def _get_text(row: TypedRow, column: str) -> str:
    value = get_field(row, column)
    if isinstance(value, list | Mapping):
        raise CorpusError(f"{row[0]}: '{column}' must be a text, found {_type_name(value)}.")
    return "" if value is None else str(value)


def _parse_start(origin: str, value: Any) -> int | None:
    """Parse a whole number, also one written as text or as ``12.0``; None if the field is empty."""
    if value is None or value == "" or value != value:  # NaN: an empty cell of a table  # noqa: PLR0124
        return None
    with suppress(TypeError, ValueError, OverflowError):
        if float(value).is_integer() and type(value) is not bool:
            return int(float(value))
    raise CorpusError(f"{origin}: the first character of the answer must be a whole number, got {value!r}.")


TYPE_NAMES: dict[type, str] = {
    list: "a list",
    str: "a text",
    int: "a whole number",
    dict: "an object",
    float: "a number",
}


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), "nothing" if value is None else type(value).__name__)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
