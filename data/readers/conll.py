"""Readers of tagged sentences: files with a word per line, and tables with lists of words and of tags."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.corpora.skipped import SkippedRows
from permafrost.data.corpora.tag_schemes import OUTSIDE, split_prefix
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.opening import lines_of
from permafrost.data.files.table import get_field, suffix_of
from permafrost.data.spec import nearest
from permafrost.data.writing.words import read_entities, tag_words

WORDS = ("tokens", "words")

TAGS = ("ner_tags", "tags")

HEADER_WORDS, HEADER_TAGS = (*WORDS, "token", "word", "form"), (*TAGS, "ner_tag", "tag", "ner", "label", "labels")
"""Names of the columns of words and of tags in a header, in lower case; a line with one of each is a header."""

HEADER_SENTENCES = ("sentence #", "sentence", "sentence_id", "sentence_idx", "sent_id")
"""Names of the column of sentences in a header, in lower case."""

BLANKS = re.compile(r"[ \t]+")

COMMENT = re.compile(r"#\s*([\w.]+)\s*=\s*(\S.*)")
"""Comment with a key and a value: the split of the sentence after it, the names of the columns, or another."""

DOCUMENT = "-DOCSTART-"

LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*:(?=.)")
"""Language before a word."""

CONLL_U, NO_WORD = 10, re.compile(r"\d+[-.]\d+")
"""Number of columns of CoNLL-U; and the number of a line, in its first one, that is of several words or of none."""

POSITION = re.compile(r"-?[1-9][0-9]*")
"""Column given by its position, from 1, or from -1 at the end."""

TaggedWord = tuple[str, str, str]
"""Origin, word, tag."""

Line = tuple[int, list[str]]
"""Line number, cells."""


class Columns(NamedTuple):
    """Indices of the columns of a file with a word per line; None for one that it does not have."""

    word: int | None
    """None until a sentence shows whether the first column counts its words."""

    tag: int
    sentence: int | None = None
    split: int | None = None


class ColumnFile:
    """A file with a word and its tag per line; a blank line ends a sentence.

    Cells are separated by tabs if the first line has one; in csv files else by commas or semicolons; else by blanks. A
    first line that names a column of words and one of tags is a header, as is the comment ``# global.columns = FORM
    TAG``. Without names, the word is the first cell, or the second if the first counts the words, and the tag the last
    one. A language before all words of the first sentence, as in ``en:Paris``, is taken off. A column may name the
    sentences, on every line of a sentence or on its first. Lines with ``-DOCSTART-`` are skipped, as are lines of
    CoNLL-U that are no word, and comments: lines before a sentence that start with ``#`` and do not end with a tag. The
    comment ``# split = train`` sets the split of the sentence after it. The text of a sentence is its words with spaces
    between them.

    Args:
        path: of the file.
        encoding: as of :func:`permafrost.data.files.opening.lines_of`.
        columns: names or positions of word and tag, or of sentence, word and tag; empty takes those that are found.
        split_column: name of the column with the split.
        skipped: collects the sentences that are left out since a line has another number of cells, or no word or tag.
    """

    def __init__(
        self, path: Path, encoding: str, columns: Sequence[str], split_column: str, skipped: SkippedRows
    ) -> None:
        self.path, self.encoding, self.chosen = path, encoding, columns
        self.split_column, self.skipped = split_column, skipped
        self.is_csv, self.separator = suffix_of(path) == ".csv", ""
        self.columns: Columns | None = None
        self.width, self.first = 0, 0
        self.prefix: str | None = None
        self.names: list[str] = []
        self.tags = {OUTSIDE}

    def records(self) -> Iterator[Record]:
        """Read the sentences.

        Raises:
            CorpusError: the first line has a single cell, or not the columns that are chosen.
        """
        split, sentence, lines = "", "", list[Line]()
        for number, line in lines_of(self.path, self.encoding):
            cells = self._cells(line.strip("\r\n"))
            if len(cells) == CONLL_U and NO_WORD.fullmatch(cells[0]):
                continue
            own, ends = sentence, not any(cells) or DOCUMENT in line
            if not ends:
                if line.startswith("#") and not lines and not self._is_word(line, cells):
                    comment = COMMENT.fullmatch(line.strip())
                    if comment and comment[1] == "split":
                        split = comment[2]
                    elif comment and comment[1] == "global.columns":
                        self.names = comment[2].split()
                    continue
                if not self.columns and self._is_header(number, cells):
                    continue
                own = self._cell(cells, "sentence") or sentence
            if lines and (ends or own != sentence):
                yield from self._sentence(lines, split)
                split, lines = "", []
            sentence = own
            if not ends:
                lines.append((number, cells))
        if lines:
            yield from self._sentence(lines, split)

    def _cells(self, line: str) -> list[str]:
        """Return the cells of a line; empty ones after the last column are dropped."""
        if not self.columns:
            known = "\t,;" if self.is_csv else "\t"
            self.separator = next((separator for separator in known if separator in line), "")
        if not self.separator:
            return BLANKS.split(line.strip(" \t"))
        if self.is_csv:
            line_cells = next(csv.reader([line], delimiter=self.separator), [])
        else:
            line_cells = line.split(self.separator)
        cells = [cell.strip(" ") for cell in line_cells]
        while len(cells) > self.width and not cells[-1]:
            cells.pop()
        return cells

    def _cell(self, cells: Sequence[str], name: str) -> str:
        """Return the cell of the column of words, tags, sentences or splits; empty if there is none."""
        index = getattr(self.columns, name)
        return cells[index] if index is not None and index < len(cells) else ""

    def _is_word(self, line: str, cells: Sequence[str]) -> bool:
        """Return whether a line that starts with ``#`` has as many cells as others, and a tag."""
        tag = cells[self.columns.tag if self.columns and len(cells) == self.width else -1]
        is_whole = len(cells) == (self.width or len(cells)) and " = " not in line
        return is_whole and (tag in self.tags or split_prefix(tag) is not None)

    def _is_header(self, number: int, cells: Sequence[str]) -> bool:
        """Find the columns in the first line, and return whether it is a header."""
        origin, self.width, self.first = f"{self.path}:{number}", len(cells), number
        if self.width < 2:
            raise CorpusError(
                f"{origin}: expected a word and its tag, with a blank or a tab between them, found one cell."
            )
        self.columns, is_header = find_columns(origin, self.names, cells, self.chosen, self.split_column)
        return is_header

    def _sentence(self, lines: Sequence[Line], split: str) -> Iterator[Record]:
        """Yield the record of a sentence, unless it is left out."""
        assert self.columns is not None
        for number, cells in lines:
            if len(cells) != self.width:
                problem = f"expected {self.width} columns as in line {self.first}, found {len(cells)}"
                return self.skipped.skip(f"{self.path}:{number}", "another number of columns", problem)
        word, tag = self.columns.word, self.columns.tag
        if word is None:
            counted = [cells[0] for _, cells in lines] == [str(index) for index in range(1, len(lines) + 1)]
            word = int(counted and self.width > 2)
            self.columns = self.columns._replace(word=word)
        if self.prefix is None:
            prefixes = {match[0] for _, cells in lines if (match := LANGUAGE.match(cells[word]))}
            whole = len(prefixes) == 1 and all(LANGUAGE.match(cells[word]) for _, cells in lines)
            self.prefix = prefixes.pop() if whole else ""
        words = [
            (f"{self.path}:{number}", cells[word].removeprefix(self.prefix), cells[tag]) for number, cells in lines
        ]
        self.tags.update(tag for _, _, tag in words)
        yield from sentence_record(words, self._cell(lines[0][1], "split") or split, self.skipped)


def find_columns(
    origin: str, names: Sequence[str], cells: Sequence[str], chosen: Sequence[str], split_column: str
) -> tuple[Columns, bool]:
    """Return the columns of a file, and whether its first line is a header.

    Args:
        names: of the columns, if a comment gives them.
        cells: of the first line.
        chosen: names or positions of the columns of words and tags, or of sentences, words and tags; may be empty.
    """
    header = names or cells
    lower = [name.lower() for name in header]
    word, tag, sentence = (
        next((lower.index(name) for name in known if name in lower), None)
        for known in (HEADER_WORDS, HEADER_TAGS, HEADER_SENTENCES)
    )
    has_both = word is not None and tag is not None
    is_header = not names and (has_both or not all(map(POSITION.fullmatch, chosen)))
    if not names and not is_header:
        word = tag = sentence = None
    if chosen:
        *sentences, word, tag = (_index_of(origin, name, header, len(cells)) for name in chosen)
        sentence = sentences[0] if sentences else sentence
    split = header.index(split_column) if split_column in header and (names or is_header) else None
    return Columns(word, len(cells) - 1 if tag is None else tag, sentence, split), is_header


def _index_of(origin: str, column: str, names: Sequence[str], width: int) -> int:
    if column in names:
        return names.index(column)
    index = int(column) if POSITION.fullmatch(column) else 0
    if not 0 < abs(index) <= width:
        raise CorpusError(
            f"{origin}: no column '{column}' among {width}; set corpus.columns to names in the first line, or to "
            f"positions, e.g. corpus.columns=1,{width}. {nearest(column, names)}"
        )
    return index - 1 if index > 0 else width + index


def tagged_row(
    row: TypedRow, columns: tuple[str, ...], split_column: str, skipped: SkippedRows, names: Sequence[str] = ()
) -> Iterator[Record]:
    """Yield the record of a sentence, unless it is left out: lists of words and tags, or a text and its entities.

    Args:
        columns: names of the two; empty takes the default names.
        names: names of the tags, if the row holds tag numbers.
    """
    origin, fields = row
    if columns and isinstance(fields.get(columns[-2]), str):
        return (yield from _annotated_row(row, columns, split_column, skipped))
    names_of_lists = columns[-2:] or [next((name for name in known if name in fields), "") for known in (WORDS, TAGS)]
    if not columns and "" in names_of_lists:
        raise CorpusError(
            f"{origin}: expected a list of words ({' or '.join(WORDS)}) and one of tags ({' or '.join(TAGS)}), "
            f"found {', '.join(map(repr, fields)) or 'nothing'}; set corpus.columns (--columns) to these two, or to "
            "a text and a list of its entities."
        )
    words, tags = (_get_list(row, name) for name in names_of_lists)
    if len(words) != len(tags):
        problem = f"expected a tag for each word, found {len(words)} words and {len(tags)} tags"
        return skipped.skip(origin, "another number of tags than words", problem)
    tag_names = [names[int(tag)] if names and tag.isdecimal() and int(tag) < len(names) else tag for tag in tags]
    origins = [f"{origin}, word {number}" for number in range(1, len(words) + 1)]
    tagged_words = list(zip(origins, words, tag_names, strict=True))
    yield from sentence_record(tagged_words, str(fields.get(split_column) or ""), skipped, origin)


def _annotated_row(
    row: TypedRow, columns: tuple[str, ...], split_column: str, skipped: SkippedRows
) -> Iterator[Record]:
    """Yield the record of a text whose entities are given by their characters, unless it is left out."""
    (origin, fields), text = row, str(get_field(row, columns[-2]))
    entities = read_entities(get_field(row, columns[-1]) or [])
    if entities is None:
        raise CorpusError(f"{origin}: '{columns[-1]}' must be a list of entities, each [start, end, label].")
    try:
        spans = tuple(Span(*word, origin) for word in tag_words(text, entities))
    except ValueError as error:
        return skipped.skip(origin, "entity that cannot be a tag", str(error))
    if not spans:
        return skipped.skip(origin, "no words", "the text has no words")
    yield Record(origin=origin, split=str(fields.get(split_column) or ""), texts=(text,), spans=spans)


def sentence_record(
    words: Sequence[TaggedWord], split: str, skipped: SkippedRows, origin: str = ""
) -> Iterator[Record]:
    """Yield the record of a sentence, unless it is left out; its origin defaults to that of its first word.

    Empty words with the tag ``O`` are dropped.
    """
    spans, texts, start = list[Span](), list[str](), 0
    for word_origin, word, tag in words:
        is_blank = not word.strip(" ")
        if not tag or (is_blank and tag != OUTSIDE):
            noun = "word" if tag else "tag"
            return skipped.skip(word_origin, f"no {noun}", f"the {noun} is missing")
        if not is_blank:
            end = start + len(word)
            spans.append(Span(start, end, tag, word_origin))
            texts.append(word)
            start = end + 1
    if not spans:
        return skipped.skip(origin or words[0][0], "no words", "the sentence has no words")
    yield Record(origin=origin or spans[0].origin, split=split, texts=(" ".join(texts),), spans=tuple(spans))


def _get_list(row: TypedRow, column: str) -> list[str]:
    values = get_field(row, column)
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise CorpusError(f"{row[0]}: '{column}' must be a list of texts.")
    return [str(value) for value in values]
