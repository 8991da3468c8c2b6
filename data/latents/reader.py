"""A latent store opened by its folder: what it holds, and lazy arrays of its latents; no corpus and no backbone."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from permafrost.data.latents.array import LatentArray
from permafrost.data.latents.html import facts_html, layers_text
from permafrost.data.latents.kept_texts import read_texts, text_files
from permafrost.data.latents.selection import layer_list
from permafrost.data.latents.sources import StoreSource
from permafrost.data.plan.layers import check_layers, resolve_layers
from permafrost.data.plan.plan import TOKENS
from permafrost.data.remote.mirror import files_below, url_of
from permafrost.data.spec import nearest
from permafrost.data.store.errors import StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.shard_layout import SUFFIX
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text


class StoreReader:
    """A store opened for reading: nothing but the description of a shard is read before it is used.

    Its texts are those that it had when they were first asked for.
    """

    def __init__(self, store: LatentStore) -> None:
        self.store = store

    def __reduce__(self) -> tuple[type["StoreReader"], tuple[LatentStore]]:
        return type(self), (self.store,)

    def __len__(self) -> int:
        """Number of distinct texts."""
        return self._count

    @cached_property
    def _count(self) -> int:
        return self.store.count_texts()

    @cached_property
    def _shards(self) -> list[Shard]:
        return self.store.shards

    def __repr__(self) -> str:
        columns = "; ".join(f"{view} {len(layers)} layers" for view, layers in self.columns.items())
        return f"StoreReader({self.path}: {self.backbone}, {len(self):,} texts; {columns})"

    def _repr_html_(self) -> str:
        return facts_html("StoreReader", self._facts)

    def _facts(self) -> dict[str, object]:
        identity = self.identity
        facts: dict[str, object] = {"folder": self.path, "backbone": self.backbone, "texts": len(self)}
        for view, layers in self.columns.items():
            facts[f"view {view}"] = f"layers {layers_text(layers)}"
        facts |= {"template": identity.template, "max_tokens": identity.max_tokens}
        facts |= {"compute_dtype": identity.compute_dtype, "stored_dtype": identity.stored_dtype}
        kept = "kept" if text_files(self.path) else "not kept (extract.keep_texts)"
        return facts | {"text itself": kept}

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self.store.path

    @property
    def identity(self) -> Identity:
        """Everything that the latents depend on."""
        return self.store.identity

    @property
    def backbone(self) -> str:
        """Name of the backbone, as its first shard records it."""
        return str(self.store.first_shard.provenance.get("backbone", self.path.resolve().parent.name))

    @cached_property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """View -> layers that any shard holds."""
        return self.store.columns()

    @cached_property
    def keys(self) -> Keys:
        """``[text]``, the 16-byte keys of the distinct texts, in the order in which the shards have them."""
        return _distinct([shard.keys for shard in self._shards])

    @cached_property
    def texts(self) -> list[Text | None] | None:
        """``[text]``, the texts in the order of :attr:`keys`, None for those not kept; None if none of them is.

        ``extract.keep_texts`` keeps them.
        """
        texts = read_texts(self.path, self.keys)
        return None if all(text is None for text in texts) else texts

    @property
    def texts_unknown(self) -> int:
        """Number of texts that are not kept."""
        return len(self) if self.texts is None else sum(text is None for text in self.texts)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """``[text]``, tokens of each text before truncation, in the order of :attr:`keys`."""
        keys = np.concatenate([shard.keys for shard in self._shards])
        lengths = np.concatenate([shard.lengths for shard in self._shards])
        _, first = np.unique(keys, return_index=True)
        return np.asarray(lengths[np.sort(first)])

    @property
    def peaks(self) -> dict[str, dict[int, float]]:
        """View -> layer -> largest absolute value of any text."""
        return largest_values(self._shards)

    def latents(
        self,
        texts: Sequence[Text] | None = None,
        view: str = "",
        layers: Sequence[int] | int | str = "all",
    ) -> LatentArray:
        """Return the latents of a view, ``[layer, text, width]``.

        Args:
            texts: whose latents are to be read, repeated ones as often as they are given; None takes all texts that
                the store has with this view and these layers.
            view: may be left out if the store has one.
            layers: indices, -1 for the last layer that is stored; "all"; or a range, such as "1..-1".

        Raises:
            StoreError: the store lacks the view, or a text with some layer; or it is not said which view.
            SpecError: a layer is not stored.
        """
        view = self._view(view)
        chosen_layers = layer_list(layers)
        wanted = chosen_layers if isinstance(chosen_layers, str) else tuple(chosen_layers)
        check_layers(wanted)
        chosen = resolve_layers(wanted, self.columns[view])
        if texts is not None:
            texts = [texts] if isinstance(texts, str) else list(texts)
            keys = text_keys(texts, self.identity.in_windows)
            self._check_stored(keys, texts, view, chosen)
            return LatentArray(StoreSource(self.store, keys, view, chosen), view, chosen, texts)
        keys = self.keys
        for layer in chosen:
            keys = keys[self.store.has_column(keys, view, layer)]
        if not len(keys):
            raise StoreError(f"{self.path} has no text with all the layers {chosen} of {view}: ask for fewer layers.")
        source = StoreSource(self.store, keys, view, chosen)
        return LatentArray(source, view, chosen, lambda: self._texts_or_keys(keys))

    def _texts_or_keys(self, keys: Keys) -> list[Text] | Keys:
        texts = [text for text in read_texts(self.path, keys) if text is not None]
        return texts if len(texts) == len(keys) else keys

    def _view(self, view: str) -> str:
        pooled = [name for name in self.columns if name != TOKENS]
        if view == TOKENS:
            raise StoreError(
                f"the view {TOKENS} has one latent for each token of a text, and no array holds these: read it by "
                "store.read_tokens(texts, layers)."
            )
        if view in pooled:
            return view
        if view or not pooled:
            raise StoreError(f"{self.path} holds no view '{view}'. {nearest(view, pooled)}")
        if len(pooled) > 1:
            raise StoreError(f"{self.path} holds several views: set view to one of {', '.join(pooled)}.")
        return pooled[0]

    def _check_stored(self, keys: Keys, texts: Sequence[Text], view: str, layers: Sequence[int]) -> None:
        for layer in layers:
            found = self.store.has_column(keys, view, layer)
            if not found.all():
                text = str(texts[int(np.argmin(found))])
                raise StoreError(
                    f"{self.path}: {int((~found).sum()):,} of {len(texts):,} texts have no latent of view {view}, "
                    f"layer {layer}, the first of them {text[:60]!r}; pf.latents runs what is missing."
                )


def _distinct(keys: Sequence[Keys]) -> Keys:
    """Return the distinct keys in order of their first occurrence."""
    every = np.concatenate(keys)
    _, first = np.unique(every, return_index=True)
    return np.asarray(every[np.sort(first)])


def largest_values(shards: Sequence[Shard]) -> dict[str, dict[int, float]]:
    """Return view -> layer -> largest absolute value in any shard; shards of earlier versions do not record it."""
    peaks: dict[str, dict[int, float]] = {}
    for shard in shards:
        for view, values in shard.peaks.items():
            largest = peaks.setdefault(view, {})
            for layer, value in zip(shard.columns[view], values, strict=True):
                largest[layer] = max(value, largest.get(layer, 0.0))
    return {view: dict(sorted(largest.items())) for view, largest in sorted(peaks.items())}


def open_store(path: Path) -> StoreReader:
    """Open the store in a folder, or the only one below it; only the descriptions of shards are read.

    Args:
        path: the folder of a store (``cache/<backbone>/<identity>``), of a backbone, or a cache.

    Raises:
        StoreError: there is no store, or there are several.
        ShardError: a shard is damaged.
    """
    if not path.is_dir():
        raise StoreError(f"{path}: there is no such folder; name the folder of a store or a cache.")
    depths = ("", "*/", "*/*/")
    found = (
        files_below(path, [SUFFIX]) if url_of(path) else [p for depth in depths for p in path.glob(f"{depth}*{SUFFIX}")]
    )
    folders = sorted({shard.parent for shard in found})
    if not folders:
        raise StoreError(f"{path} holds no store of latents: name the folder of one, such as cache/minilm/<identity>.")
    if len(folders) > 1:
        raise StoreError(f"{path} holds {len(folders)} stores: open one of {', '.join(map(str, folders))}.")
    return StoreReader(LatentStore.open(folders[0]))
