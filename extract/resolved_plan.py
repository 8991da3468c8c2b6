"""Capture plan resolved on this machine: its backbone, device and store identity, without torch if it is remembered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from permafrost.data.machine import pick_device
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.identity import Identity
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.tokenization.prompt import resolve_prompt

if TYPE_CHECKING:  # these load torch
    from permafrost.extract.backbones.load import Backbone
    from permafrost.extract.capture.runner import BackboneRunner
    from permafrost.extract.loader import BackboneLoader


@dataclass(frozen=True, eq=False, kw_only=True)
class ResolvedPlan:
    """A plan whose backbone is found and whose identity is known."""

    plan: CapturePlan
    """The plan with a literal template and number of tokens, as :func:`resolve_prompt` returns it."""

    source: Source
    identity: Identity
    loader: "Callable[[], BackboneLoader]"
    """Function that returns the loader of the backbone, always the same one; the first call imports torch."""

    def runner(self) -> "BackboneRunner":
        """Load the backbone, and return the runner of the plan, on the fastest road that is exact for it."""
        return self.loader().runner(self.identity)


def resolve_plan(
    plan: CapturePlan, spec: ExtractSpec, backbone: "Backbone | None" = None, progress: Progress | None = None
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
    plan = resolve_prompt(plan, source, Memo(local_cache(spec.cache) / MEMO))

    @cache
    def loader() -> "BackboneLoader":
        from permafrost.extract.loader import BackboneLoader

        return BackboneLoader(plan, spec, source, device, backbone)

    identity = identify(source, plan, device, local_cache(spec.cache), lambda: loader().peak())
    return ResolvedPlan(plan=plan, source=source, identity=identity, loader=loader)
