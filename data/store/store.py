"""The latent store: a folder of immutable shards, appended to by any number of processes, then only read.

There is no manifest and no lock: the set of shards *is* the index. A text that two processes wrote counts once, and
the same one of them counts for every reader.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.ragged import Counts, TokenLatents, bounds
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import TOKENS, WHOLE, CapturePlan, Columns, check_view
from permafrost.data.store.shard import SUFFIX, Block, Latents, Shard, write_shard
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.store.token_reader import ShardRows, TokenReader
from permafrost.data.text import Segments, Text, short, spread

Place = tuple[NDArray[np.int64], NDArray[np.int64]]


def text_keys(texts: Sequence[Text]) -> NDArray[np.bytes_]:
    """``[text]``: 16 bytes that stand for each text; the windows of a text differ in theirs."""
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(_spelt(text)) for text in texts), f"S{KEY_BYTES}")


def _spelt(text: Text) -> bytes:
    """Bytes of which no two texts have the same: 255 is in no string's UTF-8."""
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    parts = json.dumps([text.first, text.second, text.window], ensure_ascii=False)
    return b"\xff" + parts.encode("utf-8", "surrogatepass")


class LatentStore:
    """Latents of one identity, ``<cache>/<backbone>/<identity>/``."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path, self.identity = path, identity
        self._shards: dict[str, Shard] = {}
        self._indices: dict[tuple[str, ...], tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64]]] = {}

    @classmethod
    def at(cls, cache: Path, backbone: str, identity: Identity) -> "LatentStore":
        """The store that ``identity`` has in ``cache``; it need not hold anything yet."""
        return cls(cache / folder_name(backbone) / identity.name, identity)

    @classmethod
    def open(cls, path: Path) -> "LatentStore":
        """An existing store, by the identity in its shards; the folder's name says which identity that must be."""
        for shard in sorted(path.glob(f"*{SUFFIX}")):
            identity = Shard(shard).identity
            if identity.name != path.resolve().name:
                raise ShardError(shard, "it belongs to another store")
            return cls(path, identity)
        raise StoreError(f"{path} holds no shard.")

    @property
    def shards(self) -> list[Shard]:
        """Every committed shard, by name. Other processes may add some at any time.

        Raises:
            ShardError: one of them is damaged or belongs to another store.
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
        """Layers that the backbone has, whether or not they are held."""
        return int(self.shards[0].provenance["layers"])

    def append(self, block: Block, provenance: Mapping[str, Any], check: Callable[[Path], None] | None = None) -> Path:
        """Commit texts with their latents as one shard, unless ``check`` of the file raises."""
        return write_shard(self.path, self.identity, provenance, block, check)

    def held(
        self, keys: NDArray[np.bytes_], view: str, layer: int, shards: Sequence[Shard] | None = None
    ) -> NDArray[np.bool_]:
        """``[text]``: which texts have this column, in any shard or in one of those given."""
        return self._locate(keys, _having(self.shards if shards is None else shards, view, layer))[0] >= 0

    def missing(self, keys: NDArray[np.bytes_], columns: Columns) -> list[tuple[dict[str, tuple[int, ...]], Any]]:
        """What to run: groups of texts that lack the same columns, as (columns, indices of texts)."""
        wanted = [(view, layer) for view, layers in columns.items() for layer in layers]
        shards = self.shards
        lacking = np.zeros((len(keys), len(wanted)), bool)
        answers: dict[tuple[str, ...], NDArray[np.bool_]] = {}
        for column, (view, layer) in enumerate(wanted):
            names = _names(_having(shards, view, layer))
            if names not in answers:
                answers[names] = self._locate(keys, [self._shards[name] for name in names])[0] < 0
            lacking[:, column] = answers[names]
        groups = []
        patterns, member = np.unique(lacking, axis=0, return_inverse=True)
        for group, pattern in enumerate(patterns):
            if pattern.any():
                lacks = [wanted[column] for column in np.flatnonzero(pattern)]
                views = sorted({view for view, _ in lacks})
                named = {view: tuple(layer for other, layer in lacks if other == view) for view in views}
                groups.append((named, np.flatnonzero(member.reshape(-1) == group)))
        return groups

    def read(self, texts: Sequence[Text], view: str, layers: Sequence[int]) -> Latents:
        """Latents of ``texts``, ``[layer, text, width]``, in the stored precision. Other layers are not read.

        Raises:
            SpecError: no shard holds this view.
            StoreError: a text or a layer is not in the store, or the view is not pooled.
            ShardError: a shard is damaged.
        """
        if view == TOKENS:
            raise StoreError("the view tokens has no latent of a text but one of each of its tokens: use read_tokens.")
        first, homes = self._homes(texts, view, layers)
        values = np.empty((len(layers), len(texts), first.width(view)), first.dtype(view))
        for index, (layer, home) in enumerate(zip(layers, homes, strict=True)):
            for place, shard in enumerate(home.shards):
                here = np.flatnonzero(home.places == place)
                if len(here):
                    values[index, here] = shard.layer(view, layer)[home.rows[here]]
        return values

    def read_tokens(self, texts: Sequence[Text], layers: Sequence[int]) -> TokenLatents:
        """Every token of ``texts`` in the view ``tokens``. Other layers are not read; no layers: ids and spans alone.

        Raises:
            SpecError: no shard holds this view.
            StoreError: a text or a layer is not in the store.
            ShardError: a shard is damaged.
        """
        return self.token_reader(texts, layers).rows(np.arange(len(texts)))

    def token_reader(self, texts: Sequence[Text], layers: Sequence[int]) -> TokenReader:
        """A reader of the view ``tokens`` that gives some of ``texts`` at a time; raises what :meth:`read_tokens` does.

        The shards that hold them are opened and their checksums verified here, once.
        """
        first, homes = self._homes(texts, TOKENS, layers)
        if homes:
            return TokenReader(first, homes[0], homes, layers)
        having = [shard for shard in self.shards if TOKENS in shard.columns]
        return TokenReader(first, self._home(texts, text_keys(texts), having, f"view {TOKENS}"), [], [])

    def _homes(self, texts: Sequence[Text], view: str, layers: Sequence[int]) -> tuple[Shard, list[ShardRows]]:
        """A shard that has the view, and for each layer where all texts are held; layers held alike share one."""
        shards = self.shards
        check_view(view, {name: None for shard in shards for name in shard.columns})
        keys = text_keys(texts)
        homes: dict[tuple[str, ...], ShardRows] = {}
        found = []
        for layer in layers:
            having = _having(shards, view, layer)
            names = _names(having)
            if names not in homes:
                homes[names] = self._home(texts, keys, having, f"view {view}, layer {layer}")
            found.append(homes[names])
        return next(shard for shard in shards if view in shard.columns), found

    def _home(self, texts: Sequence[Text], keys: NDArray[np.bytes_], shards: Sequence[Shard], what: str) -> ShardRows:
        places, rows = self._locate(keys, shards)
        if (places < 0).any():
            text = texts[int(np.argmax(places < 0))]
            raise StoreError(f"{self.path}: text {short(text)} has no latent of {what}.")
        return ShardRows(shards, places, rows)

    def lengths(self, texts: Sequence[Text]) -> NDArray[np.int32]:
        """Tokens of each text before it was cut, ``[text]``; of a window, as if it went on to the end of its text."""
        shards = self.shards
        places, rows = self._locate(text_keys(texts), shards)
        if (places < 0).any():
            raise StoreError(f"{self.path}: text {short(texts[int(np.argmax(places < 0))])} is not in the store.")
        lengths = np.empty(len(texts), np.int32)
        for place, shard in enumerate(shards):
            here = places == place
            lengths[here] = shard.lengths[rows[here]]
        return lengths

    def truncated(self, texts: Sequence[Text]) -> int:
        """How many of ``texts`` lost tokens to ``max_tokens``; one that is run in windows loses none.

        Raises:
            StoreError: a text is not in the store.
        """
        cut = [text for text in texts if self.identity.stride == WHOLE or isinstance(text, str)]
        return int((self.lengths(cut) > self.identity.max_tokens).sum()) if cut else 0

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Every text with its further windows, one after another, as stage one made them; no tokenizer is needed.

        A window that would have more than ``max_tokens`` tokens if it went on to the end is followed by another.

        Returns:
            the windows (a text of one segment, and one that fits, is its own), and ``[text + 1]``: where those of each
            text begin.

        Raises:
            StoreError: a text of two segments, or a window of one, is not in the store.
        """
        counts = np.ones(len(texts), np.int64)
        last = {index: text for index, text in enumerate(texts) if isinstance(text, Segments)}
        while self.identity.stride != WHOLE and last:
            goes_on = self.lengths(list(last.values())) > self.identity.max_tokens
            last = {index: text.later(1) for (index, text), more in zip(last.items(), goes_on, strict=True) if more}
            counts[list(last)] += 1
        return spread(texts, counts), bounds(counts)

    def columns(self) -> dict[str, tuple[int, ...]]:
        """View -> layers that any shard holds."""
        found: dict[str, set[int]] = {}
        for shard in self.shards:
            for view, layers in shard.columns.items():
                found.setdefault(view, set()).update(layers)
        return {view: tuple(sorted(layers)) for view, layers in sorted(found.items())}

    def _locate(self, keys: NDArray[np.bytes_], shards: Sequence[Shard]) -> Place:
        """For each key, which of ``shards`` holds it (-1: none) and in which row; the first shard by name counts."""
        if not shards:
            return np.full(len(keys), -1), np.zeros(len(keys), np.int64)
        held, place, row = self._index(shards)
        found = np.minimum(np.searchsorted(held, keys), len(held) - 1)
        return np.where(held[found] == keys, place[found], -1), row[found]

    def _index(self, shards: Sequence[Shard]) -> tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64]]:
        names = _names(shards)
        if names not in self._indices:
            held = np.concatenate([shard.keys for shard in shards])
            place = np.repeat(np.arange(len(shards)), [shard.texts for shard in shards])
            row = np.concatenate([np.arange(shard.texts) for shard in shards])
            order = np.argsort(held, kind="stable")
            self._indices[names] = held[order], place[order], row[order]
        return self._indices[names]


def find_store(cache: Path, plan: CapturePlan) -> LatentStore:
    """The store of ``plan`` by what its shards say of themselves: no weights and no tokenizer are read.

    Raises:
        StoreError: no store in ``cache`` fits the plan, or several do.
    """
    folder = cache / folder_name(plan.backbone)
    fitting: list[LatentStore] = []
    damaged: ShardError | None = None
    for path in sorted(folder.glob("*")):
        try:
            shards = sorted(path.glob(f"*{SUFFIX}"))
            if shards and _fits(Shard(shards[0]), plan):
                fitting.append(LatentStore.open(path))
        except ShardError as error:
            damaged = error if damaged is None or isinstance(damaged, OtherVersionError) else damaged
    if not fitting and damaged:
        raise damaged
    if not fitting:
        raise StoreError(f"{folder} holds no latents of this plan; run 'extract' with the same recipe first.")
    if len(fitting) > 1:
        names = ", ".join(store.path.name for store in fitting)
        raise StoreError(
            f"{folder} holds {len(fitting)} stores of this plan ({names}): they differ in "
            f"{', '.join(fitting[0].identity.differences(fitting[1].identity))}. Remove one with 'cache prune "
            "--whole', or 'run', which reads the weights to know."
        )
    return fitting[0]


def _fits(shard: Shard, plan: CapturePlan) -> bool:
    mine, about = shard.identity, shard.provenance
    said = {"backbone": plan.backbone, "tokenizer": plan.tokenizer, "init": init_name(plan)}
    if plan.revision:
        said["revision"] = plan.revision
    wanted = {
        "template": plan.template,
        "rewording": json.dumps(plan.rewording),
        "max_tokens": plan.max_tokens,
        "stored_dtype": plan.stored_dtype,
        "final_norm": plan.final_norm,
        "stride": plan.overlap,
        "compute_dtype": mine.compute_dtype if plan.compute_dtype == "auto" else plan.compute_dtype,
    }
    return all(about.get(key) == value for key, value in said.items()) and all(
        getattr(mine, key) == value for key, value in wanted.items()
    )


def init_name(plan: CapturePlan) -> str:
    """How the weights of a plan came to be, as shards record it."""
    return plan.init if plan.init == "pretrained" else f"random, seed {plan.init_seed}"


def folder_name(backbone: str) -> str:
    """A backbone's name as a folder: a hub id or a path keeps its last two parts."""
    parts = [part for part in backbone.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "--".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts[-2:]) or "_"


def _having(shards: Sequence[Shard], view: str, layer: int) -> list[Shard]:
    return [shard for shard in shards if layer in shard.columns.get(view, ())]


def _names(shards: Sequence[Shard]) -> tuple[str, ...]:
    return tuple(shard.path.name for shard in shards)
