"""Texts kept beside the shards of a store, so that it can be read without its corpus.

They are in parquet files ``<digest>.texts.parquet`` in the folder of the store: the key of a text, as shards have it,
and the text; of two segments, both and the index of the window. A file is named after the digest of its bytes, is
whole or absent, and never changes. A store without such files is read as before, also by earlier versions.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pyarrow import parquet

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import MachineError
from permafrost.data.remote.mirror import store_folder
from permafrost.data.store.errors import ShardError
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Segments, Text

TEXTS_SUFFIX = ".texts.parquet"

FILE_TEXTS = 100_000
"""Texts of one file."""

_SCHEMA = pa.schema(
    [("key", pa.binary(KEY_BYTES)), ("text", pa.string()), ("second", pa.string()), ("window", pa.int32())]
)


def text_files(folder: Path) -> list[Path]:
    """Return the files of kept texts in the folder of a store, by name."""
    files = store_folder(folder)
    return [files.fetch(name) for name in sorted(files.names()) if name.endswith(TEXTS_SUFFIX) and name[0] != "."]


def keep_texts(store: LatentStore, texts: Sequence[Text]) -> int:
    """Keep texts whose latents a store has, if they are not kept yet; return how many were written.

    Args:
        texts: windows of two segments each by itself.

    Raises:
        MachineError: the disk is full.
        ShardError: a file of kept texts is damaged.
    """
    keys = text_keys(texts, store.identity.in_windows)
    _, first = np.unique(keys, return_index=True)
    missing = np.sort(first)
    for part in _kept_parts(store.path):
        missing = missing[~np.isin(keys[missing], part)]
    for start in range(0, len(missing), FILE_TEXTS):
        chosen = missing[start : start + FILE_TEXTS]
        content = _file_content(keys[chosen], [texts[index] for index in chosen])
        path = store.path / f"{xxhash.xxh3_128_hexdigest(content)}{TEXTS_SUFFIX}"
        try:
            write_atomically(path, content)
            store.folder.commit(path.name)
        except OSError as error:
            raise MachineError(
                f"{store.path}: its texts could not be written ({error.strerror or error}). The latents are safe; free "
                "space and run the same command to go on, or set extract.keep_texts = false."
            ) from error
    return len(missing)


def kept_keys(folder: Path) -> Keys:
    """Return the keys of all texts that are kept in the folder of a store, ``[text]``; raise as :func:`read_texts`."""
    return np.concatenate([np.zeros(0, f"S{KEY_BYTES}"), *_kept_parts(folder)])


def _kept_parts(folder: Path) -> Iterator[Keys]:
    """Yield the keys of each file of kept texts."""
    for path in text_files(folder):
        yield _keys_of(_read(path, ["key"])["key"])


def read_texts(folder: Path, keys: Keys) -> list[Text | None]:
    """Return the texts of some keys, None for those that are not kept.

    Raises:
        ShardError: a file of kept texts is not as it was written.
    """
    found = dict[bytes, Text]()
    for path in text_files(folder):
        table = _read(path, _SCHEMA.names)
        columns = (table[name].to_pylist() for name in ("text", "second", "window"))
        for key, text, second, window in zip(_keys_of(table["key"]).tolist(), *columns, strict=True):
            found[key] = text if second is None else Segments(text, second, window)
    return [found.get(key) for key in keys.tolist()]


def problems_of_texts(path: Path) -> Iterator[str]:
    """Yield a phrase if a file of kept texts is not as it was written."""
    try:
        _read(path, ["key"])
    except ShardError as error:
        yield error.reason


def _file_content(keys: Keys, texts: Sequence[Text]) -> bytes:
    pairs = [
        (text.first, text.second, text.window) if isinstance(text, Segments) else (text, None, 0) for text in texts
    ]
    arrays = [
        pa.FixedSizeBinaryArray.from_buffers(_SCHEMA.field(0).type, len(keys), [None, pa.py_buffer(keys.tobytes())])
    ]
    arrays += [
        pa.array(values, field.type) for values, field in zip(zip(*pairs, strict=True), list(_SCHEMA)[1:], strict=True)
    ]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(arrays, schema=_SCHEMA), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    if path.exists() and not path.is_file():  # opening a pipe would wait
        raise ShardError(path, "not a regular file")
    try:
        content = path.read_bytes()
        if xxhash.xxh3_128_hexdigest(content) != path.name.removesuffix(TEXTS_SUFFIX):
            raise ShardError(path, "the file's bytes are not those its name was made from")
        table = parquet.read_table(pa.BufferReader(content))
        if not table.schema.equals(_SCHEMA):
            raise ShardError(path, "it is no file of texts")
        return table.select(list(columns))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(path, f"it cannot be read ({error})") from error


def _keys_of(column: pa.ChunkedArray) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(column.to_pylist()), f"S{KEY_BYTES}")
