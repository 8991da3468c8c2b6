"""Record reader: reads files and rows of any kind of target as records."""

import json
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.skipped import SkippedRows
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.files import column_names
from permafrost.data.files.column_names import split_of
from permafrost.data.files.columns import INDICATORS
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.table import Table, as_text, get_field, open_table
from permafrost.data.readers.conll import ColumnFile, tagged_row
from permafrost.data.readers.resolve import file_format, line_pattern, pattern_columns
from permafrost.data.readers.sources import SplitFiles
from permafrost.data.readers.squad import Omissions, question_row, read_squad
from permafrost.data.spec import SpecError
from permafrost.data.writing.script import WORD_END, lazy_pattern

EXPECTED_COLUMNS: dict[str, tuple[str, Container[int]]] = {
    "columns": (
        "corpus.columns must name your columns in order, texts first, then the target; "
        "for example --set corpus.columns=first,second,score.",
        range(1, sys.maxsize),
    ),
    "words": (
        "corpus.columns of tags are those of words and of tags, or of sentences, words and tags, got {}.",
        (0, 2, 3),
    ),
    "questions": (
        "corpus.columns of answers are question, context, answer and, where there is one, the answer's first "
        "character, got {}.",
        (0, 3, 4),
    ),
}
"""What rows hold -> error message, and the numbers of columns that can be named."""

QUOTES = " \t\r\n\"'`“”‘’«»「」『』"

QUESTION_MARKS = ("?", "？", "؟", "\u037e", "፧")
"""Question marks: Latin, Chinese and Japanese, Arabic, Greek, Ethiopic."""

WH_WORD = lazy_pattern(rf"(what|who|whom|whose|which|when|where|why|how){WORD_END}", re.IGNORECASE)


class Rule(NamedTuple):
    """A labelling rule: names of its classes, and the function that labels a text."""

    labels: tuple[str, ...]
    label: Callable[[str], str]


def label_question(text: str) -> str:
    """Return ``question`` if a text begins with an English wh-word or ends with a question mark, else ``statement``.

    Quotation marks and white space around the text are ignored.
    """
    stripped = text.strip(QUOTES)
    return "question" if WH_WORD().match(stripped) or stripped.endswith(QUESTION_MARKS) else "statement"


RULES = {"question": Rule(("statement", "question"), label_question)}
"""Rules that derive the class of a sentence from its text, for corpora without a column of labels."""


class RecordReader:
    """Reader of the files or rows of one corpus; its ``omissions`` count answers that are left out while reading.

    Args:
        spec: names the kind of target and the columns: texts, then the target unless a rule makes it; for tags and
            answers, empty takes default names.
        skipped: gets the rows that cannot be read; None makes a collection of the spec's settings.

    Raises:
        SpecError: the number of columns does not fit the kind of target.
    """

    def __init__(self, spec: CorpusSpec, skipped: SkippedRows | None = None) -> None:
        self.spec, self.columns, self.encoding = spec, spec.columns, TARGETS[spec.target]
        self.omissions = Omissions(strict=spec.strict)
        self.skipped = skipped or SkippedRows(spec.strict, spec.most_skipped)
        self.most_rows: int | None = None
        self.cut_short = list[str]()
        """Names of files with more rows than ``most_rows``."""
        self._first: Table | None = None
        self._pattern = line_pattern(spec.columns)
        if self._pattern:
            self.columns = pattern_columns(self._pattern)
        if spec.rule and len(self.columns) != 1:
            raise SpecError(
                f'corpus.rule = "{spec.rule}" labels single sentences: name one column in corpus.columns, '
                f"got {list(self.columns)}."
            )
        message, counts = EXPECTED_COLUMNS[self.encoding.reads]
        if len(self.columns) not in counts:
            raise SpecError(message.format(list(self.columns)))

    def read_file(self, path: Path) -> Iterator[Record]:
        """Read the records of a file, each with the split that the file gives, if any.

        Raises:
            CorpusError: the file is missing or broken; the message names the line.
            SpecError: columns are given for a file that has no column names.
        """
        table = open_table(path, file_format(self.spec), self._first)
        self._first = self._first or table
        reads = self.encoding.reads
        if reads == "questions" and isinstance(table.value, dict) and not any(map(split_of, table.value)):
            if self.columns:
                raise SpecError("corpus.columns: JSON in the layout of SQuAD names no columns; leave it out.")
            yield from read_squad(path, table.value, self.omissions)
        elif reads == "words" and table.kind == "text":
            file = ColumnFile(path, table.encoding, self.columns, self.spec.split_column, self.skipped)
            yield from file.records()
        else:
            for block in table.blocks(self.skipped.skip):
                for row in block:
                    yield from self.read_row(row)

    def read_row(self, row: TypedRow, tag_names: tuple[str, ...] = ()) -> Iterator[Record]:
        """Read the records of a typed row, such as one of a hub data set; numbers of tags have ``tag_names``."""
        split_column = self.spec.split_column
        match self.encoding.reads:
            case "words":
                yield from tagged_row(row, self.columns, split_column, self.skipped, tag_names)
            case "questions":
                yield from question_row(row, self.columns, split_column, self.omissions)
            case "columns":
                origin, fields = row[0], as_text(row[1])
                if self._pattern and not (fields := self._match(origin, fields)):
                    return
                texts, target = [get_field((origin, fields), column) for column in self.columns], None
                self._refuse_nested(row, self.columns[: len(self.columns) - self._names_target])
                if self.spec.rule:
                    target = RULES[self.spec.rule].label(texts[0])
                elif self.spec.indicators:
                    target = self._indicated((origin, fields))
                    if target is None:
                        return
                elif self.encoding.has_target:
                    target = texts.pop()
                split = fields.get(split_column, "")
                yield from self.encoding.records_of(
                    Record(origin=origin, split=split, texts=tuple(texts), target=target)
                )

    @property
    def _names_target(self) -> bool:
        """Whether the last of the columns is the target."""
        return self.encoding.has_target and not self.spec.rule and not self.spec.indicators

    def _refuse_nested(self, row: TypedRow, columns: Sequence[str]) -> None:
        """Raise a :class:`CorpusError` if a column of texts holds lists or tables."""
        for column in columns:
            if isinstance(value := row[1].get(column), dict | list):
                noun = "a list" if isinstance(value, list) else "a table"
                raise CorpusError(
                    f"{row[0]}: column '{column}' holds {noun}, not a text; name a column of texts in corpus.columns "
                    "(--columns), or write its texts to a column of their own."
                )

    def _indicated(self, row: tuple[str, Mapping[str, str]]) -> str | None:
        """Return the list of the labels that columns say a row has, as a cell of labels; None if the row is skipped."""
        labels = list[str]()
        for name in self.spec.indicators:
            value = get_field(row, name).strip()
            if value.lower() not in INDICATORS:
                problem = f"column '{name}' must be 1 or 0, got {value!r}"
                self.skipped.skip(row[0], "label that is not 1 or 0", problem)
                return None
            labels += [name] * INDICATORS[value.lower()]
        return json.dumps(labels)

    def _match(self, origin: str, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the groups of a line; none, and the line is skipped, if it does not match ``corpus.columns``."""
        assert self._pattern
        (line,) = fields.values()
        if match := self._pattern.fullmatch(line):
            return {name: text or "" for name, text in match.groupdict().items()}
        self.skipped.skip(origin, "other lines", f"the line does not match corpus.columns: {line[:60]!r}")
        return {}

    def read_splits(self, files: SplitFiles) -> Iterator[Record]:
        """Read the records of several files.

        Args:
            files: split and file. The split of files with an empty name is read from their rows: all or none of
                them give one.
        """
        has_split = None
        for file_split, path in files:
            for number, record in enumerate(self.read_file(path)):
                if number == self.most_rows:
                    self.cut_short.append(path.name)
                    break
                split = file_split or split_of(record.split)
                if record.split and not split:
                    known = ", ".join(column_names.SPLITS)
                    raise CorpusError(
                        f"{record.origin}: unknown split {record.split!r}; write one of {known}, or set "
                        "corpus.split_column to another column."
                    )
                has_split = bool(split) if has_split is None else has_split
                if bool(split) != has_split:
                    reason = f"some rows have a split and some have none; fill '{self.spec.split_column}' in"
                    raise CorpusError(f"{record.origin}: {reason}.")
                split = "train" if not self.encoding.has_target and not split else split
                yield record.in_split(split)
