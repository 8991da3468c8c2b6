"""Parts of a run's record, ``record.json``, that describe its corpora, latents and probes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.plugins import Head
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.providers import latents_record
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.variants.trained_variant import TrainedTask, TrainedVariant
from permafrost.probes.variants.workspace import Workspace

Stores = Mapping[str, Mapping[str, PlanLatents]]
"""Variant or task -> plan name -> its latents."""


def latent_stores(recipes: Mapping[str, Recipe], workspace: Workspace) -> Stores:
    """Return the latents that recipes of one task read, by the key of each recipe."""
    return {key: workspace.plan_latents(recipe, recipe.corpus) for key, recipe in recipes.items()}


def data_record(corpora: Sequence[Corpus], stores: Stores, latents: Iterable[PlanLatents]) -> dict[str, Any]:
    """Return the part of a record on corpora and latents; a corpus that several tasks read counts once.

    Args:
        stores: the latents that were read.
        latents: all latents that were got, each once.
    """
    distinct = list({id(corpus): corpus for corpus in corpora}.values())
    rows = {split: len(rows) for split, rows in distinct[0].splits.items()} if len(distinct) == 1 else {}
    shards = dict[Path, int]()
    for read in (read for plans in stores.values() for read in plans.values()):
        shards |= read.store.shard_sizes()
    return {
        "corpus": {"name": ", ".join(dict.fromkeys(corpus.name for corpus in distinct)), "rows": rows},
        "texts": sum(corpus.text_count for corpus in distinct),
        "texts_distinct": sum(len(corpus.texts) for corpus in distinct),
        "texts_run": sum(each.texts_run for each in latents),
        "bytes": sum(shards.values()),
        "stores": {
            key: {name: latents_record(latents) for name, latents in plans.items()} for key, plans in stores.items()
        },
    }


def task_record(problems: Mapping[str, Problem]) -> dict[str, Any]:
    """Return the part of a record on tasks: what a reader of their predictions must know."""
    return {
        name: {
            "kind": problem.task.kind,
            "reference": problem.task.reference,
            "numbers": list(problem.task.numbers),
        }
        for name, problem in problems.items()
    }


def variant_record(variants: Sequence[TrainedVariant]) -> dict[str, Any]:
    """Return the part of a record on trained variants: numbers of parameters, costs, and probes of single tasks."""
    return {
        "parameters": {variant.variant: variant.trained_parameters for variant in variants},
        "backbone_parameters": {variant.variant: variant.backbone_parameters for variant in variants},
        "costs": {variant.variant: {"seconds": variant.seconds, "memory": variant.peak_bytes} for variant in variants},
        "probes": {
            variant.variant: _probe_record(trained, variant)
            for variant in variants
            for trained in variant.tasks.values()
            if not variant.recipe.tasks
        },
    }


def _probe_record(trained: TrainedTask, variant: TrainedVariant) -> dict[str, Any]:
    """Return what the report's diagram of a probe shows."""
    spec, problem = trained.recipe.probe, trained.problem
    inputs: dict[tuple[str, str], list[int]] = {}
    for column in trained.columns:
        inputs.setdefault((column.plan, column.view), []).append(column.layer)
    widths = dict(zip(trained.columns, trained.probe.layout.widths, strict=False))
    return {
        "inputs": [
            {"plan": plan, "view": view, "layers": layers, "width": widths[Column(plan, view, layers[0])]}
            for (plan, view), layers in inputs.items()
        ],
        "encoder": spec.encoder,
        "codes": trained.probe.layout.codes[: len(trained.columns)],
        "depth": spec.depth,
        "mixer": spec.mixer,
        "context": spec.context,
        "head": problem.head if spec.head in Head.built_in else spec.head,
        "hidden": spec.hidden,
        "sides": problem.texts_per_row,
        "loss": problem.loss,
        "pretraining": "" if trained.recipe.pretraining.task == "none" else trained.recipe.pretraining.task,
        "parameters": variant.trained_parameters,
        "backbone_parameters": variant.backbone_parameters,
    }
