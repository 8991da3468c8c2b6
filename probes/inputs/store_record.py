"""What a run's record says of the stores that it read."""

from collections.abc import Iterable
from typing import Any

from permafrost.data.spec import plain
from permafrost.probes.inputs.providers import PlanLatents


def store_record(one: PlanLatents) -> dict[str, Any]:
    """Where latents were read, and what filled them."""
    about = one.store.shards[0].provenance
    return {
        "path": str(one.store.path),
        "identity": plain(one.store.identity),
        "columns": {view: list(layers) for view, layers in one.columns.items()},
        "truncated": one.truncated,
        "seconds": one.seconds,
        "backbone_parameters": about.get("parameters"),
        "device": about.get("device"),
        "self_check": about.get("self_check"),
    }


def backbone_numbers(stored: Iterable[PlanLatents]) -> int:
    """How many numbers the backbones have that filled some stores; several plans may read one backbone."""
    known = {one.store.identity.weights: one.store.shards[0].provenance.get("parameters") or 0 for one in stored}
    return sum(known.values())
