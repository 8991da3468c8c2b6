"""Rows of a corpus for an export: in the order of its files, with texts, target, split, and stored latents."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import PAIR, QUESTION, RANKED, SINGLE
from permafrost.data.digests import digest_of_stream
from permafrost.data.export.vectors import Tensor
from permafrost.data.plan.plan import Columns
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Segments

Values = Callable[[Corpus, Rows], list[Any]]
"""Function that returns the target of every row."""


def _scores(corpus: Corpus, rows: Rows) -> list[Any]:
    """Return scores in the unit of the corpus; relevances have none."""
    low, high = corpus.score_range or (0.0, 1.0)
    return list((rows.targets * (high - low) + low).tolist())


def _classes(corpus: Corpus, rows: Rows) -> list[Any]:
    return [corpus.labels[code] for code in rows.targets.tolist()]


def _label_sets(corpus: Corpus, rows: Rows) -> list[Any]:
    return [[corpus.labels[code] for code in np.flatnonzero(row)] for row in rows.targets]


def _spans(corpus: Corpus, rows: Rows) -> list[Any]:
    """Return the tagged words of each row, or its answers: start and end (exclusive) in characters."""
    assert rows.spans is not None
    spans, found = rows.spans, list[Any]()
    tags = [corpus.labels[code] for code in spans.codes] if corpus.labels else None
    for start, stop in zip(spans.offsets[:-1].tolist(), spans.offsets[1:].tolist(), strict=True):
        characters: list[dict[str, Any]] = [
            {"start": first, "end": end} for first, end in spans.characters[start:stop].tolist()
        ]
        if tags is not None:
            characters = [{**span, "tag": tag} for span, tag in zip(characters, tags[start:stop], strict=True)]
        found.append(characters)
    return found


_SPAN = [("start", pa.int64()), ("end", pa.int64())]

TARGET_COLUMNS: dict[str, tuple[pa.DataType, Values]] = {
    "score": (pa.float64(), _scores),
    "rank": (pa.float64(), _scores),
    "class": (pa.string(), _classes),
    "labels": (pa.list_(pa.string()), _label_sets),
    "tags": (pa.list_(pa.struct([*_SPAN, ("tag", pa.string())])), _spans),
    "answers": (pa.list_(pa.struct(_SPAN)), _spans),
}
"""Kind of target -> type and values of its column; kinds without a target have no column."""


class CorpusVectors:
    """Rows of a corpus with their latents in a store: a :class:`permafrost.data.export.vectors.VectorSource`."""

    def __init__(
        self, corpus: Corpus, splits: Sequence[str], store: LatentStore | None = None, columns: Columns | None = None
    ) -> None:
        """Put the rows in the order in which they were read.

        Args:
            corpus: as :func:`permafrost.data.readers.load.load_corpus` reads one from which nothing is learnt.
            splits: split of each row by its number.
            store: of the latents, with all texts of the corpus; None if only the rows are asked for.
            columns: view -> layers to export.
        """
        self.corpus, self._splits, self._store, self._columns = corpus, splits, store, dict(columns or {})
        self.names = _text_names(corpus)
        rows = corpus.split("train")
        assert rows.numbers is not None
        self._rows = rows.select(np.argsort(rows.numbers))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    @property
    def digest(self) -> str:
        """Digest of the texts, targets and splits of all rows."""
        return digest_of_stream([self.corpus.digest.encode(), *(f"{split}\n".encode() for split in self._splits)])

    @cached_property
    def tensors(self) -> Sequence[Tensor]:
        """A tensor for each view, and of two texts a row for each of them."""
        assert self._store is not None
        stored = self._store.identity.stored_dtype
        bits: Any = "float32" if stored == "int8" else stored  # exactly what it stands for
        return [
            Tensor(
                name=f"{prefix}{view}",
                layers=tuple(layers),
                rows=len(self),
                width=self._store.shard_with(view).width(view),
                bits=bits,
            )
            for prefix in self._prefixes
            for view, layers in self._columns.items()
        ]

    @property
    def _prefixes(self) -> list[str]:
        return [f"{name}_" for name in self.names] if self._rows.texts.shape[1] > 1 else [""]

    def read(self, start: int, stop: int) -> Mapping[str, NDArray[np.floating[Any]]]:
        """As :meth:`VectorSource.read`.

        Raises:
            StoreError: the store no longer holds a text.
            ShardError: a shard is damaged.
        """
        assert self._store is not None
        distinct, place = np.unique(self._rows.texts[start:stop], return_inverse=True)
        place = place.reshape(stop - start, -1)
        texts = [self.corpus.texts[index] for index in distinct]
        block = dict[str, NDArray[np.floating[Any]]]()
        for view, layers in self._columns.items():
            latents = self._store.read(texts, view, layers)
            block |= {f"{prefix}{view}": latents[:, place[:, side]] for side, prefix in enumerate(self._prefixes)}
        return block

    @cached_property
    def schema(self) -> pa.Schema:
        """As :attr:`VectorSource.schema`: the texts, the target if there is one, and the split."""
        fields = [pa.field(name, pa.string()) for name in self.names]
        if self.corpus.kind in TARGET_COLUMNS:
            fields.append(pa.field("target", TARGET_COLUMNS[self.corpus.kind][0]))
        return pa.schema([*fields, pa.field("split", pa.string())])

    def columns(self, start: int, stop: int) -> pa.Table:
        """As :meth:`VectorSource.columns`."""
        texts = [[self.corpus.texts[index] for index in side] for side in self._rows.texts[start:stop].T]
        if self.names == QUESTION:
            texts = [[getattr(text, part) for text in texts[0]] for part in ("first", "second")]
        arrays = [pa.array(side, pa.string()) for side in texts]
        rows = self._rows.select(np.arange(start, stop))
        if self.corpus.kind in TARGET_COLUMNS:
            target_type, values = TARGET_COLUMNS[self.corpus.kind]
            arrays.append(pa.array(values(self.corpus, rows), target_type))
        assert rows.numbers is not None
        arrays.append(pa.array([self._splits[number] for number in rows.numbers.tolist()], pa.string()))
        return pa.table(arrays, schema=self.schema)


def _text_names(corpus: Corpus) -> tuple[str, ...]:
    """Return the names of the columns of texts."""
    if isinstance(corpus.texts[0], Segments):
        return QUESTION
    if corpus.kind == "rank":
        return RANKED
    return PAIR if corpus.split("train").texts.shape[1] == 2 else SINGLE
