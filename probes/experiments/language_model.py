"""Pretraining of a recipe's own language model, which the recipe names as backbone ``language``.

The function that pretrains is passed in. A pretraining leaves a model folder, and a run folder with its losses.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from permafrost.data.corpora.records import HELD_OUT
from permafrost.data.errors import InputError, PermafrostError
from permafrost.data.language.record import LanguageModel
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.progress import Progress
from permafrost.data.streams.documents import open_documents
from permafrost.probes.config.load import (
    check_language_model,
    names_own_backbone,
    resolve_language_model,
)
from permafrost.probes.config.names import RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.bootstrap import Estimate, bootstrap_ratio
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.run_folder import RunFolder
from permafrost.probes.runs.write import RunWriter

PRETRAINING_SUFFIX = "-pretraining"
"""Suffix of the run's name, after the name of the recipe."""

AVERAGED_STEPS = 100
"""Number of steps at the beginning and at the end whose mean loss is recorded."""

IDENTIFYING_FACTS = ("model", "steps", f"loss_last_{AVERAGED_STEPS}", "loss_held_out", "seconds")
"""Facts that two different pretrainings do not have in common."""

Pretrain = Callable[[LanguageSpec, Iterable[str], Path, Progress, str], LanguageModel]
"""Pretrain a model on documents, on a device, and write it to a folder; a model that exists is compared with the spec
and loaded."""


@dataclass(frozen=True)
class PretrainingResult:
    """A pretrained language model and its run folder."""

    model: LanguageModel
    path: Path | None
    """The run folder that was written; None if one records the model already, or if none was requested."""

    @cached_property
    def held_out(self) -> Estimate:
        """Loss on held-out text, with a bootstrap interval over blocks."""
        sums, counts = np.array(self.model.guessed, float).reshape(-1, 2).T
        resampled = bootstrap_ratio([(sums, counts)])
        value = np.nan if self.model.loss is None else self.model.loss
        return resampled.estimate() if resampled else Estimate(value, None, None, self.model.held_out)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the console and for ``record.json``."""
        model = self.model
        losses = [step["loss"] for step in model.losses]
        return {
            "model": str(model.folder),
            "steps": len(losses),
            f"loss_first_{AVERAGED_STEPS}": float(np.mean(losses[:AVERAGED_STEPS])),
            f"loss_last_{AVERAGED_STEPS}": float(np.mean(losses[-AVERAGED_STEPS:])),
            "loss_held_out": model.loss,
            "loss_held_out_low": self.held_out.low,
            "loss_held_out_high": self.held_out.high,
            "perplexity": model.perplexity,
            "parameters": model.parameters,
            "documents": model.documents,
            "blocks": model.blocks,
            "blocks_held_out": model.held_out,
            "seconds": model.seconds,
        }


def run_pretraining(
    name: str, recipe: Recipe, runs: Path | None, progress: Progress, pretrain: Pretrain
) -> PretrainingResult:
    """Pretrain the language model of a recipe; a model that exists is left unchanged, with a note.

    Args:
        runs: where the run folder is written, if none records the model yet, as after a kill; None writes none.

    Raises:
        InputError: there is nothing to pretrain, the text cannot be read, or something in the recipe is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    recipe = resolve_language_model(name, recipe)
    spec = recipe.language
    check_language_model(name, recipe)
    folder = Path(spec.folder)
    exists = folder.exists()
    model = pretrain(spec, open_documents(spec), folder, progress, recipe.device)
    if exists:
        held_out = f", perplexity {model.perplexity:.2f} on held-out text" if model.perplexity else ""
        progress.note(f"{folder} is there already{held_out}: nothing to pretrain")
    result = PretrainingResult(model, None)
    if runs is None or _has_run(runs, result):
        return result
    facts = result.facts | {"text": spec.corpus, "compute_dtype": model.origin["compute_dtype"]}
    tables = {"losses": pd.DataFrame(model.losses), "metrics": metrics_frame(_metric_rows(result, spec))}
    writer = RunWriter(runs, f"{name}{PRETRAINING_SUFFIX}", recipe, "pretraining")
    path = writer.write({"pretraining": facts, "seconds": {"all": model.seconds}}, tables)
    return PretrainingResult(model, path)


def with_own_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress, pretrain: Pretrain) -> Recipe:
    """Return the recipe with the folder of its own language model as backbone, wherever it names ``language``.

    The model is pretrained first if the recipe names it; ``runs`` is as of :func:`run_pretraining`.

    Raises:
        InputError: as of :func:`run_pretraining`.
    """
    changed = resolve_language_model(name, recipe)
    if names_own_backbone(recipe):
        run_pretraining(name, changed, runs, progress, pretrain)
    return changed


def _has_run(runs: Path, result: PretrainingResult) -> bool:
    """Return whether a run folder records this model, and not another one that was in its place before."""
    for path in runs.glob(f"*{PRETRAINING_SUFFIX}-*/{RECORD}"):
        try:
            facts = RunFolder(path.parent, InputError).record.get("pretraining")
        except PermafrostError:  # a run of another version, or one that is being removed or is damaged
            continue
        if isinstance(facts, dict) and all(facts.get(name) == result.facts[name] for name in IDENTIFYING_FACTS):
            return True
    return False


def _metric_rows(result: PretrainingResult, spec: LanguageSpec) -> list[MetricRow]:
    """Return the mean loss at the end of the training, and loss and perplexity, its exponential, on held-out text."""
    loss = result.held_out
    rows = min(AVERAGED_STEPS, len(result.model.losses)) * spec.batch_rows
    last = Estimate(result.facts[f"loss_last_{AVERAGED_STEPS}"], None, None, rows)
    measured = [("train", "loss", last)]
    if result.model.loss is not None:
        low, high = (None if end is None else float(np.exp(end)) for end in (loss.low, loss.high))
        perplexity = Estimate(float(np.exp(loss.value)), low, high, loss.n)
        measured += [(HELD_OUT, "loss", loss), (HELD_OUT, "perplexity", perplexity)]
    return [
        MetricRow(
            variant=spec.objective,
            backbone=str(result.model.folder),
            task="language",
            split=split,
            metric=metric,
            **asdict(figure),
            seed=spec.seed,
        )
        for split, metric, figure in measured
    ]
