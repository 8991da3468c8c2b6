"""Plain text to documents: ``.txt`` or ``.txt.gz`` files in which a blank line ends a document, or every line does."""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from permafrost.data.corpora.records import CorpusError
from permafrost.data.readers.registry import CORPORA
from permafrost.data.readers.tabular import lines_of, read_by_suffix, suffix_of
from permafrost.data.text import fault

Line = tuple[int, str]
"""Its number, and what it says."""


def find_text(corpus: str) -> Path:
    """Where a text lies: under ``PERMAFROST_DATA``, here, or among the samples that ship.

    Raises:
        CorpusError: in none of them.
    """
    root, known = os.environ.get("PERMAFROST_DATA"), CORPORA.get(corpus)
    if known and known.folder and len(known.files) == 1:
        return known.folder / next(iter(known.files.values()))
    for path in ([Path(root) / corpus] if root else []) + [Path(corpus).expanduser()]:
        if path.exists():
            return path
    under = f"nor under PERMAFROST_DATA = {root}" if root else "and PERMAFROST_DATA is not set"
    raise CorpusError(
        f"language.corpus = '{corpus}': there is no such file or folder, {under}; name a .txt file or a folder of them."
    )


def read_documents(path: Path, lines: bool = False) -> list[str]:
    """The documents of a file, or of every text file of a folder by name; the lines of one are joined by a space.

    Args:
        lines: whether each line is a document; else a blank line ends one.

    Raises:
        CorpusError: there is no such file, nothing in it, or a line is not UTF-8.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) == ".txt")
        if not files:
            raise CorpusError(f"{path}: it holds no .txt or .txt.gz file.")
    else:
        files = [path]
    parts = _each_line if lines else _between_blank_lines

    def documents_of(file: Path) -> Iterator[str]:
        return _joined(file, parts(lines_of(file)))

    documents = [text for file in files for text in read_by_suffix(file, {".txt": documents_of})]
    if not documents:
        raise CorpusError(f"{path}: it holds no text.")
    return documents


def _each_line(lines: Iterable[Line]) -> Iterator[list[Line]]:
    return ([line] for line in lines if line[1].strip())


def _between_blank_lines(lines: Iterable[Line]) -> Iterator[list[Line]]:
    return (list(some) for filled, some in groupby(lines, lambda line: bool(line[1].strip())) if filled)


def _joined(path: Path, parts: Iterable[list[Line]]) -> Iterator[str]:
    for part in parts:
        text = " ".join(line.strip() for _, line in part)
        if wrong := fault(text):
            raise CorpusError(f"{path}:{part[0][0]}: the document {wrong}.")
        yield text
