"""A trained probe with what it takes to apply it: the columns it reads, calibration, labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from permafrost.data.corpora.records import Kind
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import CapturePlan
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.models.probe import Probe


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedProbe:
    """A trained probe of one task; several members predict together, by the mean of their outputs."""

    variant: str
    recipe: Recipe
    """Of the variant."""

    columns: tuple[Column, ...]
    """Which layer, view and plan each input of the probe is."""

    probe: Probe
    calibration: Calibration | None
    """From raw prediction to score; None unless the targets are scores."""

    labels: tuple[str, ...]
    """Classes or tags, in the order of the logits."""

    score_range: tuple[float, float] | None
    kind: Kind
    texts_per_row: int
    """Texts per row."""

    seeds: tuple[int, ...] = ()
    blocks: Callable[[], nn.Module] | None = None
    """Makes the fine-tuned blocks of the backbone; None if it stayed frozen."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedRun(FittedProbe):
    """The fitted probe of a run folder, ready to predict from latents."""

    path: Path
    identities: Mapping[str, Identity]
    """Name of a plan -> identity of the latents it was trained on."""
    backbone_folder: Path | None = None
    """The model folder of the backbone, where blocks of it learnt; else it is the plan's own. Tasks that keep one state
    of the blocks have it in the run above them."""

    digests: tuple[str, ...] = ()
    """Of the files in that folder."""

    def backbone(self, plan: str) -> tuple[str, ...]:
        """What is equal where runs read the same backbone: digests, and the arithmetic."""
        if self.backbone_folder:
            return self.digests
        one = self.identities[plan]
        return one.weights, one.tokenizer, one.compute_dtype

    def capture_plan(self, plan: str) -> CapturePlan:
        """How texts become the latents that it reads.

        Blocks that learnt were measured on states that stage one had cached in the precision of the recipe; new texts
        run through the whole model in float32. With ``plan.stored_dtype`` or ``plan.compute_dtype`` below that, answers
        differ from the run's by as much as they round.
        """
        found = self.recipe.capture_plan(plan)
        if self.backbone_folder is None:
            return found
        own = {"backbone": str(self.backbone_folder), "revision": "", "init": "pretrained", "tokenizer": ""}
        return replace(found, **own, compute_dtype="float32", stored_dtype="float32")  # type: ignore[arg-type]
