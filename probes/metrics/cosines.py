"""Pairwise cosine similarity of sentences: as a matrix, and as a table with one row per pair."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def cosine_matrix(latents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine similarity of every pair of rows.

    Args:
        latents: ``[sentence, width]``; the cosine of a zero row with any other row is 0.

    Returns:
        ``[sentence, sentence]``, symmetric, ones on its diagonal.
    """
    values = latents.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(norms > 0, norms, 1)
    matrix = np.clip(unit @ unit.T, -1, 1)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


def pair_table(matrices: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Return the similarities as a table of pairs.

    Args:
        matrices: backbone -> ``[sentence, sentence]``.

    Returns:
        columns ``backbone, first, second, cosine``: each pair once, ``first < second``, sentences counted from 1.
    """
    frames = []
    for backbone, matrix in matrices.items():
        first, second = np.triu_indices(len(matrix), 1)
        pairs = {"first": first + 1, "second": second + 1, "cosine": matrix[first, second]}
        frames.append(pd.DataFrame({"backbone": backbone, **pairs}))
    return pd.concat(frames, ignore_index=True)


def matrix_from_pairs(rows: pd.DataFrame, backbone: str, sentences: int) -> NDArray[np.float64]:
    """Return the matrix ``[sentence, sentence]`` of one backbone from its pairs; NaN if a pair is missing."""
    of_backbone = rows[rows["backbone"] == backbone]
    first, second = (of_backbone[name].to_numpy(dtype=int) - 1 for name in ("first", "second"))
    matrix = np.full((sentences, sentences), np.nan)
    np.fill_diagonal(matrix, 1)
    matrix[first, second] = matrix[second, first] = of_backbone["cosine"]
    return matrix
