"""Token ids on disk: of a text that is larger than memory, in files without a name, which go with the process."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


class TokenFile:
    """Token ids of documents, back to back, and the length of each; only the lengths are in memory."""

    def __init__(self, folder: Path) -> None:
        """Make an empty file in the file system of ``folder``, which is created if it does not exist.

        Raises:
            OSError: the file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self._lengths = array("q")

    def __enter__(self) -> "TokenFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, documents: Iterable[Iterable[int]]) -> None:
        """Write the token ids of some documents."""
        for document in documents:
            ids = np.array(document, np.int32)
            self._file.write(ids.tobytes())
            self._lengths.append(len(ids))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[document]``, in tokens."""
        return np.array(self._lengths, np.int64)

    def documents(self, chosen: NDArray[np.bool_]) -> Iterator[NDArray[np.int32]]:
        """Yield the token ids of the documents that are chosen, ``[document]``, in order."""
        start = 0
        for length, is_chosen in zip(self._lengths, chosen.tolist(), strict=True):
            if is_chosen:
                yield self._ids[start : start + length]
            start += length

    @cached_property
    def _ids(self) -> NDArray[np.int32]:
        return _mapped(self._file)


def blocks_on_disk(blocks: Iterable[NDArray[np.int32]], folder: Path) -> NDArray[np.int32]:
    """Write blocks to a file and return it as a memory map, ``[block, token]``.

    Args:
        blocks: parts of them, ``[block, token]``; one at least, which may be empty.
        folder: as of :class:`TokenFile`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in blocks:
            tokens = part.shape[1]
            file.write(np.ascontiguousarray(part).tobytes())
        return _mapped(file).reshape(-1, tokens)


def _mapped(file: IO[bytes]) -> NDArray[np.int32]:
    """Return the content of a file of int32 as a memory map, which outlives the file."""
    file.flush()
    if not file.tell():
        return np.zeros(0, np.int32)  # an empty file cannot be mapped
    return np.asarray(np.memmap(file, np.int32, "r"))
