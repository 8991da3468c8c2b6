"""Readers of plain text: documents of ``.txt`` or ``.txt.gz`` files, which end at a blank line or at every line; and
sentences of a file.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from permafrost.data.corpora.records import CorpusError, check_text
from permafrost.data.files.opening import lines_of
from permafrost.data.files.table import as_text, open_table, suffix_of
from permafrost.data.readers.registry import CORPORA
from permafrost.data.readers.sources import is_glob, matching_files


def find_text(corpus: str) -> Path:
    """Return the path of a text: a bundled sample, or a path under ``PERMAFROST_DATA`` or the working directory.

    Raises:
        CorpusError: it is in none of them.
    """
    root, entry = os.environ.get("PERMAFROST_DATA"), CORPORA.get(corpus)
    if entry and entry.folder and len(entry.files) == 1:
        return entry.folder / next(iter(entry.files.values()))
    for path in ([Path(root) / corpus] if root else []) + [Path(corpus).expanduser()]:
        if path.exists() or is_glob(path):
            return path
    under = f"nor under PERMAFROST_DATA = {root}" if root else "and PERMAFROST_DATA is not set"
    raise CorpusError(
        f"language.corpus = '{corpus}': there is no such file or folder, {under}; name a .txt file or a folder of them."
    )


class Documents:
    """The documents of a file, or of several; each iteration reads them anew, and holds none.

    The lines of a document are joined by a space.
    """

    def __init__(self, path: Path, lines: bool = False) -> None:
        """Find the files.

        Args:
            path: a file; a folder, whose text files are read in order of name; or a pattern of files, in natural order.
            lines: whether each line is a document; else a blank line ends one.

        Raises:
            CorpusError: a file is missing, or is no text.
        """
        self._path, self._lines = path, lines
        if path.is_dir():
            self._files = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) == ".txt")
            if not self._files:
                raise CorpusError(f"{path}: it holds no .txt or .txt.gz file.")
            return
        self._files = matching_files(path) if is_glob(path) else [path]
        for file in self._files:
            if file.exists() and suffix_of(file) != ".txt":
                raise CorpusError(
                    f"{file}: unknown kind of file '{suffix_of(file)}' for a text to pretrain on; set language.corpus "
                    "to a .txt file, which may be compressed, to a folder of them, or to a pattern such as texts/*.txt."
                )

    def __iter__(self) -> Iterator[str]:
        """Yield the documents.

        Raises:
            CorpusError: there is none, or a line is not UTF-8.
        """
        empty = True
        for file in self._files:
            for text in _read_text(file, self._lines):
                empty = False
                yield text
        if empty:
            raise CorpusError(f"{self._path}: it holds no text.")


def _read_text(path: Path, lines: bool) -> Iterator[str]:
    numbered = ((number, line.strip()) for number, line in lines_of(path))
    for document, block in groupby(numbered, lambda line: bool(line[1]) and (line[0] if lines else True)):
        if document:
            numbers, texts = zip(*block, strict=True)
            text = " ".join(texts)
            check_text(f"{path}:{numbers[0]}", "the document", text)
            yield text


COLUMNS = ("sentence", "text")
"""Possible names of the column of sentences in a file."""


def read_sentences(path: Path) -> list[str]:
    """Read the sentences of a file: its column ``sentence`` or ``text``, or its lines.

    Raises:
        CorpusError: the file cannot be read, has neither column, or holds an empty sentence.
    """
    sentences: list[str] = []
    for origin, typed in open_table(path).rows():
        fields = as_text(typed)
        column = next((name for name in COLUMNS if name in fields), None)
        if column is None:
            raise CorpusError(f"{origin}: expected the column {' or '.join(COLUMNS)}; found {', '.join(fields)}.")
        check_text(origin, "the sentence", fields[column])
        sentences.append(fields[column])
    return sentences
