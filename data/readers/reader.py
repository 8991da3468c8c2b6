"""Record reader: reads files and rows of any kind of target as records."""

import re
import sys
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from permafrost.data.corpora.records import SPLITS, CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.readers.conll import read_columns, tagged_row
from permafrost.data.readers.squad import Omissions, question_row, read_squad
from permafrost.data.readers.tabular import READERS, TypedRow, as_text, get_field, read_by_suffix, suffix_of
from permafrost.data.script import WORD_END, lazy_pattern
from permafrost.data.spec import SpecError, nearest

EXPECTED_COLUMNS: dict[str, tuple[str, Container[int]]] = {
    "columns": (
        "corpus.columns must name your columns in order, texts first, then the target; "
        "for example --set corpus.columns=first,second,score.",
        range(1, sys.maxsize),
    ),
    "words": ("corpus.columns of tags are those of words and of tags, got {}.", (0, 2)),
    "questions": (
        "corpus.columns of answers are question, context, answer and, where there is one, the answer's first "
        "character, got {}.",
        (0, 3, 4),
    ),
}
"""What rows hold -> error message, and the numbers of columns that can be named."""

NO_COLUMNS = {
    "columns": ((), ""),
    "words": (
        (".conll", ".txt", ".bio", ".tsv"),
        "a file of tagged words names no columns; its first is the word, its last the tag.",
    ),
    "questions": ((".json",), "JSON in the layout of SQuAD names no columns; leave it out."),
}
"""What rows hold -> suffixes of files without column names, and why a recipe names none."""

TABLES = {
    "columns": tuple(READERS),
    "words": (".jsonl", ".parquet"),
    "questions": (".jsonl", ".parquet", ".csv", ".tsv"),
}
"""What rows hold -> suffixes of files with a row for each record."""


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
    """Reader of the files or rows of one corpus; its ``omissions`` count what is left out while reading.

    Args:
        spec: names the kind of target and the columns: texts, then the target unless a rule makes it; for tags and
            answers, empty takes default names.

    Raises:
        SpecError: the number of columns does not fit the kind of target.
    """

    def __init__(self, spec: CorpusSpec) -> None:
        self.spec, self.columns, self.encoding = spec, spec.columns, TARGETS[spec.target]
        self.omissions = Omissions(strict=spec.strict)
        if spec.rule and len(self.columns) != 1:
            raise SpecError(
                f'corpus.rule = "{spec.rule}" labels single sentences: name one column in corpus.columns, '
                f"got {list(self.columns)}."
            )
        message, counts = EXPECTED_COLUMNS[self.encoding.reads]
        if len(self.columns) not in counts:
            raise SpecError(message.format(list(self.columns)))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that can be read."""
        return (*NO_COLUMNS[self.encoding.reads][0], *TABLES[self.encoding.reads])

    def read_file(self, path: Path) -> Iterator[Record]:
        """Read the records of a file, each with the split that the file gives, if any.

        Raises:
            CorpusError: the file is missing or broken; the message names the line.
            SpecError: columns are given for a file that has no column names.
        """
        without_columns, reason = NO_COLUMNS[self.encoding.reads]
        if self.columns and suffix_of(path) in without_columns:
            raise SpecError(f"corpus.columns: {reason}")
        words = self.encoding.reads == "words"
        read_whole = read_columns if words else partial(read_squad, omissions=self.omissions)
        yield from read_by_suffix(
            path, {suffix: read_whole if suffix in without_columns else self._read_rows for suffix in self.suffixes}
        )

    def _read_rows(self, path: Path) -> Iterator[Record]:
        for row in READERS[suffix_of(path)](path):
            yield from self.read_row(row)

    def read_row(self, row: TypedRow, tag_names: tuple[str, ...] = ()) -> Iterator[Record]:
        """Read the records of a typed row, such as one of a hub data set; numbers of tags have ``tag_names``."""
        split_column = self.spec.split_column
        match self.encoding.reads:
            case "words":
                yield tagged_row(row, self.columns, split_column, tag_names)
            case "questions":
                yield from question_row(row, self.columns, split_column, self.omissions)
            case "columns":
                origin, fields = row[0], as_text(row[1])
                texts, target = [get_field((origin, fields), column) for column in self.columns], None
                if self.spec.rule:
                    target = RULES[self.spec.rule].label(texts[0])
                elif self.encoding.has_target:
                    target = texts.pop()
                split = fields.get(split_column, "")
                yield from self.encoding.records_of(
                    Record(origin=origin, split=split, texts=tuple(texts), target=target)
                )

    def read_splits(self, files: dict[str, Path]) -> Iterator[Record]:
        """Read the records of several files.

        Args:
            files: split -> file. The split of a single file with an empty name is read from its rows: all or none of
                them give one.
        """
        for file_split, path in files.items():
            has_split = None
            for record in self.read_file(path):
                split = file_split or record.split
                if split not in (*SPLITS, ""):
                    raise CorpusError(f"{record.origin}: unknown split {split!r}. {nearest(split, SPLITS)}")
                has_split = bool(split) if has_split is None else has_split
                if bool(split) != has_split:
                    reason = f"some rows have a split and some have none; fill '{self.spec.split_column}' in"
                    raise CorpusError(f"{record.origin}: {reason}.")
                split = "train" if not self.encoding.has_target and not split else split
                yield record.in_split(split)
