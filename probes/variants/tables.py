"""Tables of a run folder, made of trained variants: predictions, breakdowns, confusion, training curves, latents.

The rows of ``metrics.csv`` are made by :mod:`permafrost.probes.variants.metric_rows`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.projection import project
from permafrost.probes.tasks.registry import BREAKDOWNS, PREDICTION_COLUMNS, row_labels, scorer_of
from permafrost.probes.training.best_state import History
from permafrost.probes.variants.trained_variant import TrainedVariant

BREAKDOWN_COLUMNS = ["variant", "split", "kind", "group", "metric", "value", "low", "high", "n"]

CONFUSION_COLUMNS = ["variant", "target", "label", "n"]

SHOWN_TEXTS = 500
"""Number of texts in the 3-D figures of the latents."""


def breakdown_table(variant: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Return metrics by group of rows, such as class, entity type or question word; one row per split and metric.

    Each is the mean over seeds, with a bootstrap interval over rows. Train is left out. Scores have no groups: the
    table is empty.
    """
    rows: list[dict[str, Any]] = []
    for split in corpus.splits:
        if split != "train" and corpus.kind in BREAKDOWNS:
            scorer = scorer_of(corpus, split)
            answers = [scorer.decode(output) for output in variant.outputs(split)]
            for breakdown in BREAKDOWNS[corpus.kind]:
                rows += [
                    {"variant": variant.variant, "split": split, "kind": kind, "group": group, "metric": metric}
                    | asdict(measured)
                    for kind, group, metric, measured in breakdown(scorer, answers, corpus)
                ]
    return pd.DataFrame(rows, columns=BREAKDOWN_COLUMNS)


def confusion_table(variant: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Return how often each class (target) is predicted as each class (label) on the scored split.

    If seeds predict by themselves, the first one is counted. Scores and answers have no classes: the table is empty.
    """
    if corpus.kind not in ("class", "tags"):
        return pd.DataFrame(columns=CONFUSION_COLUMNS)
    scorer, names = scorer_of(corpus, corpus.test_split), np.array(corpus.labels)
    spans = scorer.rows.spans
    targets = scorer.rows.targets if spans is None else spans.codes
    predicted = scorer.decode(variant.outputs(corpus.test_split)[0])
    pairs = pd.DataFrame({"target": names[targets.astype(np.int64)], "label": names[predicted.astype(np.int64)]})
    counts = pairs.value_counts(sort=False).rename("n").reset_index()
    return counts.assign(variant=variant.variant)[CONFUSION_COLUMNS]


def prediction_table(variant: TrainedVariant, corpus: Corpus, split: str) -> pd.DataFrame:
    """Return the predictions of every seed for a split, one row per row or word; once if seeds predict together."""
    scorer = scorer_of(corpus, split)
    frames = []
    for index, output in enumerate(variant.outputs(split)):
        seed = pd.NA if variant.average else variant.seeds[index]
        calibration = variant.calibrations[index] if variant.calibrations else None
        frame = pd.DataFrame(PREDICTION_COLUMNS[corpus.kind](output, scorer, corpus, calibration))
        frames.append(frame.assign(seed=pd.array([seed] * len(frame), "Int64")))
    return pd.concat(frames, ignore_index=True)


def training_table(variants: Sequence[TrainedVariant]) -> pd.DataFrame:
    """Return loss and validation metric by epoch, of every variant, seed and phase (training, pretraining)."""
    rows: list[dict[str, Any]] = []
    for variant in variants:
        for seed, history, encoder in zip(variant.seeds, variant.histories, variant.pretrained, strict=True):
            phases = [("training", [history])] + ([("pretraining", encoder.histories)] if encoder else [])
            for phase, histories in phases:
                rows += [
                    {"variant": variant.variant, "seed": seed, "phase": phase, "epoch": epoch + 1}
                    | _epoch_means(histories, epoch)
                    for epoch in range(max(len(history.losses) for history in histories))
                ]
    return pd.DataFrame(rows)


def _epoch_means(histories: Sequence[History], epoch: int) -> dict[str, float]:
    """Return the mean loss and metric of an epoch, over the layers that were not stopped before it."""
    learning = [history for history in histories if epoch < len(history.losses)]
    return {
        "loss": float(np.mean([history.losses[epoch] for history in learning])),
        "value": float(np.mean([history.values[epoch] for history in learning])),
    }


def epochs_table(variants: Sequence[TrainedVariant]) -> pd.DataFrame:
    """Return all validation metrics by epoch, 0 before training, of the variants that fine-tune blocks."""
    return pd.DataFrame(
        [
            {"variant": variant.variant, "seed": seed} | figures
            for variant in variants
            for seed, log in zip(variant.seeds, variant.logs, strict=False)
            for figures in log.figures
        ]
    )


def autoencoder_table(variants: Sequence[TrainedVariant]) -> pd.DataFrame:
    """Return how well each layer was reconstructed, of the variants whose encoders were pretrained."""
    return pd.DataFrame(
        [
            {"variant": variant.variant, "seed": seed} | asdict(layer)
            for variant in variants
            for seed, encoder in zip(variant.seeds, variant.pretrained, strict=True)
            if encoder
            for layer in encoder.layers
        ]
    )


def latent_table(inputs: ProbeInputs, variant: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Return 3-D coordinates of up to 500 validation texts, in the first, middle and last layer of a variant."""
    rows = corpus.split("validation")
    shown = rows.texts[: SHOWN_TEXTS // rows.texts.shape[1]]
    texts = shown.reshape(-1)
    labels = np.repeat(row_labels(corpus, rows.select(np.arange(len(shown)))), rows.texts.shape[1])
    frames = []
    for layer in sorted({0, len(variant.columns) // 2, len(variant.columns) - 1}):
        column = variant.columns[layer]
        points = project(inputs.pooled(layer, texts)[:, : inputs.widths[layer]].numpy())
        frames.append(
            points.assign(
                plan=column.plan,
                view=column.view,
                layer=column.layer,
                label=[labels[index] for index in points.index],
                text=[corpus.texts[texts[index]] for index in points.index],
            )
        )
    return pd.concat(frames, ignore_index=True)
