"""The latent store: a folder of immutable shards, appended to by any number of processes, then only read.

There is no manifest and no lock: the set of shards is the index. A text that two processes wrote is read from the same
shard by every reader.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import Counts, TokenLatents, offsets_from_lengths
from permafrost.data.spec import SpecError, nearest
from permafrost.data.store.bfloat16 import decode
from permafrost.data.store.block import Block, Latents, write_shard
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.key_index import KeyIndex, Keys, TextLocations, key_name, text_keys
from permafrost.data.store.plan import CHAT, TOKENS, CapturePlan, Columns, union_of_columns
from permafrost.data.store.shard import Shard
from permafrost.data.store.shard_layout import SUFFIX
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Segments, Text, expand_windows, quote_text


class LatentStore:
    """A store of latents of one identity, in the folder ``<cache>/<backbone>/<identity>/``.

    Latents are read by text, view and layer.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path, self.identity = path, identity
        self._shards: dict[str, Shard] = {}
        self._key_index = KeyIndex()

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
        for shard_path in sorted(path.glob(f"*{SUFFIX}")):
            identity = Shard(shard_path).identity
            if identity.name != path.resolve().name:
                raise ShardError(shard_path, "it belongs to another store")
            return cls(path, identity)
        raise StoreError(f"{path} holds no shard.")

    @property
    def shards(self) -> list[Shard]:
        """Every committed shard, by name. Other processes may add some at any time.

        Raises:
            ShardError: a shard is damaged or belongs to another store.
        """
        for path in sorted(self.path.glob(f"*{SUFFIX}")):
            if path.name not in self._shards:
                shard = Shard(path)
                if shard.identity != self.identity:
                    raise ShardError(path, f"it differs in {', '.join(shard.identity.differences(self.identity))}")
                self._shards[path.name] = shard
        return [self._shards[name] for name in sorted(self._shards)]

    @property
    def layers(self) -> int:
        """Number of layers of the backbone, stored or not."""
        return int(self.shards[0].provenance["layers"])

    def append(self, block: Block, provenance: Mapping[str, Any], check: Callable[[Path], None] | None = None) -> Path:
        """Commit texts with their latents as one shard, as :func:`write_shard`."""
        return write_shard(self.path, self.identity, provenance, block, check)

    def columns(self) -> dict[str, tuple[int, ...]]:
        """Return the stored columns: view -> layers that any shard holds."""
        return union_of_columns(shard.columns for shard in self.shards)

    def has_column(self, keys: Keys, view: str, layer: int, shards: Sequence[Shard] | None = None) -> NDArray[np.bool_]:
        """Return which texts some shards (None: all) store with a layer of a view, ``[text]``."""
        searched = self.shards if shards is None else shards
        return next(self._key_index.locate_columns(keys, searched, [(view, layer)])).found

    def missing_columns(self, keys: Keys, columns: Columns) -> list[tuple[dict[str, tuple[int, ...]], Any]]:
        """Return groups of texts that lack the same columns, as (columns, indices of texts)."""
        wanted = [(view, layer) for view, layers in columns.items() for layer in layers]
        lacking = np.zeros((len(keys), len(wanted)), bool)
        for column, locations in enumerate(self._key_index.locate_columns(keys, self.shards, wanted)):
            lacking[:, column] = ~locations.found
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
        for index, (layer, locations) in enumerate(zip(layers, locations_of_layers, strict=True)):
            for shard_index, shard in enumerate(locations.shards):
                selected = np.flatnonzero(locations.shard_indices == shard_index)
                if len(selected):
                    values[index, selected] = decode(shard.layer(view, layer)[locations.rows[selected]])
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
        shards = [shard for shard in self.shards if TOKENS in shard.columns]
        index = self._key_index.locate(keys, shards)
        self._check_found(texts, index, f"has no latent of view {TOKENS}")
        return TokenReader(example, index, [], [])

    def locate_layers(
        self, keys: Keys, texts: Sequence[Text] | None, view: str, layers: Sequence[int]
    ) -> tuple[Shard, list[TextLocations]]:
        """Return a shard that holds the view, and the locations of all texts for each layer."""
        shards = self.shards
        example = next((shard for shard in shards if view in shard.columns), None)
        if example is None:
            known = {name for shard in shards for name in shard.columns}
            raise SpecError(f"view '{view}' is not in this store. {nearest(view, known)}")
        columns = [(view, layer) for layer in layers]
        locations_of_layers = []
        for layer, locations in zip(layers, self._key_index.locate_columns(keys, shards, columns), strict=True):
            locations_of_layers.append(locations)
            self._check_found(
                keys if texts is None else texts, locations, f"has no latent of view {view}, layer {layer}"
            )
        return example, locations_of_layers

    def _check_found(self, texts: Sequence[Text] | Keys, locations: TextLocations, problem: str) -> None:
        if not locations.found.all():
            text = texts[int(np.argmin(locations.found))]
            shown = f"of the key {key_name(text)}" if isinstance(text, bytes) else quote_text(text)
            raise StoreError(f"{self.path}: text {shown} {problem}.")

    def lengths(self, texts: Sequence[Text]) -> NDArray[np.int32]:
        """Return the number of tokens of each text before truncation, ``[text]``; of a window, up to the text's end.

        Raises:
            StoreError: a text is not in the store.
        """
        locations = self._key_index.locate(text_keys(texts, self.identity.in_windows), self.shards)
        self._check_found(texts, locations, "is not in the store")
        lengths = np.empty(len(texts), np.int32)
        for shard_index, shard in enumerate(locations.shards):
            selected = locations.shard_indices == shard_index
            lengths[selected] = shard.lengths[locations.rows[selected]]
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


def folder_name(backbone: str) -> str:
    """Return the folder name of a backbone: the last two parts of a hub id or a path."""
    parts = [part for part in backbone.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "--".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts[-2:]) or "_"


def find_store(cache: Path, plan: CapturePlan) -> LatentStore:
    """Return the store of ``plan``.

    Raises:
        StoreError: no store in ``cache`` matches the plan, or several do.
        ShardError: no store matches, and a shard is damaged.
    """
    folder = cache / folder_name(plan.backbone)
    matching: list[LatentStore] = []
    first_error: ShardError | None = None
    for path in sorted(folder.glob("*")):
        try:
            shards = sorted(path.glob(f"*{SUFFIX}"))
            if shards and _matches(Shard(shards[0]), plan):
                matching.append(LatentStore.open(path))
        except ShardError as error:
            first_error = error if first_error is None or isinstance(first_error, OtherVersionError) else first_error
    if not matching and first_error:
        raise first_error
    if not matching:
        also = ", or 'run', which finds those of the same template written out" if plan.template == CHAT else ""
        raise StoreError(f"{folder} holds no latents of this plan; run 'extract' with the same recipe first{also}.")
    if len(matching) > 1:
        names = ", ".join(store.path.name for store in matching)
        differences = matching[0].identity.differences(matching[1].identity)
        dtypes = [f"plan.{key}" for key in differences if key in ("compute_dtype", "stored_dtype")]
        raise StoreError(
            f"{folder} holds {len(matching)} stores of this plan ({names}): they differ in {', '.join(differences)}. "
            + (f"Set {' and '.join(dtypes)} to that of one of them, remove" if dtypes else "Remove")
            + " one with 'permafrost cache prune --whole', or 'run', which reads the weights to know."
        )
    return matching[0]


def init_name(plan: CapturePlan) -> str:
    """Return the initialisation of the weights of a plan, as shards record it."""
    return plan.init if plan.init == "pretrained" else f"random, seed {plan.init_seed}"


def _matches(shard: Shard, plan: CapturePlan) -> bool:
    names = {"backbone": plan.backbone, "adapter": plan.adapter, "tokenizer": plan.tokenizer, "init": init_name(plan)}
    if plan.revision:
        names["revision"] = plan.revision
    if plan.template == CHAT:  # which only the tokenizer's files tell
        names |= {"template": plan.template, "system": plan.system}
    provenance = shard.provenance
    is_named = all(provenance.get(key, "") == value for key, value in names.items())
    return is_named and shard.identity.fits(plan, provenance.get("longest", plan.token_limit))
