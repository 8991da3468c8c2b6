"""A recipe's own language model: pretrained where it is not there yet, and the backbone that the recipe calls language.

Pretraining itself is a callable that is handed in. It leaves a model folder, and a run folder that says how it went.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from permafrost.data.readers.plain_text import find_text, read_documents
from permafrost.data.spec import SpecError
from permafrost.probes.config.load import LANGUAGE, check_trains, names_own_backbone, with_folder
from permafrost.probes.config.names import RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.bootstrap import Measured, resample_ratio
from permafrost.probes.results.environment import environment
from permafrost.probes.results.metric_row import MetricRow, as_frame
from permafrost.probes.results.run_folder import RunFolder
from permafrost.probes.runs.write import RunContents, write_run

PRETRAINED = "-pretraining"
"""What the name of its run has behind that of the recipe."""

ENDS = 100
"""Steps at the beginning and at the end whose mean loss is told."""

TELLS_APART = ("model", "steps", f"loss_last_{ENDS}", "loss_held_out", "seconds")
"""Facts by which a record is of one pretraining and no other."""

Pretrain = Callable[[LanguageSpec, Sequence[str], Path, Progress], LanguageModel]
"""Pretrains a model on documents and leaves it in a folder; one that is there already is found to be the same."""


@dataclass(frozen=True)
class PretrainingResult:
    """A pretraining that is done."""

    model: LanguageModel
    path: Path | None
    """The run folder that was written; None where one tells of the model already, or none was asked for."""

    @cached_property
    def held_out(self) -> Measured:
        """The loss on held-out text, over its blocks resampled."""
        sums, counts = np.array(self.model.guessed, float).reshape(-1, 2).T
        drawn = resample_ratio([(sums, counts)])
        value = np.nan if self.model.loss is None else self.model.loss
        return drawn.measured() if drawn else Measured(value, None, None, self.model.held_out)

    @property
    def facts(self) -> dict[str, Any]:
        """What the screen and the record say of it."""
        model = self.model
        losses = [line["loss"] for line in model.losses]
        return {
            "model": str(model.folder),
            "steps": len(losses),
            f"loss_first_{ENDS}": float(np.mean(losses[:ENDS])),
            f"loss_last_{ENDS}": float(np.mean(losses[-ENDS:])),
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
    """Pretrain the language model of a recipe; one that is there already is left as it is, and said to be there.

    Args:
        runs: where a run folder tells of it; one that is missing, as after a kill, is written. None writes none.

    Raises:
        InputError: there is nothing to pretrain, the text cannot be read, or something in the recipe is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    recipe = with_folder(name, recipe)
    spec = recipe.language
    if not spec.corpus:
        raise SpecError(f"recipe '{name}' has no table [{LANGUAGE}] with a corpus: there is nothing to pretrain.")
    folder = Path(spec.folder)
    there = folder.exists()
    model = pretrain(spec, read_documents(find_text(spec.corpus), spec.lines), folder, progress)
    if there:
        held_out = f", perplexity {model.perplexity:.2f} on held-out text" if model.perplexity else ""
        progress.note(f"{folder} is there already{held_out}: nothing to pretrain")
    done = PretrainingResult(model, None)
    if runs is None or _told(runs, done):
        return done
    record = environment() | {
        "name": f"{name}{PRETRAINED}",
        "summary": recipe.summary,
        "pretraining": done.facts | {"text": spec.corpus, "compute_dtype": model.origin["compute_dtype"]},
        "seconds": {"all": model.seconds},
    }
    tables = {"losses": pd.DataFrame(model.losses), "metrics": as_frame(_rows(done, spec))}
    return PretrainingResult(
        model, write_run(runs, f"{name}{PRETRAINED}", RunContents(recipe=recipe, record=record, tables=tables))
    )


def with_own_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress, pretrain: Pretrain) -> Recipe:
    """The recipe with its own language model, pretrained by now, for every backbone that it calls language.

    ``runs`` is as of :func:`run_pretraining`.

    Raises:
        InputError: as of :func:`run_pretraining`; or the recipe does nothing but pretrain.
    """
    check_trains(name, recipe)
    found = with_folder(name, recipe)
    if names_own_backbone(recipe):
        run_pretraining(name, found, runs, progress, pretrain)
    return found


def _told(runs: Path, done: PretrainingResult) -> bool:
    """Whether a run folder tells of this model and no other that lay in its place."""
    for path in runs.glob(f"*{PRETRAINED}-*/{RECORD}"):
        try:
            told = RunFolder(path.parent, InputError).record.get("pretraining")
        except PermafrostError:  # a run of another version, or that somebody is taking away or has spoilt
            continue
        if isinstance(told, dict) and all(told.get(name) == done.facts[name] for name in TELLS_APART):
            return True
    return False


def _rows(done: PretrainingResult, spec: LanguageSpec) -> list[MetricRow]:
    """The mean loss at the end of the training, and on held-out text, whose exponential is the perplexity."""
    facts, loss = done.facts, done.held_out
    result = min(ENDS, len(done.model.losses)) * spec.batch_rows
    found = [("train", "loss", Measured(facts[f"loss_last_{ENDS}"], None, None, result))]
    if done.model.loss is not None:
        low, high = (None if end is None else float(np.exp(end)) for end in (loss.low, loss.high))
        found += [
            (HELD_OUT, "loss", loss),
            (HELD_OUT, "perplexity", Measured(float(np.exp(loss.value)), low, high, loss.n)),
        ]
    return [
        MetricRow(
            variant=spec.objective,
            backbone=str(done.model.folder),
            view="",
            layer=None,
            task="language",
            split=split,
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            n=estimate.n,
            seed=spec.seed,
        )
        for split, metric, estimate in found
    ]
