"""TODO: probes/metrics/cosines.py."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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
