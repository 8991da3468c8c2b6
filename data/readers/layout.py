"""The layout of a corpus, found from its rows: which columns hold texts, target and split, and the kind of target.

Usual names of columns decide first, then the values: texts have several words, a target repeats or is a number.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.files import column_names
from permafrost.data.files.column_names import plain_name, split_of
from permafrost.data.files.dialect import is_number
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.script import UNSPACED
from permafrost.data.spec import nearest

SAMPLE_ROWS = 5000
"""Rows that columns and kind of target are found from."""

FEW_WORDS = 2.5
"""Mean number of words from which on a column holds texts."""

MOST_CLASSES = 0.2
"""Distinct values of a column of classes, as a share of the rows; a small file may have 20 all the same."""

MOST_WHOLE = 20
"""Distinct whole numbers up to which a column of them holds classes, not scores."""

MOST_DIGITS = 0.25
"""Share of digits from which on values are dates or lists of numbers, not texts."""

MOST_NAMED = 12
"""Columns that a message names."""

SEPARATORS = (",", "|", ";")


@dataclass(frozen=True)
class Layout:
    """Columns of a corpus and the kind of its target."""

    columns: tuple[str, ...]
    """Texts, then the target."""

    target: Kind
    split_column: str = ""
    """Empty if no column names splits."""

    label_separator: str = ""
    """For several labels a row: what separates them; empty if they are lists."""


@dataclass(frozen=True)
class Column:
    """The values of one column in a sample of rows."""

    name: str
    values: Sequence[Any]
    """Those that are not empty."""

    rows: int = 0
    """Number of rows of the sample."""

    @cached_property
    def texts(self) -> list[str]:
        """The values that are text, a list or number as it is written."""
        return [str(value).strip() for value in self.values]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value occurs."""
        return Counter(self.texts)

    @cached_property
    def is_list(self) -> bool:
        """Whether values are lists."""
        return any(isinstance(value, list) for value in self.values) or all(
            text.startswith("[") and text.endswith("]") for text in self.texts
        )

    @cached_property
    def is_number(self) -> bool:
        """Whether values are numbers, but for one in a hundred."""
        return bool(self.texts) and sum(map(is_number, self.texts)) >= 0.99 * len(self.texts)

    @cached_property
    def is_whole(self) -> bool:
        """Whether numbers are whole."""
        return self.is_number and not any("." in text and not text.endswith(".0") for text in self.texts)

    @cached_property
    def is_split(self) -> bool:
        """Whether every value is a word for a split."""
        return bool(self.texts) and all(map(split_of, self.counts))

    @cached_property
    def is_text(self) -> bool:
        """Whether values are texts of several words, in half of the rows at least, and no dates or lists of numbers."""
        if not self.texts or self.is_number or self.is_list or self.is_split or len(self.texts) < self.rows / 2:
            return False
        if self.texts[0].startswith(("http://", "https://")):
            return False
        words = sum(len(text.split()) + len(_UNSPACED.findall(text)) / 2 for text in self.texts) / len(self.texts)
        text = "".join(self.texts[:1000])
        return words >= FEW_WORDS and len(_DIGIT.findall(text)) < MOST_DIGITS * len(text)

    @cached_property
    def has_decimal_commas(self) -> bool:
        """Whether values look like numbers with a comma, as in 3,5: most have one, and none has two."""
        commas = sum("," in text for text in self.texts)
        return commas > len(self.texts) / 2 and all(map(_DECIMAL.fullmatch, self.counts))

    @cached_property
    def is_class(self) -> bool:
        """Whether values repeat as those of classes do."""
        return 1 < len(self.counts) <= max(20, MOST_CLASSES * len(self.texts)) and len(self.counts) < len(self.texts)

    @cached_property
    def separator(self) -> str:
        """Separator of several labels in a value; empty if there is none."""
        for separator in SEPARATORS:
            several = [text for text in self.counts if separator in text and f"{separator} " not in text]
            parts = Counter(part for text in self.counts for part in text.split(separator))
            if several and len(parts) < len(self.counts) and all(len(part.split()) < 4 for part in parts):
                return separator
        return ""

    def kind(self, hint: Kind, paired: bool) -> Kind:
        """Return the kind of target that the values are; ``hint`` is taken if they can be that."""
        if self.is_list or (not self.is_number and self.separator and hint in ("", "class", "labels")):
            return "labels"
        if not self.is_number:
            return hint if hint in ("labels", "class") else "class"
        if hint in ("score", "rank") or (hint in ("class", "labels") and self.is_whole):
            return hint
        name = plain_name(self.name)
        scale = name in column_names.SCORES or (paired and name in column_names.RELEVANCES[1:] and not self.is_whole)
        return "class" if self.is_whole and not scale and len(self.counts) <= MOST_WHOLE else "score"


_UNSPACED = re.compile(f"[{UNSPACED}]")

_DIGIT = re.compile("[0-9]")

_DECIMAL = re.compile(r"[-+]?\d+(,\d+)?", re.ASCII)


def columns_of(rows: Sequence[TypedRow]) -> dict[str, Column]:
    """Return the columns of a sample of rows, in the order in which they first occur."""
    values: dict[str, list[Any]] = {}
    for _, fields in rows:
        for name, value in fields.items():
            values.setdefault(name, [])
            if value is not None and value == value and str(value).strip():  # noqa: PLR0124  NaN is an empty cell
                values[name].append(value)
    return {name: Column(name, items, len(rows)) for name, items in values.items()}


def find_layout(rows: Sequence[TypedRow], columns: Sequence[str], hint: Kind, place: str) -> Layout:
    """Return the layout of a corpus from a sample of its rows.

    Args:
        rows: the sample.
        columns: names or positions from 1 that the user gives, texts first, then the target; empty finds them.
        hint: the kind of target that the recipe is for, taken if the values can be of that kind; empty if unknown.
        place: the file, for messages.

    Raises:
        CorpusError: a column is missing, or it is not clear which columns hold texts and target.
    """
    known = columns_of(rows)
    split = next((name for name in known if known[name].is_split and _tells_splits(known[name], len(rows))), "")
    if columns:
        names = tuple(_named(known, column, place) for column in columns)
        if len(names) == 1:
            return Layout(names, "none", split)
        texts, target = names[:-1], names[-1]
        if len(texts) == 1 and known[target].is_text and not known[target].is_class:
            return Layout(names, "none", split)
    else:
        texts = _find_texts(known, place)
        target = _find_target(known, texts, hint, place)
        if not target:
            return Layout(texts, "none", split)
    if known[target].has_decimal_commas and hint not in ("class", "labels"):
        raise CorpusError(
            f"{place}: column '{target}' holds values such as {known[target].texts[0]!r}: write numbers with a point; "
            'or set corpus.target (--target) to "labels" or "class" if they are no numbers.'
        )
    kind = known[target].kind(hint, paired=len(texts) == 2)
    separator = known[target].separator if kind == "labels" and not known[target].is_list else ""
    return Layout((*texts, target), kind, split, separator)


def _tells_splits(column: Column, rows: int) -> bool:
    """Return whether words for splits are more than a constant, as far as a sample tells that may end before others."""
    return len(column.counts) > 1 or rows >= SAMPLE_ROWS or plain_name(column.name) in ("set", "split", "partition")


def _named(known: dict[str, Column], column: str, place: str) -> str:
    """Return the name of a column that is given by its name, in any case, or by its position from 1."""
    if column in known:
        return column
    if column.isdecimal() and 1 <= int(column) <= len(known):
        return list(known)[int(column) - 1]
    alike = [name for name in known if plain_name(name) == plain_name(column)]
    if len(alike) == 1:
        return alike[0]
    raise CorpusError(
        f"{place}: no column '{column}'; set corpus.columns (--columns) to some of {_list(known)}, or to positions "
        f"from 1. {nearest(column, known)}"
    )


def _find_texts(known: dict[str, Column], place: str) -> tuple[str, ...]:
    """Return the one or two columns of texts."""
    by_plain = {plain_name(name): name for name in reversed(known)}
    for first, second in column_names.PAIRS:
        if first in by_plain and second in by_plain:
            return by_plain[first], by_plain[second]
    texts = [name for name, column in known.items() if column.is_text]
    usual = column_names.TEXTS if texts else (*column_names.TEXTS, *column_names.PARTS)
    named = [by_plain[name] for name in usual if name in by_plain and not known[by_plain[name]].is_number]
    if len(texts) != 1 and named and (not texts or set(texts) & set(named)):
        return (next((name for name in named if name in texts), named[0]),)
    if not texts and len(known) == 1:
        return tuple(known)
    if not 1 <= len(texts) <= 2:
        found = f"{len(texts)} columns hold texts ({_list(texts)})" if texts else "no column holds texts"
        raise CorpusError(
            f"{place}: {found}; set corpus.columns (--columns) to one or two columns of texts, then the target, of: "
            f"{_list(known)}."
        )
    return tuple(texts)


def _find_target(known: dict[str, Column], taken: Sequence[str], hint: Kind, place: str) -> str:
    """Return the column of the target; empty if there is none."""
    others = {
        name: column for name, column in known.items() if name not in taken and column.values and not column.is_split
    }
    scores = [name for name, column in others.items() if column.is_number and not _is_key(column)]
    scores = scores or [name for name, column in others.items() if column.has_decimal_commas]
    numeric = hint in ("score", "rank")
    usable = [name for name, column in others.items() if not numeric or column.is_number or column.has_decimal_commas]
    named = [
        found for names in _usual_targets(hint) if (found := [name for name in usable if plain_name(name) in names])
    ]
    candidates = named[0] if named else [name for name, column in others.items() if _can_be_target(column)]
    if not named and hint in ("score", ""):
        real = [name for name in scores if not known[name].is_whole]
        is_clear = bool(hint) or (len(real) == 1 and len(taken) > 1)
        candidates = real if real and is_clear else (scores if hint else candidates)
    if not candidates and len(known) == 2 and hint in ("", "class", "labels"):
        candidates = [name for name, column in others.items() if len(column.counts) == 1]  # rows sorted by class
    if len(candidates) > 1:
        raise CorpusError(
            f"{place}: the target could be any of {_list(candidates)}; name the columns by corpus.columns (--columns), "
            f"e.g. {','.join([*taken, candidates[0]])}."
        )
    return candidates[0] if candidates else ""


def _usual_targets(hint: Kind) -> list[tuple[str, ...]]:
    """Return the usual names of columns of targets, those first which decide if columns of several are there."""
    classes, scores = column_names.CLASSES, column_names.SCORES
    orders: dict[str, list[tuple[str, ...]]] = {
        "": [(*classes, *scores)], "score": [scores, classes], "rank": [column_names.RELEVANCES, scores, classes],
    }  # fmt: skip
    return [*orders.get(hint, [classes, scores]), column_names.TOPICS]


def _can_be_target(column: Column) -> bool:
    return column.is_list or bool(column.separator) or column.is_class or (column.is_number and not _is_key(column))


def _is_key(column: Column) -> bool:
    """Return whether whole numbers or words differ in every row, as keys do."""
    named = plain_name(column.name) in column_names.OTHERS
    return named or (len(column.counts) == len(column.texts) > 1 and (column.is_whole or not column.is_number))


def _list(names: Sequence[str] | dict[str, Column]) -> str:
    names, others = list(names)[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(names) + (f" and {others} others" if others > 0 else "")
