"""Record of a run, written as ``record.json``: corpus, latents, probes, parameter counts and versions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.store.shard import Shard
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.inputs.store_record import count_backbone_parameters, store_record
from permafrost.probes.results.environment import environment
from permafrost.probes.tasks.registry import head_of, loss_and_metric, task_of, texts_per_row
from permafrost.probes.variants.trained_variant import TrainedVariant


def make_record(
    corpus: Corpus, variants: Sequence[TrainedVariant], stores: Mapping[str, Mapping[str, PlanLatents]]
) -> dict[str, Any]:
    """Return the part of a record that all experiments have in common.

    Args:
        stores: variant -> plan name -> its latents.
    """
    distinct = {id(latents): latents for plans in stores.values() for latents in plans.values()}
    return environment() | {
        "corpus": {"name": corpus.name, "rows": {split: len(rows) for split, rows in corpus.splits.items()}},
        "texts": corpus.text_count,
        "texts_distinct": len(corpus.texts),
        "bytes": sum(shard.path.stat().st_size for shard in _shards(distinct.values())),
        "stores": {
            variant: {name: store_record(latents) for name, latents in plans.items()}
            for variant, plans in stores.items()
        },
        "parameters": {variant.variant: variant.parameters for variant in variants},
        "probes": {variant.variant: _probe_record(variant, stores[variant.variant], corpus) for variant in variants},
    }


def _shards(stored: Iterable[PlanLatents]) -> list[Shard]:
    return list({shard.path: shard for latents in stored for shard in latents.store.shards}.values())


def _probe_record(variant: TrainedVariant, stores: Mapping[str, PlanLatents], corpus: Corpus) -> dict[str, Any]:
    """Return what the report's diagram of a probe shows."""
    spec = variant.recipe.probe
    inputs: dict[tuple[str, str], list[int]] = {}
    for column in variant.columns:
        inputs.setdefault((column.plan, column.view), []).append(column.layer)
    widths = dict(zip(variant.columns, variant.probe.layout.widths, strict=False))
    return {
        "inputs": [
            {"plan": plan, "view": view, "layers": layers, "width": widths[Column(plan, view, layers[0])]}
            for (plan, view), layers in inputs.items()
        ],
        "encoder": spec.encoder,
        "codes": variant.probe.layout.codes[: len(variant.columns)],
        "depth": spec.depth,
        "mixer": spec.mixer,
        "context": spec.context,
        "head": head_of(spec, corpus.kind, texts_per_row(corpus)),
        "hidden": spec.hidden,
        "sides": texts_per_row(corpus),
        "loss": loss_and_metric(variant.recipe, task_of(corpus))[0],
        "pretraining": "" if variant.recipe.pretraining.task == "none" else variant.recipe.pretraining.task,
        "parameters": variant.parameters,
        "backbone_parameters": count_backbone_parameters(stores.values()) or variant.backbone_parameters,
    }
