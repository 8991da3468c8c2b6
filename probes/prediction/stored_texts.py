"""Latents of new texts that were extracted before a prediction: read from their store, without a backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from permafrost.data.plan.plan import TOKENS, Columns
from permafrost.data.ragged import Counts, TokenLatents
from permafrost.data.store.block import Latents
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text


class StoredTexts:
    """Reader of a store: a :class:`permafrost.probes.prediction.predictor.TextExtractor` that runs nothing."""

    backbone: Any = None

    def __init__(self, store: LatentStore) -> None:
        self._store = store

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Return the windows of all texts, as they were extracted."""
        return self._store.expand_windows(texts)

    def __call__(self, texts: Sequence[Text], columns: Columns) -> Mapping[str, Latents | TokenLatents]:
        """Return the latents of texts by view; raise a :class:`StoreError` if one is not stored."""
        return {
            view: self._store.read_tokens(texts, layers) if view == TOKENS else self._store.read(texts, view, layers)
            for view, layers in columns.items()
        }
