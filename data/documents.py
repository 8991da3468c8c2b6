"""Plain text to documents: ``.txt`` or ``.txt.gz`` files in which a blank line ends a document."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from data.corpus import CorpusError
from data.files import lines_of, read_by_suffix, suffix_of
from data.text import fault


def read_documents(path: Path) -> list[str]:
    """The documents of a file, or of every text file of a folder by name; the lines of one are joined by a space.

    Raises:
        CorpusError: there is no such file, nothing in it, or a line is not UTF-8.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) == ".txt")
        if not files:
            raise CorpusError(f"{path}: it holds no .txt or .txt.gz file.")
    else:
        files = [path]
    documents = [text for file in files for text in read_by_suffix(file, {".txt": _documents})]
    if not documents:
        raise CorpusError(f"{path}: it holds no text.")
    return documents


def _documents(path: Path) -> Iterator[str]:
    for filled, lines in groupby(lines_of(path), lambda line: bool(line[1].strip())):
        if filled:
            (first, _), *_ = found = list(lines)
            text = " ".join(line.strip() for _, line in found)
            if wrong := fault(text):
                raise CorpusError(f"{path}:{first}: the document {wrong}.")
            yield text
