"""Whether a backbone has a cut, and the road by which its blocks are run; torch is loaded only to prove it."""

import json

from permafrost.data.memo import Memo
from permafrost.data.plan.layers import resolve_layers
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.finetuning.cut import Batching, Cut, CutRoad, count_frozen, proof_key


def check_cut(
    plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,), cache: str = ExtractSpec.cache
) -> None:
    """Raise what a ``TopBlocks`` would raise for the same arguments, without reading weights."""
    source = find_backbone(plan, cache)
    frozen = count_frozen(source, plan, cut)
    proven_road(source, cut, plan.final_norm, cache)
    try:
        resolve_layers(layers, range(frozen + 1, source.layers))
    except SpecError as error:
        raise SpecError(f"a probe reads layers above the cut, {cut}: {error}") from None


def proven_road(source: Source, cut: Cut, final_norm: bool, cache: str) -> CutRoad:
    """Return the fastest road by which the blocks above a cut have the states of the whole model.

    That is proven on a small twin, unless it was before.

    Raises:
        SpecError: there is none.
    """
    place = "first block" if cut == 0 else "between blocks" if cut != "none" else "whole"

    def choose() -> str:
        from permafrost.extract.finetuning.cut_proof import choose_road

        road = choose_road(source, cut, final_norm)
        return json.dumps([road.batching, road.runs_first])

    found = Memo(local_cache(cache) / MEMO).get(f"cut {place} {proof_key(source, final_norm)}", choose)
    batching, runs_first = json.loads(found)
    return CutRoad(batching=Batching(batching), runs_first=runs_first)
