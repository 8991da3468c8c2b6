"""Record reader: reads files and rows of any kind of target as records."""

import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from permafrost.data.corpora.records import SPLITS, CorpusError, Kind, Record
from permafrost.data.corpora.targets import TARGETS, TargetEncoding
from permafrost.data.readers.conll import read_columns, tagged_row
from permafrost.data.readers.rule_labels import RULES
from permafrost.data.readers.squad import Omissions, question_row, read_squad
from permafrost.data.readers.tabular import READERS, TypedRow, as_text, get_field, read_by_suffix, suffix_of
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


@dataclass(frozen=True, kw_only=True)
class RecordReader:
    """Reader of the files or rows of one corpus."""

    kind: Kind
    columns: tuple[str, ...] = ()
    """Column names: texts, then the target unless a rule makes it; for tags and answers, empty takes default names."""

    split_column: str = "split"
    rule: str = ""
    """Name of the rule that labels the texts; empty takes the labels of the file."""

    omissions: Omissions = field(default_factory=Omissions)
    """Counts what is left out; changed while reading."""

    def __post_init__(self) -> None:
        if self.rule and len(self.columns) != 1:
            raise SpecError(
                f'corpus.rule = "{self.rule}" labels single sentences: name one column in corpus.columns, '
                f"got {list(self.columns)}."
            )
        message, counts = EXPECTED_COLUMNS[self.encoding.reads]
        if len(self.columns) not in counts:
            raise SpecError(message.format(list(self.columns)))

    @property
    def encoding(self) -> type[TargetEncoding]:
        """Encoding of the kind of target."""
        return TARGETS[self.kind]

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
        """Read the records of a typed row, such as one of a hub data set.

        Args:
            tag_names: names of the tags, if the row holds tag numbers.
        """
        match self.encoding.reads:
            case "words":
                yield tagged_row(row, self.columns, self.split_column, tag_names)
            case "questions":
                yield from question_row(row, self.columns, self.split_column, self.omissions)
            case "columns":
                origin, fields = row[0], as_text(row[1])
                texts, target = [get_field((origin, fields), column) for column in self.columns], None
                if self.rule:
                    target = RULES[self.rule].label(texts[0])
                elif self.encoding.has_target:
                    target = texts.pop()
                split = fields.get(self.split_column, "")
                yield Record(origin=origin, split=split, texts=tuple(texts), target=target)

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
                    raise CorpusError(
                        f"{record.origin}: some rows have a split and some have none; fill '{self.split_column}' in."
                    )
                split = "train" if not self.encoding.has_target and not split else split
                yield record if record.split == split else replace(record, split=split)
