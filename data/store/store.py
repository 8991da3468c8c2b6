"""The latent store: a folder of immutable shards, appended to by any number of processes, then only read.

There is no manifest and no lock: what is stored is what the shards hold, and the index files beside them only say
where. A text that two processes wrote is read from the same shard by every reader.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import TOKENS, Columns, union_of_columns
from permafrost.data.ragged import Counts, TokenLatents, offsets_from_lengths
from permafrost.data.remote.local_folder import LocalFolder
from permafrost.data.remote.mirror import store_folder
from permafrost.data.spec import SpecError, nearest
from permafrost.data.store.block import Block, Latents, write_shard
from permafrost.data.store.encoding import decode
from permafrost.data.store.errors import ShardError, StoreError
from permafrost.data.store.identity import Identity, folder_name
from permafrost.data.store.index.folder import StoreFolder
from permafrost.data.store.index.key_index import KeyIndex
from permafrost.data.store.index.locations import TextLocations
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import key_name, text_keys
from permafrost.data.store.shard import Shard, first_shard
from permafrost.data.store.shard_layout import SUFFIX
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Segments, Text, expand_windows, quote_text

MOST_OPEN = 256
"""Number of shards that one store keeps open; each of them that is read holds an open file."""


class LatentStore:
    """A store of latents of one identity, in the folder ``<cache>/<backbone>/<identity>/``.

    Latents are read by text, view and layer.
    """

    def __init__(self, path: Path, identity: Identity, only: str = "") -> None:
        """Make the store of a folder; it may be empty, and is not looked at yet.

        Args:
            only: name of the one file of the folder that is read as a shard; empty reads every shard.
        """
        self.path, self.identity, self._only = path, identity, only
        self._opened: dict[str, Shard] = {}
        self.folder: StoreFolder = LocalFolder(path) if only else store_folder(path)
        self._key_index = KeyIndex(self.folder, SUFFIX, self.shard, only)

    def __reduce__(self) -> tuple[type["LatentStore"], tuple[Path, Identity, str]]:
        return type(self), (self.path, self.identity, self._only)

    @classmethod
    def at(cls, cache: Path, backbone: str, identity: Identity) -> Self:
        """Return the store of ``identity`` in ``cache``; it may be empty."""
        return cls(cache / folder_name(backbone) / identity.name, identity)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing store; its identity is read from its shards.

        Raises:
            ShardError: the identity is not the one that the folder is named after, or the first shard is damaged.
            StoreError: the folder holds no shard.
        """
        if shard := first_shard(path):
            if shard.identity.name != path.resolve().name:
                raise ShardError(shard.path, "it belongs to another store")
            return cls(path, shard.identity)
        raise StoreError(f"{path} holds no shard.")

    @property
    def shards(self) -> list[Shard]:
        """Every committed shard, by name, each of them opened. Other processes may add some at any time.

        Raises:
            ShardError: a shard is damaged or belongs to another store.
        """
        return [self.shard(name) for name in self._key_index.names()]

    def shard(self, name: str) -> Shard:
        """Return a shard by the name of its file; raise as :attr:`shards`."""
        shard = self._opened.pop(name, None)
        if shard is None:
            shard = Shard(self.folder.fetch(name))
            if shard.identity != self.identity:
                raise ShardError(shard.path, f"it differs in {', '.join(shard.identity.differences(self.identity))}")
        self._opened[name] = shard
        while len(self._opened) > MOST_OPEN:
            del self._opened[next(iter(self._opened))]  # the one that was not used for longest
        return shard

    def shard_sizes(self) -> dict[Path, int]:
        """Return the path of every committed shard, by name -> its bytes; none is opened."""
        return {self.path / name: size for name, size in sorted(self.folder.sizes().items()) if name.endswith(SUFFIX)}

    @property
    def first_shard(self) -> Shard:
        """The first shard by name, whose provenance stands for that of the store; raise as :attr:`shards`.

        Raises:
            StoreError: the folder holds no shard.
        """
        names = self._key_index.names()
        if not names:
            raise StoreError(f"{self.path} holds no shard.")
        return self.shard(names[0])

    def shard_with(self, view: str) -> Shard:
        """Return a shard that holds a view, which tells the width and the dtype of its latents in every shard.

        Raises:
            SpecError: no shard holds this view.
        """
        found = self._key_index.columns()
        if name := next((name for columns, name in found if view in columns), None):
            return self.shard(name)
        raise SpecError(
            f"view '{view}' is not in this store. {nearest(view, {known for columns, _ in found for known in columns})}"
        )

    @property
    def layers(self) -> int:
        """Number of layers of the backbone, stored or not."""
        return int(self.first_shard.provenance["layers"])

    def count_texts(self) -> int:
        """Return the number of distinct texts."""
        return self._key_index.count()

    def append(self, block: Block, provenance: Mapping[str, Any], check: Callable[[Path], None] | None = None) -> Path:
        """Commit texts with their latents as one shard, as :func:`write_shard`."""
        path = write_shard(self.path, self.identity, provenance, block, check)
        self.folder.commit(path.name)
        if self.folder.remote:  # others find its texts without copying it
            self._key_index.add(path.name)
        return path

    def columns(self) -> dict[str, tuple[int, ...]]:
        """Return the stored columns: view -> layers that any shard holds."""
        return union_of_columns(columns for columns, _ in self._key_index.columns())

    def has_column(self, keys: Keys, view: str, layer: int) -> NDArray[np.bool_]:
        """Return which texts are stored with a layer of a view, ``[text]``."""
        return self._key_index.locate_columns(keys, [(view, layer)])[0].found

    def missing_columns(self, keys: Keys, columns: Columns) -> list[tuple[dict[str, tuple[int, ...]], Any]]:
        """Return groups of texts that lack the same columns, as (columns, indices of texts)."""
        wanted = [(view, layer) for view, layers in columns.items() for layer in layers]
        located = self._key_index.locate_columns(keys, wanted)
        lacking = np.stack([~locations.found for locations in located], axis=1)
        if not lacking.any():
            return []
        groups = []
        patterns, group_of_text = np.unique(lacking, axis=0, return_inverse=True)
        for group, pattern in enumerate(patterns):
            if pattern.any():
                missing = union_of_columns({view: (layer,)} for view, layer in itertools.compress(wanted, pattern))
                groups.append((missing, np.flatnonzero(group_of_text.reshape(-1) == group)))
        return groups

    def read(self, texts: Sequence[Text], view: str, layers: Sequence[int]) -> Latents:
        """Read latents of ``texts``, ``[layer, text, width]``; only these layers are read.

        Raises:
            SpecError: no shard holds this view.
            StoreError: a text or a layer is not in the store, or the view is not pooled.
            ShardError: a shard is damaged.
        """
        return self.read_keys(text_keys(texts, self.identity.in_windows), view, layers, texts)

    def read_keys(self, keys: Keys, view: str, layers: Sequence[int], texts: Sequence[Text] | None = None) -> Latents:
        """Read latents of texts by their keys, like :meth:`read`; ``texts`` are named in errors, else the keys are.

        What was read of a shard is copied and leaves the memory of the process, which stays small whatever the store.
        """
        if view == TOKENS:
            raise StoreError("the view tokens has no latent of a text but one of each of its tokens: use read_tokens.")
        example, locations_of_layers = self.locate_layers(keys, texts, view, layers)
        values = np.empty((len(layers), len(keys), example.width(view)), example.dtype)
        together: dict[int, list[int]] = {}
        for index, locations in enumerate(locations_of_layers):
            together.setdefault(id(locations), []).append(index)
        for indices in together.values():
            for shard, selected, rows in locations_of_layers[indices[0]].by_shard():
                for index in indices:
                    values[index, selected] = decode(shard.layer(view, layers[index])[rows])
                shard.release()
        return values

    def read_tokens(self, texts: Sequence[Text], layers: Sequence[int]) -> TokenLatents:
        """Read every token of ``texts`` in the view ``tokens``; without layers, only ids and spans.

        Raises like :meth:`read`.
        """
        return self.token_reader(texts, layers).read(np.arange(len(texts)))

    def token_reader(self, texts: Sequence[Text], layers: Sequence[int]) -> TokenReader:
        """Open a reader of the view ``tokens`` that reads batches of ``texts``; raise like :meth:`read`.

        The shards are opened and their checksums are verified here, once.
        """
        keys = text_keys(texts, self.identity.in_windows)
        example, locations = self.locate_layers(keys, texts, TOKENS, layers)
        if locations:
            return TokenReader(example, locations[0], locations, layers)
        index = self._key_index.locate(keys, TOKENS)
        self._check_found(texts, index, f"has no latent of view {TOKENS}")
        return TokenReader(example, index, [], [])

    def locate_layers(
        self, keys: Keys, texts: Sequence[Text] | None, view: str, layers: Sequence[int]
    ) -> tuple[Shard, list[TextLocations[Shard]]]:
        """Return a shard that holds the view, and the locations of all texts for each layer."""
        example = self.shard_with(view)
        locations_of_layers = self._key_index.locate_columns(keys, [(view, layer) for layer in layers])
        for layer, locations in zip(layers, locations_of_layers, strict=True):
            self._check_found(
                keys if texts is None else texts, locations, f"has no latent of view {view}, layer {layer}"
            )
        return example, locations_of_layers

    def _check_found(self, texts: Sequence[Text] | Keys, locations: TextLocations[Shard], problem: str) -> None:
        if not locations.found.all():
            text = texts[int(np.argmin(locations.found))]
            shown = f"of the key {key_name(text)}" if isinstance(text, bytes) else quote_text(text)
            raise StoreError(f"{self.path}: text {shown} {problem}.")

    def lengths(self, texts: Sequence[Text]) -> NDArray[np.int32]:
        """Return the number of tokens of each text before truncation, ``[text]``; of a window, up to the text's end.

        Raises:
            StoreError: a text is not in the store.
        """
        locations = self._key_index.locate(text_keys(texts, self.identity.in_windows))
        self._check_found(texts, locations, "is not in the store")
        lengths = np.empty(len(texts), np.int32)
        for shard, selected, rows in locations.by_shard():
            lengths[selected] = shard.lengths[rows]
        return lengths

    def count_truncated(self, texts: Sequence[Text]) -> int:
        """Return how many of ``texts`` were truncated to ``max_tokens``; none are if texts are split into windows.

        Raises like :meth:`lengths`.
        """
        return 0 if self.identity.in_windows else int((self.lengths(texts) > self.identity.max_tokens).sum())

    def expand_windows(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Return every window of texts of two segments, as the extraction made them; no tokenizer is needed.

        A text of one segment has one row, whether it ran in windows or not.
        A window that would have more than ``max_tokens`` tokens if it went on to the end of its text is followed by
        another one.

        Returns:
            the windows of all texts, in order (a text of one segment or a text that fits is its own window), and their
            offsets by text, ``[text + 1]``.

        Raises:
            StoreError: a text of two segments, or a window of one, is not in the store.
        """
        counts = np.ones(len(texts), np.int64)
        last_windows = {index: text for index, text in enumerate(texts) if isinstance(text, Segments)}
        while self.identity.in_windows and last_windows:
            continues = self.lengths(list(last_windows.values())) > self.identity.max_tokens
            last_windows = {
                index: text.shift_window(1)
                for (index, text), more in zip(last_windows.items(), continues, strict=True)
                if more
            }
            counts[list(last_windows)] += 1
        return expand_windows(texts, counts), offsets_from_lengths(counts)


@dataclass(frozen=True, kw_only=True)
class PlanLatents:
    """Latents of one plan, ready to be read, and the cost of the extraction."""

    store: LatentStore
    columns: Columns
    """View -> layers that the plan selects."""

    texts_run: int
    """Number of texts that were run through the backbone, of two segments their windows; 0 if all were stored."""

    truncated: int
    """Number of texts that lost tokens to ``plan.max_tokens``; a text that is run in windows loses none."""

    seconds: float
