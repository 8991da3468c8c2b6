"""Projection of latents to three dimensions by PCA and t-SNE, for scatter plots."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_TEXTS = 1000
"""Maximum number of texts that are projected; of more texts, a random sample of this size is."""

MIN_TEXTS_FOR_TSNE = 5
"""Minimum number of texts for t-SNE, whose perplexity is a third of their number and must exceed 1."""

FEW_TEXTS = 20
"""Number of texts below which the distances of t-SNE mean little, which captions then say."""

EXAGGERATION = 4.0
"""Early exaggeration of t-SNE, as in the paper; scikit-learn's default of 12 collapses data without clusters.

Source: van der Maaten and Hinton, "Visualizing Data using t-SNE" (2008), section 3.4.
"""


def project(latents: NDArray[np.float32]) -> pd.DataFrame:
    """Project latents to three dimensions by PCA and, for at least 5 texts, by t-SNE; deterministic.

    Args:
        latents: ``[text, width]``; texts with a non-finite value are left out.

    Returns:
        columns ``method`` (``pca`` or ``tsne``), ``x, y, z``; the index ``row`` is the row of ``latents``.
    """
    from sklearn.decomposition import PCA  # slow to import, and needed once a model is trained
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows = np.flatnonzero(np.isfinite(latents).all(1))
    if len(rows) > MAX_TEXTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_TEXTS, replace=False))
    values = latents[rows].astype(np.float64)
    index = pd.Index(rows, name="row")
    if len(rows) < 2 or not np.ptp(values, axis=0).any():
        return _frame("pca", np.zeros((len(rows), 3)), index)
    with threadpool_limits(limits=1):  # the same order of sums on every machine
        points = PCA(min(3, *values.shape), svd_solver="full").fit_transform(values)
        points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
        frames = [_frame("pca", points, index)]
        if len(rows) >= MIN_TEXTS_FOR_TSNE:
            initial = (points / points[:, 0].std() * 1e-4).astype(np.float32)
            learning_rate = max(len(rows) / 100, 3.0)  # scikit-learn's minimum of 50 scatters few points
            perplexity = min(30.0, (len(rows) - 1) / 3)
            tsne = TSNE(
                3, perplexity=perplexity, learning_rate=learning_rate, init=initial, max_iter=500, random_state=0,
                early_exaggeration=EXAGGERATION,
            )  # fmt: skip
            frames.append(_frame("tsne", tsne.fit_transform(values), index))
    return pd.concat(frames)


def _frame(method: str, points: NDArray[Any], index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({"method": method, **dict(zip("xyz", points.T, strict=True))}, index=index)
