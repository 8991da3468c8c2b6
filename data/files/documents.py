"""Folders of documents: a file is one text, the folder around it names its class, and the one above it its split."""

import re
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from permafrost.data.errors import CorpusError
from permafrost.data.files.column_names import split_of
from permafrost.data.files.encoding import find_encoding
from permafrost.data.files.opening import COMPRESSED_SUFFIXES, LONGEST_LINE, decode_errors, open_bytes
from permafrost.data.files.settings import Skip

Document = tuple[str, dict[str, Any]]

SUFFIXES = ("", ".txt")
"""Suffixes of documents; a number, such as that of a message, is none."""

NO_DOCUMENT = re.compile(r"\.|(readme|license|licence|copying|changelog|classes)\b", re.IGNORECASE)
"""Begin of the names of files beside documents."""

FEWEST = 2
"""Documents of the smallest folder of them."""


def split_in_name(name: str) -> str:
    """Return the split of which a name holds words, such as ``news-train``; empty if it holds none or several."""
    words = re.split(r"[\W_]+|(?<=\D)(?=\d)|(?<=\d)(?=\D)", name)
    splits = {split_of(word) for word in words} - {""}
    return splits.pop() if len(splits) == 1 else ""


def documents_of(folder: Path) -> list[Path]:
    """Return the documents right in a folder, in order of name."""
    return sorted(file for file in folder.iterdir() if file.is_file() and _is_document(file))


def is_folder_of_documents(folder: Path) -> bool:
    """Return whether a folder holds documents: right in it, or in a folder for each class, or for each split above."""
    return any(len(documents) >= FEWEST for _, _, documents in _groups(folder))


def read_documents(folder: Path, encoding: str, skip: Skip) -> Iterator[Document]:
    """Read the documents of a folder as rows with a text, and a label and a split if folders name them.

    Files beside folders of documents are left out.
    """
    groups = [group for group in _groups(folder) if group[2]]
    depth = max(bool(label) + bool(split) for label, split, _ in groups)
    rows = (
        [(path, {"label": label, "split": split}) for path in documents]
        for label, split, documents in groups
        if bool(label) + bool(split) == depth
    )
    for path, names in filter(None, chain.from_iterable(zip_longest(*rows))):  # the first rows are of all folders
        if text := _read(path, encoding).strip():
            yield f"{path}:1", {"text": text, **{key: name for key, name in names.items() if name}}
        else:
            skip(f"{path}:1", "empty text", "the file is empty")


def _groups(folder: Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield class, split and documents of each folder; without folders of classes or splits these are empty."""
    yield "", "", documents_of(folder)
    for inner in _folders(folder):
        split = split_in_name(inner.name)
        yield ("" if split else inner.name), split, documents_of(inner)
        for innermost in _folders(inner) if split else ():
            yield innermost.name, split, documents_of(innermost)


def _folders(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))


def _is_document(file: Path) -> bool:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return not NO_DOCUMENT.match(file.name) and (suffix in SUFFIXES or suffix[1:].isdigit())


def _read(path: Path, encoding: str) -> str:
    with open_bytes(path) as file:
        content = file.read(LONGEST_LINE + 1)
    if len(content) > LONGEST_LINE:
        raise CorpusError(f"{path}: the document has more than {LONGEST_LINE >> 20} MiB; cut it into several.")
    found = find_encoding(path, content, encoding)
    try:
        return content.decode(found, decode_errors(found))
    except UnicodeError as error:
        raise CorpusError(f"{path}: not {found} ({error}); set corpus.encoding to that of the file.") from None
