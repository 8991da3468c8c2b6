"""Keys of texts: a 16-byte digest of each, under which a store holds its latents."""

import json
from collections.abc import Sequence

import numpy as np
import xxhash

from permafrost.data.store.index.segment import Keys
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.text import Segments, Text


def text_keys(texts: Sequence[Text], in_windows: bool = False) -> Keys:
    """Return a 16-byte key (xxh3) for each text, ``[text]``; the windows of two segments have different keys.

    Args:
        in_windows: whether the store is one of windows. There a text of one segment has a key of its own kind, because
            earlier versions cut such a text, and stored it under the same identity.
    """
    keys = [
        xxhash.xxh3_128_digest(
            text.encode("utf-8", "surrogatepass") if isinstance(text, str) and not in_windows else _list_bytes(text)
        )
        for text in texts
    ]
    return np.frombuffer(b"".join(keys), f"S{KEY_BYTES}")


def key_name(key: bytes) -> str:
    """Return a key as 32 hex digits; numpy leaves out the zero bytes at its end."""
    return key.ljust(KEY_BYTES, b"\0").hex()


def _list_bytes(text: Text) -> bytes:
    """Return bytes that are different for different texts, and no string's: byte 255 occurs in no UTF-8."""
    parts = [text.first, text.second, text.window] if isinstance(text, Segments) else [text]
    return b"\xff" + json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")
