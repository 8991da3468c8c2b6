"""TODO: probes/variants/record.py."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.store.shard import Shard
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.inputs.store_record import backbone_numbers, store_record
from permafrost.probes.results.environment import environment
from permafrost.probes.tasks.registry import head_of, loss_and_metric, task_of, texts_per_row
from permafrost.probes.variants.trained_variant import TrainedVariant


def make_record(
    corpus: Corpus, found: Sequence[TrainedVariant], stores: Mapping[str, Mapping[str, PlanLatents]]
) -> dict[str, Any]:
    """What ran, on what, with which versions.

    Args:
        stores: variant -> name of a plan -> where its latents are.
    """
    every = {id(one): one for plans in stores.values() for one in plans.values()}
    return environment() | {
        "corpus": {"name": corpus.name, "rows": {split: len(rows) for split, rows in corpus.splits.items()}},
        "texts": corpus.sentences,
        "texts_distinct": len(corpus.texts),
        "bytes": sum(shard.path.stat().st_size for shard in _shards(every.values())),
        "stores": {
            variant: {name: store_record(one) for name, one in plans.items()} for variant, plans in stores.items()
        },
        "parameters": {one.variant: one.parameters for one in found},
        "probes": {one.variant: _probe_record(one, stores[one.variant], corpus) for one in found},
    }


def _shards(stored: Iterable[PlanLatents]) -> list[Shard]:
    return list({shard.path: shard for one in stored for shard in one.store.shards}.values())


def _probe_record(one: TrainedVariant, stores: Mapping[str, PlanLatents], corpus: Corpus) -> dict[str, Any]:
    """What a diagram of the probe shows."""
    spec = one.recipe.probe
    inputs: dict[tuple[str, str], list[int]] = {}
    for column in one.columns:
        inputs.setdefault((column.plan, column.view), []).append(column.layer)
    widths = dict(zip(one.columns, one.probe.layout.widths, strict=False))
    return {
        "inputs": [
            {"plan": plan, "view": view, "layers": layers, "width": widths[Column(plan, view, layers[0])]}
            for (plan, view), layers in inputs.items()
        ],
        "encoder": spec.encoder,
        "codes": one.probe.layout.codes[: len(one.columns)],
        "depth": spec.depth,
        "mixer": spec.mixer,
        "context": spec.context,
        "head": head_of(spec, corpus.kind, texts_per_row(corpus)),
        "hidden": spec.hidden,
        "sides": texts_per_row(corpus),
        "loss": loss_and_metric(one.recipe, task_of(corpus))[0],
        "pretraining": "" if one.recipe.pretraining.task == "none" else one.recipe.pretraining.task,
        "parameters": one.parameters,
        "backbone_parameters": backbone_numbers(stores.values()) or one.of_backbone,
    }
