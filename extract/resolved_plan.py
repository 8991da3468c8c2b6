"""Capture plan resolved on this machine: its backbone, device and store identity."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from permafrost.data.memo import Memo
from permafrost.data.progress import Progress
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.identity import compute_dtype, identify, pick_device
from permafrost.extract.backbones.load import Backbone, load_backbone
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.capture.proof import on_fastest_road
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.pilot import pilot_peak
from permafrost.extract.tokenization.prompt import resolve_prompt


@dataclass(frozen=True, eq=False, kw_only=True)
class ResolvedPlan:
    """A plan whose backbone is found and whose identity is known; the backbone is loaded at most once."""

    plan: CapturePlan
    """The plan with a literal template and number of tokens, as :func:`resolve_prompt` returns it."""

    spec: ExtractSpec
    source: Source
    identity: Identity
    backbone: Callable[[], Backbone]
    """Function that returns the loaded backbone."""

    def runner(self) -> BackboneRunner:
        """Load the backbone, and return the runner of the plan, on the fastest road that is exact for it."""
        return on_fastest_road(BackboneRunner(self.plan, self.source, self.identity, self.spec, self.backbone()))


def resolve_plan(
    plan: CapturePlan, spec: ExtractSpec, backbone: Backbone | None = None, progress: Progress | None = None
) -> ResolvedPlan:
    """Find the backbone of a plan, and the identity of its latents.

    The backbone is loaded only if ``plan.stored_dtype`` is ``auto`` and the cache does not remember its peak.

    Args:
        backbone: the backbone if it is loaded already.
        progress: told of a GGUF file that is converted.

    Raises:
        InputError: the backbone or the device cannot be used.
    """
    source, device = find_backbone(plan, spec.cache, progress), pick_device(spec.device)
    plan = resolve_prompt(plan, source, Memo(Path(spec.cache) / MEMO))
    computed = compute_dtype(plan, device)
    load = cache(lambda: backbone or load_backbone(source, plan, computed, device, spec.device_map))
    identity = identify(source, plan, device, Path(spec.cache), lambda: pilot_peak(load(), plan.final_norm))
    return ResolvedPlan(plan=plan, spec=spec, source=source, identity=identity, backbone=load)
