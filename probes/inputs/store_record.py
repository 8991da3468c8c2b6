"""Record of the latent stores that a run read, as written to its run folder."""

from collections.abc import Iterable
from typing import Any

from permafrost.data.spec import plain
from permafrost.probes.inputs.providers import PlanLatents


def store_record(latents: PlanLatents) -> dict[str, Any]:
    """Return the record of one store: path, identity, columns and provenance."""
    store = latents.store
    provenance = store.shards[0].provenance
    return {
        "path": str(store.path),
        "identity": plain(store.identity),
        "columns": {view: list(layers) for view, layers in latents.columns.items()},
        "truncated": latents.truncated,
        "seconds": latents.seconds,
        "backbone_parameters": provenance.get("parameters"),
        "device": provenance.get("device"),
        "self_check": provenance.get("self_check"),
    }


def count_backbone_parameters(plans: Iterable[PlanLatents]) -> int:
    """Return the number of parameters of the distinct backbones of some plans."""
    stores = [latents.store for latents in plans]
    parameters = {store.identity.weights: store.shards[0].provenance.get("parameters") or 0 for store in stores}
    return sum(parameters.values())
