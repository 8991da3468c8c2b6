"""Readers of sentences with a tag for each word: CoNLL column files, and rows that hold lists of words and tags."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from permafrost.data.corpora.iob2 import check_tag, parts
from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.readers.tabular import (
    TypedRow,
    jsonl_objects,
    lines_of,
    parquet_objects,
    read_by_suffix,
    suffix_of,
)
from permafrost.data.spec import SpecError, nearest

WORDS = ("tokens", "words")

TAGS = ("ner_tags", "tags")

SPLIT_LINE = re.compile(r"#\s*split\s*=\s*(\S+)\s*")

Read = Callable[[Path], Iterator[Record]]


def read_tagged(path: Path, columns: tuple[str, ...], split_column: str) -> Iterator[Record]:
    """The sentences of a file; the text of each is its words with one space between them.

    Args:
        columns: names of the lists of words and of tags; without, the usual ones. Column files have none.

    Raises:
        CorpusError: the file is missing or broken, at the line named.
        SpecError: columns are named of a file that names none.
    """
    if columns and suffix_of(path) in COLUMN_FILES:
        raise SpecError(
            "corpus.columns: a file of tagged words names no columns; its first is the word, its last the tag."
        )
    rows: dict[str, Read] = {suffix: partial(_rows, read, columns, split_column) for suffix, read in ROW_FILES.items()}
    yield from read_by_suffix(path, {**COLUMN_FILES, **rows})


def read_columns(path: Path) -> Iterator[Record]:
    """A word a line, its tag in the last column; a blank line ends a sentence.

    Columns stand apart by tabs where the first row has one, else by blanks. ``-DOCSTART-`` lines are skipped, and so
    are comments: lines before a sentence that begin with ``#`` and end with no tag. ``# split = train`` says where the
    sentence after it belongs.
    """
    split, words = "", list[tuple[str, str, str]]()
    width, first, apart = 0, 0, ""
    for number, line in lines_of(path):
        line = line.rstrip("\r\n")
        if not line.strip(" \t") or line.startswith("-DOCSTART-"):
            if words:
                yield _sentence(words, split)
                split, words = "", []
            continue
        values = _columns(line, apart or ("\t" if "\t" in line else " "))
        if not words and line.startswith("#") and not parts(values[-1])[0]:
            stated = SPLIT_LINE.fullmatch(line)
            split = stated[1] if stated else split
            continue
        if not width:
            width, first, apart = len(values), number, "\t" if "\t" in line else " "
        place = f"{path}:{number}"
        _check_row(place, values, width, first)
        words.append((place, values[0], values[-1]))
    if words:
        yield _sentence(words, split)


def tagged_row(row: TypedRow, columns: tuple[str, ...], split_column: str, names: Sequence[str] = ()) -> Record:
    """A sentence from lists of words and of tags.

    Args:
        names: tag names, where the tags are numbers.
    """
    place, fields = row
    words, tags = (_list(place, fields, column) for column in columns or _usual(place, fields))
    if not words:
        raise CorpusError(f"{place}: the sentence has no words.")
    if len(words) != len(tags):
        raise CorpusError(f"{place}: expected a tag for each word, found {len(words)} words and {len(tags)} tags.")
    named = [names[int(tag)] if names and tag.isdecimal() and int(tag) < len(names) else tag for tag in tags]
    places = [f"{place}, word {number}" for number in range(1, len(words) + 1)]
    return _sentence(list(zip(places, words, named, strict=True)), str(fields.get(split_column) or ""), place)


COLUMN_FILES: dict[str, Read] = dict.fromkeys((".conll", ".txt", ".bio", ".tsv"), read_columns)

ROW_FILES = {".jsonl": jsonl_objects, ".parquet": parquet_objects}


def _rows(
    read: Callable[[Path], Iterator[TypedRow]], columns: tuple[str, ...], split_column: str, path: Path
) -> Iterator[Record]:
    for row in read(path):
        yield tagged_row(row, columns, split_column)


def _columns(line: str, apart: str) -> list[str]:
    return line.split("\t") if apart == "\t" else re.split(r"[ \t]+", line.strip(" \t"))


def _check_row(place: str, values: list[str], width: int, first: int) -> None:
    if width < 2:
        raise CorpusError(
            f"{place}: expected a word and its tag, with a blank or a tab between them, found one column."
        )
    if len(values) != width:
        raise CorpusError(f"{place}: expected {width} columns as in line {first}, found {len(values)}.")
    check_tag(place, values[-1])


def _sentence(words: list[tuple[str, str, str]], split: str, place: str = "") -> Record:
    """The record of (place, word, tag) of its words."""
    marks, start = [], 0
    for where, word, tag in words:
        if not word.strip():
            raise CorpusError(f"{where}: the word is empty.")
        marks.append(Span(start, start + len(word), tag, where))
        start += len(word) + 1
    return Record(place or words[0][0], split, (" ".join(word for _, word, _ in words),), spans=tuple(marks))


def _usual(place: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    """The columns of words and tags by the usual names for them."""
    words, tags = (next((name for name in known if name in fields), "") for known in (WORDS, TAGS))
    if not words or not tags:
        raise CorpusError(
            f"{place}: expected a list of words ({' or '.join(WORDS)}) and one of tags ({' or '.join(TAGS)}), "
            f"found {', '.join(map(repr, fields)) or 'nothing'}; set corpus.columns."
        )
    return words, tags


def _list(place: str, fields: Mapping[str, Any], column: str) -> list[str]:
    if column not in fields:
        raise CorpusError(f"{place}: no column '{column}'; set corpus.columns. {nearest(column, fields)}")
    values = fields[column]
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise CorpusError(f"{place}: '{column}' must be a list of texts.")
    return [str(value) for value in values]
