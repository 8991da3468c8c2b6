"""The store of a capture plan, found by what its shards say: no backbone is read."""

from pathlib import Path

from permafrost.data.plan.plan import CHAT, CapturePlan
from permafrost.data.remote.mirror import store_paths
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.identity import folder_name, init_name
from permafrost.data.store.shard import Shard, first_shard
from permafrost.data.store.store import LatentStore


def find_store(cache: Path, plan: CapturePlan) -> LatentStore:
    """Return the store of ``plan``.

    Raises:
        StoreError: no store in ``cache`` matches the plan, or several do.
        ShardError: no store matches, and a shard is damaged.
    """
    folder = cache / folder_name(plan.backbone)
    matching: list[LatentStore] = []
    first_error: ShardError | None = None
    for path in store_paths(cache, folder.name):
        try:
            if (shard := first_shard(path)) and _matches(shard, plan):
                matching.append(LatentStore.open(path))
        except ShardError as error:
            first_error = error if first_error is None or isinstance(first_error, OtherVersionError) else first_error
    if not matching and first_error:
        raise first_error
    if not matching:
        also = ", or 'run', which finds those of the same template written out" if plan.template == CHAT else ""
        raise StoreError(f"{folder} holds no latents of this plan; run 'extract' with the same recipe first{also}.")
    if len(matching) > 1:
        names = ", ".join(store.path.name for store in matching)
        differences = matching[0].identity.differences(matching[1].identity)
        dtypes = [f"plan.{key}" for key in differences if key in ("compute_dtype", "stored_dtype")]
        raise StoreError(
            f"{folder} holds {len(matching)} stores of this plan ({names}): they differ in {', '.join(differences)}. "
            + (f"Set {' and '.join(dtypes)} to that of one of them, remove" if dtypes else "Remove")
            + " one with 'permafrost cache prune --whole', or 'run', which reads the weights to know."
        )
    return matching[0]


def _matches(shard: Shard, plan: CapturePlan) -> bool:
    names = {"backbone": plan.backbone, "adapter": plan.adapter, "tokenizer": plan.tokenizer, "init": init_name(plan)}
    if plan.revision:
        names["revision"] = plan.revision
    if plan.template == CHAT:  # which only the tokenizer's files tell
        names |= {"template": plan.template, "system": plan.system}
    provenance = shard.provenance
    is_named = all(provenance.get(key, "") == value for key, value in names.items())
    return is_named and shard.identity.fits(plan, provenance.get("longest", plan.token_limit))
