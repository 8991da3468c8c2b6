"""Finding the store of a capture plan on disk, from what the shards record; no weights and no tokenizer are read."""

from pathlib import Path

from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import CapturePlan
from permafrost.data.store.shard import SUFFIX, Shard
from permafrost.data.store.store import LatentStore, folder_name


def find_store(cache: Path, plan: CapturePlan) -> LatentStore:
    """Return the store of ``plan``.

    Raises:
        StoreError: no store in ``cache`` matches the plan, or several do.
        ShardError: no store matches, and a shard is damaged.
    """
    folder = cache / folder_name(plan.backbone)
    matching: list[LatentStore] = []
    first_error: ShardError | None = None
    for path in sorted(folder.glob("*")):
        try:
            shards = sorted(path.glob(f"*{SUFFIX}"))
            if shards and _matches(Shard(shards[0]), plan):
                matching.append(LatentStore.open(path))
        except ShardError as error:
            first_error = error if first_error is None or isinstance(first_error, OtherVersionError) else first_error
    if not matching and first_error:
        raise first_error
    if not matching:
        raise StoreError(f"{folder} holds no latents of this plan; run 'extract' with the same recipe first.")
    if len(matching) > 1:
        names = ", ".join(store.path.name for store in matching)
        raise StoreError(
            f"{folder} holds {len(matching)} stores of this plan ({names}): they differ in "
            f"{', '.join(matching[0].identity.differences(matching[1].identity))}. Remove one with 'permafrost cache "
            "prune --whole', or 'run', which reads the weights to know."
        )
    return matching[0]


def init_name(plan: CapturePlan) -> str:
    """Return the initialisation of the weights of a plan, as shards record it."""
    return plan.init if plan.init == "pretrained" else f"random, seed {plan.init_seed}"


def _matches(shard: Shard, plan: CapturePlan) -> bool:
    identity, provenance = shard.identity, shard.provenance
    names = {"backbone": plan.backbone, "tokenizer": plan.tokenizer, "init": init_name(plan)}
    if plan.revision:
        names["revision"] = plan.revision
    compute_dtype = identity.compute_dtype if plan.compute_dtype == "auto" else plan.compute_dtype
    same = identity == Identity.of(plan, identity.weights, identity.tokenizer, compute_dtype)
    return same and all(provenance.get(key) == value for key, value in names.items())
