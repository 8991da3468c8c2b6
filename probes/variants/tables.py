"""Tables of a run folder, made of trained variants: predictions, breakdowns, confusion, training curves, latents.

The rows of ``metrics.csv`` are made by :mod:`permafrost.probes.variants.metric_rows`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.skipped import SkippedRow
from permafrost.data.device.transfer import to_numpy
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.projection import project
from permafrost.probes.variants.trained_variant import TrainedTask, TrainedVariant

BREAKDOWN_COLUMNS = ["variant", "split", "kind", "group", "metric", "value", "low", "high", "n"]

CONFUSION_COLUMNS = ["variant", "target", "label", "n"]

SHOWN_TEXTS = 500
"""Number of texts in the 3-D figures of the latents."""


def variant_tables(variants: Sequence[TrainedVariant]) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that are about all its variants, by name.

    Loss and validation metric by epoch, of every seed, task and phase (training, pretraining); all metrics by epoch;
    conflicts of gradients; what was frozen; how well autoencoders reconstruct each layer.
    """
    rows = {
        "training": [
            row
            for variant in variants
            for row in (*_log_rows(variant, "losses", phase="training"), *_history_rows(variant))
        ],
        "epochs": [row for variant in variants for row in _log_rows(variant, "figures")],
        "conflicts": [row for variant in variants for row in _log_rows(variant, "conflicts")],
        "frozen": [row for variant in variants for row in _log_rows(variant, "frozen")],
        "autoencoder": [row for variant in variants for row in _autoencoder_rows(variant)],
    }
    return {name: pd.DataFrame(lines) for name, lines in rows.items()}


def task_tables(selected: TrainedTask, compared: Sequence[TrainedTask]) -> dict[str, pd.DataFrame]:
    """Return the tables of one task by name: predictions of the selected variant, groups and confusion of several.

    Args:
        compared: the variants whose groups and confusion are shown; empty shows the groups of the selected one, whose
            predictions say what was confused.
    """
    return {
        "predictions": prediction_table(selected, selected.problem.corpus.test_split),
        "breakdown": pd.concat([breakdown_table(variant) for variant in compared or [selected]]),
        "confusion": pd.concat([pd.DataFrame(), *map(confusion_table, compared)]),
    } | calibration_tables(selected)


def calibration_tables(variant: TrainedTask) -> dict[str, pd.DataFrame]:
    """Return the tables on the probabilities of a variant on the scored split; none if it has no probabilities."""
    problem, split = variant.problem, variant.problem.corpus.test_split
    tables = problem.task.calibration_tables(problem.scorer(split), variant.outputs(split), variant.calibrations)
    about = {"variant": variant.variant, "split": split}
    return {name: pd.DataFrame([about | row for row in rows]) for name, rows in tables.items()}


def breakdown_table(variant: TrainedTask) -> pd.DataFrame:
    """Return metrics by group of rows, such as class, entity type or question word; one row per split and metric.

    Each is the mean over seeds, with a bootstrap interval over rows. Train is left out. Scores have no groups: the
    table is empty.
    """
    problem = variant.problem
    rows = [
        {"variant": variant.variant, "split": split, "kind": kind, "group": group, "metric": metric} | asdict(measured)
        for split in problem.corpus.splits
        if split != "train"
        for kind, group, metric, measured in problem.task.breakdown(problem.scorer(split), variant.decoded(split))
    ]
    return pd.DataFrame(rows, columns=BREAKDOWN_COLUMNS)


def confusion_table(variant: TrainedTask) -> pd.DataFrame:
    """Return how often each class (target) is predicted as each class (label) on the scored split.

    If seeds predict by themselves, the first one is counted. Other tasks than classes and tags have an empty table.
    """
    problem, split = variant.problem, variant.problem.corpus.test_split
    names = problem.task.confusion(problem.scorer(split), variant.decoded(split)[0])
    if names is None:
        return pd.DataFrame(columns=CONFUSION_COLUMNS)
    pairs = pd.DataFrame({"target": names[0], "label": names[1]})
    counts = pairs.value_counts(sort=False).rename("n").reset_index()
    return counts.assign(variant=variant.variant)[CONFUSION_COLUMNS]


def prediction_table(variant: TrainedTask, split: str) -> pd.DataFrame:
    """Return the predictions of every seed for a split, one row per row or word; once if seeds predict together."""
    problem, frames = variant.problem, []
    for index, (output, calibration) in enumerate(zip(variant.outputs(split), variant.calibrations, strict=True)):
        seed = pd.NA if variant.average else variant.seeds[index]
        frame = pd.DataFrame(problem.task.prediction_columns(output, problem.scorer(split), calibration))
        frames.append(frame.assign(seed=pd.array([seed] * len(frame), "Int64")))
    return pd.concat(frames, ignore_index=True)


def skipped_table(corpora: Iterable[Corpus]) -> pd.DataFrame:
    """Return the rows that were left out of some corpora: the place of each, the reason, and what is wrong with it."""
    distinct = {id(corpus): corpus for corpus in corpora}.values()
    rows = [{"corpus": corpus.name} | row._asdict() for corpus in distinct for row in corpus.skipped]
    return pd.DataFrame(rows, columns=["corpus", *SkippedRow._fields])


def _log_rows(variant: TrainedVariant, table: str, **columns: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of one table of a variant's training logs, each with its variant, seed and further columns."""
    for seed, log in variant.logs.items():
        for line in getattr(log, table):
            yield {"variant": variant.variant, "seed": seed} | columns | line


def _history_rows(variant: TrainedVariant) -> Iterator[dict[str, Any]]:
    """Yield loss and metric by epoch of a variant whose seeds, or layers, were trained independently of each other.

    An epoch has the means over the layers that were not stopped before it.
    """
    for trained in variant.tasks.values():
        for seed, history, encoder in zip(trained.seeds, trained.histories, trained.pretrained, strict=True):
            phases = [] if variant.logs else [("training", [history])]
            phases += [("pretraining", encoder.histories)] if encoder else []
            for phase, histories in phases:
                for epoch in range(max(len(history.losses) for history in histories)):
                    learning = [history for history in histories if epoch < len(history.losses)]
                    yield {
                        "variant": variant.variant,
                        "seed": seed,
                        "phase": phase,
                        "epoch": epoch + 1,
                        "loss": float(np.mean([history.losses[epoch] for history in learning])),
                        "value": float(np.mean([history.values[epoch] for history in learning])),
                    }


def _autoencoder_rows(variant: TrainedVariant) -> Iterator[dict[str, Any]]:
    """Yield how well each layer was reconstructed, if the encoders of a variant were pretrained."""
    for trained in variant.tasks.values():
        for seed, encoder in zip(trained.seeds, trained.pretrained, strict=True):
            for layer in encoder.layers if encoder else ():
                yield {"variant": variant.variant, "seed": seed} | asdict(layer)


def latent_table(inputs: ProbeInputs, variant: TrainedTask) -> pd.DataFrame:
    """Return 3-D coordinates of up to 500 validation texts, in the first, middle and last layer of a variant."""
    problem, corpus = variant.problem, variant.problem.corpus
    rows = corpus.split("validation")
    shown = rows.texts[: SHOWN_TEXTS // rows.texts.shape[1]]
    texts = shown.reshape(-1)
    labels = np.repeat(problem.task.row_labels(corpus, rows.select(np.arange(len(shown)))), rows.texts.shape[1])
    frames = []
    for layer in sorted({0, len(variant.columns) // 2, len(variant.columns) - 1}):
        column = variant.columns[layer]
        points = project(to_numpy(inputs.pooled(layer, texts)[:, : inputs.widths[layer]]))
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
