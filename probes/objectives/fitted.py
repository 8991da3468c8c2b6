"""Trained probes of one task, with the columns they read, calibration, labels and backbone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from permafrost.data.plan.plan import CapturePlan
from permafrost.data.store.identity import Identity
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe
from permafrost.probes.objectives.heads import mean_prediction
from permafrost.probes.tasks.base import Item, OutputSpace, Prediction, Task
from permafrost.probes.tasks.registry import TASKS


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedProbe(OutputSpace):
    """Trained probe of one task; several members predict by the mean of their outputs."""

    variant: str
    """Name of the variant; of an untrained reference, the one whose latents it compares."""

    untrained: bool = False
    """Whether it is an untrained reference: :func:`permafrost.probes.config.recipe.untrained_recipe`."""

    recipe: Recipe
    """Resolved recipe of the variant."""

    columns: tuple[Column, ...]
    """Plan, view and layer of each input of the probe."""

    probe: Probe
    kind: str
    """Kind of the targets, a key of :data:`permafrost.probes.tasks.registry.TASKS`."""

    texts_per_row: int
    seeds: tuple[int, ...] = ()
    blocks: Callable[[], nn.Module] | None = None
    """Function that returns the fine-tuned blocks of the backbone; None if it stayed frozen."""

    @property
    def task(self) -> Task:
        """The kind of task."""
        return TASKS[self.kind]

    @property
    def text_names(self) -> Item:
        """Names of the texts of an item."""
        return self.task.text_names(self.texts_per_row)

    def answers(self, items: Sequence[Item], read: Callable[[Sequence[Text]], ProbeInputs]) -> list[Prediction]:
        """Return the prediction for each item; ``read`` gives the inputs of distinct texts."""
        return self.task.answers(self, items, lambda texts, rows: mean_prediction(self.probe, read(texts), rows))


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedRun(FittedProbe):
    """Fitted probe of a run folder, ready to predict from latents."""

    path: Path
    """The run folder, or the folder of one task in it."""

    identities: Mapping[str, Identity]
    """Identity of the latents that the probe was trained on, by name of the plan."""

    backbone_folder: Path | None = None
    """Model folder of the fine-tuned backbone; None if the backbone stayed frozen. Tasks that share one state of the
    blocks have it in the run folder above them."""

    digests: tuple[str, ...] = ()
    """Digests of the files in :attr:`backbone_folder`."""

    def backbone_key(self, plan: str) -> tuple[str, ...]:
        """Return a key that is equal for runs with the same backbone: digests of its files and the compute dtype."""
        if self.backbone_folder:
            return self.digests
        identity = self.identities[plan]
        return identity.weights, identity.tokenizer, identity.compute_dtype

    def capture_plan(self, plan: str) -> CapturePlan:
        """Return the plan by which new texts become the latents that the probe reads.

        A fine-tuned backbone was evaluated on frozen states cached in the precision of the recipe; new texts run
        through the whole model in float32. If ``plan.stored_dtype`` or ``plan.compute_dtype`` is less precise,
        predictions differ from those of the run by the rounding of the cached states.
        """
        capture_plan = self.recipe.capture_plan(plan)
        if self.backbone_folder is None:
            return capture_plan
        folder, others = str(self.backbone_folder), dict.fromkeys(("revision", "adapter", "tokenizer"), "")
        finetuned = {"backbone": folder, "init": "pretrained", **others}
        return replace(capture_plan, **finetuned, compute_dtype="float32", stored_dtype="float32")  # type: ignore[arg-type]
