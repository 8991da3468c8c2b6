"""Columns of a sample of rows: what their values look like, such as texts, numbers, classes, or words for splits."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from permafrost.data.files.column_names import OTHERS, plain_name, split_of
from permafrost.data.files.dialect import is_number
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.writing.script import UNSPACED

FEW_WORDS = 2.5
"""Mean number of words from which on a column holds texts."""

MOST_CLASSES = 0.2
"""Distinct values of a column of classes, as a share of the rows; a small file may have 20 all the same."""

MOST_DIGITS = 0.25
"""Share of digits from which on values are dates or lists of numbers, not texts."""

SEPARATORS = (",", "|", ";")

INDICATORS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
"""Value in lower case -> whether a row has the label that its column is named after."""


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
        return any(isinstance(value, list) for value in self.values) or (
            bool(self.texts) and all(text.startswith("[") and text.endswith("]") for text in self.texts)
        )

    @cached_property
    def is_nested(self) -> bool:
        """Whether values are objects, or lists of objects or of lists."""
        items = (item for value in self.values for item in (value if isinstance(value, list) else [value]))
        return any(isinstance(item, dict | list) for item in items)

    @cached_property
    def is_indicator(self) -> bool:
        """Whether every value says if a row has something, by 1 or 0, true or false."""
        return bool(self.texts) and all(text.lower() in INDICATORS for text in self.counts)

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
        if (
            not self.texts
            or self.is_number
            or self.is_list
            or self.is_nested
            or self.is_split
            or len(self.texts) < self.rows / 2
        ):
            return False
        if self.texts[0].startswith(("http://", "https://")):
            return False
        words = sum(len(text.split()) + len(_UNSPACED.findall(text)) / 2 for text in self.texts) / len(self.texts)
        text = "".join(self.texts[:1000])
        return words >= FEW_WORDS and len(_DIGIT.findall(text)) < MOST_DIGITS * len(text)

    @cached_property
    def can_be_target(self) -> bool:
        """Whether values could be classes, labels or scores: they differ, and are no keys."""
        is_real = self.is_number and not self.is_key and len(self.counts) > 1
        return not self.is_nested and (self.is_list or bool(self.separator) or self.is_class or is_real)

    @cached_property
    def is_key(self) -> bool:
        """Whether whole numbers or words differ in every row, as keys do; or the name is that of keys."""
        is_word = self.is_whole or not self.is_number
        return plain_name(self.name) in OTHERS or (len(self.counts) == len(self.texts) > 1 and is_word)

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
            punctuation = ", " if separator == "," else "\n"
            several = [text for text in self.counts if separator in text and punctuation not in text]
            parts = Counter(part.strip() for text in self.counts for part in text.split(separator))
            if several and len(parts) <= len(self.counts) and all(len(part.split()) < 4 for part in parts):
                return separator
        return ""


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
