"""Readers of tagged sentences: CoNLL column files, and tables with lists of words and of tags."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from permafrost.data.corpora.iob2 import check_tag, split_tag
from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.opening import lines_of
from permafrost.data.files.table import get_field

WORDS = ("tokens", "words")

TAGS = ("ner_tags", "tags")

SPLIT_LINE = re.compile(r"#\s*split\s*=\s*(\S+)\s*")

TaggedWord = tuple[str, str, str]
"""Origin, word, tag."""


def read_columns(path: Path, encoding: str = "auto") -> Iterator[Record]:
    """Read a column file: one word per line with its tag in the last column; a blank line ends a sentence.

    The text of a sentence is its words joined by one space.
    Columns are separated by tabs if the first row has one, else by blanks. ``-DOCSTART-`` lines are skipped, as are
    comments: lines before a sentence that start with ``#`` and do not end with a tag. The comment ``# split = train``
    sets the split of the sentences after it.
    """
    split, words = "", list[TaggedWord]()
    width, first, tabs = 0, 0, False
    for number, line in lines_of(path, encoding):
        line = line.rstrip("\r\n")
        if not line.strip(" \t") or line.startswith("-DOCSTART-"):
            if words:
                yield _sentence_record(words, split)
                split, words = "", []
            continue
        tabs = tabs if width else "\t" in line
        values = line.split("\t") if tabs else re.split(r"[ \t]+", line.strip(" \t"))
        if not words and line.startswith("#") and not split_tag(values[-1])[0]:
            match = SPLIT_LINE.fullmatch(line)
            split = match[1] if match else split
            continue
        if not width:
            width, first = len(values), number
        origin = f"{path}:{number}"
        if width < 2:
            raise CorpusError(
                f"{origin}: expected a word and its tag, with a blank or a tab between them, found one column."
            )
        if len(values) != width:
            raise CorpusError(f"{origin}: expected {width} columns as in line {first}, found {len(values)}.")
        check_tag(origin, values[-1])
        words.append((origin, values[0], values[-1]))
    if words:
        yield _sentence_record(words, split)


def tagged_row(row: TypedRow, columns: tuple[str, ...], split_column: str, names: Sequence[str] = ()) -> Record:
    """Return the record of a sentence that is given as lists of words and of tags.

    Args:
        columns: names of the two lists; empty takes the default names.
        names: names of the tags, if the row holds tag numbers.
    """
    origin, fields = row
    names_of_lists = columns or [next((name for name in known if name in fields), "") for known in (WORDS, TAGS)]
    if not columns and "" in names_of_lists:
        raise CorpusError(
            f"{origin}: expected a list of words ({' or '.join(WORDS)}) and one of tags ({' or '.join(TAGS)}), "
            f"found {', '.join(map(repr, fields)) or 'nothing'}; set corpus.columns."
        )
    words, tags = (_get_list(row, name) for name in names_of_lists)
    if not words:
        raise CorpusError(f"{origin}: the sentence has no words.")
    if len(words) != len(tags):
        raise CorpusError(f"{origin}: expected a tag for each word, found {len(words)} words and {len(tags)} tags.")
    tag_names = [names[int(tag)] if names and tag.isdecimal() and int(tag) < len(names) else tag for tag in tags]
    origins = [f"{origin}, word {number}" for number in range(1, len(words) + 1)]
    return _sentence_record(
        list(zip(origins, words, tag_names, strict=True)), str(fields.get(split_column) or ""), origin
    )


def _sentence_record(words: list[TaggedWord], split: str, origin: str = "") -> Record:
    """Return the record of a sentence; its origin defaults to that of its first word."""
    spans, start = [], 0
    for word_origin, word, tag in words:
        if not word.strip():
            raise CorpusError(f"{word_origin}: the word is empty.")
        spans.append(Span(start, start + len(word), tag, word_origin))
        start += len(word) + 1
    text = " ".join(word for _, word, _ in words)
    return Record(origin=origin or words[0][0], split=split, texts=(text,), spans=tuple(spans))


def _get_list(row: TypedRow, column: str) -> list[str]:
    values = get_field(row, column)
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise CorpusError(f"{row[0]}: '{column}' must be a list of texts.")
    return [str(value) for value in values]
