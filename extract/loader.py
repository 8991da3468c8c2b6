"""Loader of the backbone of a plan, which is loaded at most once: for the pilot texts, and for what is run."""

from functools import cached_property

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.identity import Identity
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.backbones.load import Backbone, load_backbone
from permafrost.extract.backbones.locate import Source
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.pilot import pilot_peak
from permafrost.extract.proofs.proof import on_fastest_road


class BackboneLoader:
    """Backbone of a plan, loaded when it is first used."""

    def __init__(
        self, plan: CapturePlan, spec: ExtractSpec, source: Source, device: str, backbone: Backbone | None
    ) -> None:
        """Load nothing yet; ``backbone`` is the backbone if it is loaded already."""
        self._plan, self._spec, self._source, self._device, self._given = plan, spec, source, device, backbone

    @cached_property
    def backbone(self) -> Backbone:
        """The loaded backbone."""
        dtype, spec = compute_dtype(self._plan, self._device), self._spec
        return self._given or load_backbone(
            self._source, self._plan, dtype, self._device, spec.device_map, local_cache(spec.cache)
        )

    def peak(self) -> float:
        """Return the largest magnitude in the latents of the pilot texts."""
        return pilot_peak(self.backbone, self._plan.final_norm)

    def runner(self, identity: Identity) -> BackboneRunner:
        """Return the runner of the plan, on the fastest road that is exact for the backbone."""
        return on_fastest_road(BackboneRunner(self._plan, self._source, identity, self._spec, self.backbone))
