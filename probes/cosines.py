"""Cosines of sentences: which sentences are compared by which backbones, and the arithmetic. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.corpus import CorpusError
from data.files import read_table
from data.spec import SpecError, nearest
from data.text import fault

Pooling = Literal["mean", "cls"]
COLUMNS = ("sentence", "text")
"""What the column of sentences in a file may be called."""


@dataclass(frozen=True)
class SimilaritySpec:
    """Which sentences are compared, and how."""

    texts: tuple[str, ...] = ()
    """Two sentences or more, whose cosines are all that is measured; none, and the recipe trains probes."""

    backbones: tuple[str, ...] = ("minilm",)
    """Sentence encoders, named as in plan.backbone; one that cannot be had is left out where others remain."""

    pooling: Pooling = "mean"
    """mean over all tokens of the last layer, special ones too; or cls, its first token."""

    def __post_init__(self) -> None:
        if len(self.texts) == 1:
            raise SpecError(f"texts must be two sentences or more, got 1: {self.texts[0][:40]!r}.")
        for number, text in enumerate(self.texts, 1):
            if wrong := fault(text):
                raise SpecError(f"texts: sentence {number} {wrong}.")
        twice = [name for name in self.backbones if self.backbones.count(name) > 1]
        if twice:
            raise SpecError(f"backbones names '{twice[0]}' twice.")
        if not self.backbones:
            raise SpecError("backbones must name at least one.")


def asked(
    spec: SimilaritySpec, texts: Sequence[str] | None = None, backbones: Sequence[str] = (), pooling: str = ""
) -> SimilaritySpec:
    """``spec`` with other sentences, backbones or pooling, where they are given.

    Raises:
        SpecError: fewer than two sentences, an empty one, a backbone named twice, an unknown pooling.
    """
    texts = (texts,) if isinstance(texts, str) else texts
    backbones = (backbones,) if isinstance(backbones, str) else backbones
    if texts is not None and not texts:
        raise SpecError("similarity.texts must be two sentences or more, got none.")
    if pooling and pooling not in get_args(Pooling):
        raise SpecError(f"similarity.pooling = '{pooling}': {nearest(pooling, get_args(Pooling))}")
    try:
        return replace(
            spec,
            texts=spec.texts if texts is None else tuple(texts),
            backbones=tuple(backbones) or spec.backbones,
            pooling=pooling or spec.pooling,  # type: ignore[arg-type]
        )
    except SpecError as error:
        raise SpecError(f"similarity.{error}") from error


def read_sentences(path: Path) -> list[str]:
    """The sentences of a file: its column ``sentence`` or ``text``, or its lines.

    Raises:
        CorpusError: the file cannot be read, has neither column, or an empty sentence.
    """
    found: list[str] = []
    for place, fields in read_table(path):
        column = next((name for name in COLUMNS if name in fields), None)
        if column is None:
            raise CorpusError(f"{place}: expected the column {' or '.join(COLUMNS)}; found {', '.join(fields)}.")
        if wrong := fault(fields[column]):
            raise CorpusError(f"{place}: the sentence {wrong}.")
        found.append(fields[column])
    return found


def cosines(latents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of every pair of rows.

    Args:
        latents: ``[sentence, width]``; a row of zeros has the cosine 0 with all others.

    Returns:
        ``[sentence, sentence]``, symmetric, ones on its diagonal.
    """
    values = latents.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(lengths > 0, lengths, 1)
    table = np.clip(unit @ unit.T, -1, 1)
    table = (table + table.T) / 2
    np.fill_diagonal(table, 1)
    return table


def pairs(tables: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """``backbone, first, second, cosine``: each pair once, ``first < second``, sentences counted from 1."""
    frames = []
    for backbone, table in tables.items():
        first, second = np.triu_indices(len(table), 1)
        frames.append(
            pd.DataFrame(
                {"backbone": backbone, "first": first + 1, "second": second + 1, "cosine": table[first, second]}
            )
        )
    return pd.concat(frames, ignore_index=True)


def square(rows: pd.DataFrame, backbone: str, sentences: int) -> NDArray[np.float64]:
    """The whole table of one backbone, ``[sentence, sentence]``, from its pairs; nan where a pair is missing."""
    mine = rows[rows["backbone"] == backbone]
    first, second = (mine[name].to_numpy(dtype=int) - 1 for name in ("first", "second"))
    table = np.full((sentences, sentences), np.nan)
    np.fill_diagonal(table, 1)
    table[first, second] = table[second, first] = mine["cosine"]
    return table
