"""Members of a variant: a probe on some layers of its inputs, trained with one seed; and which train in one program.

Small members of one task and of equal shape are stacked and trained together; large ones use the whole device and are
trained one after another. Members read inputs, never a backbone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from permafrost.data.spec import fingerprint, plain
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe, layout_for
from permafrost.probes.objectives.heads import HEADS
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.training.best_state import History
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.parameter_groups import belongs_to

MAX_STACKED_PARAMETERS = 50_000
"""Maximum number of parameters of a probe that is stacked with others; a larger one is trained alone."""

MAX_STACKED_BYTES = 64 << 20
"""Maximum size of the latents that stacked members read per training step."""

GPU_STACKED_PARAMETERS = 50_000_000
""":data:`MAX_STACKED_PARAMETERS` on a GPU, where a batched product of full width costs little more than one of them.
Not measured."""

GPU_STACKED_BYTES = 4 << 30
""":data:`MAX_STACKED_BYTES` on a GPU, weights, gradients and moments of the optimizer included. Not measured."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MemberConfig:
    """What one member is trained on."""

    variant: str
    recipe: Recipe
    """Recipe of the member's task."""

    problem: Problem
    inputs: ProbeInputs
    layers: tuple[int, ...]
    """Indices of the inputs' layers that the member reads."""

    seed: int
    pretrained: PretrainedEncoder | None = None
    component: str = PROBE
    """Name of the probe's component in ``train.freeze``: the name of the recipe's task, if it has several."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns of metrics.csv that name the member if variant and seed do not."""

    @property
    def named(self) -> dict[str, Any]:
        """Columns of metrics.csv that name the member, for the events of its training."""
        return {"variant": self.variant} | dict(self.columns) | {"seed": self.seed}


def initial_probe(member: MemberConfig) -> Probe:
    """Create the probe of a member as it is before training, drawn with the member's seed."""
    problem, inputs, spec = member.problem, member.inputs, member.recipe.probe
    tokens = inputs.tokens is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        views = [(column.plan, column.view) for column in inputs.columns]
        layout = layout_for(spec, [member.layers], inputs.widths, tokens, views)
        probe = HEADS[problem.head](spec, layout, problem.texts_per_row, len(problem.corpus.labels))
    by_token = tokens and not probe.pools
    texts = np.unique(problem.corpus.split("train").texts)
    probe.set_normalization(*inputs.moments(texts, spec.center, spec.scale, by_token))
    if member.pretrained:
        by_layer = [member.pretrained.by_layer[layer] for layer in member.layers]
        mixer = {name: value[list(member.layers)] for name, value in member.pretrained.mixer.items()}
        probe.load_members(by_layer, [mixer])
    return probe.to(inputs.device)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedMember:
    """A member with the weights of its best epoch."""

    config: MemberConfig
    probe: Probe
    history: History

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the inputs that the probe reads."""
        return tuple(self.config.inputs.columns[source] for source in self.probe.layout.sources)

    @property
    def parameters(self) -> int:
        """Number of trained parameters of the probe; those frozen from the start are not counted."""
        frozen = [component for component, epoch in self.config.recipe.train.freeze.items() if epoch == 0]
        return sum(
            parameter.numel()
            for name, parameter in self.probe.named_parameters()
            if not any(belongs_to(f"{self.config.component}.{name}", component) for component in frozen)
        )


@dataclass(frozen=True, eq=False)
class UntrainedMember:
    """A member about to be trained."""

    config: MemberConfig
    probe: Probe


Group = Mapping[str, Sequence[UntrainedMember]]
"""Component -> members that are trained in one program: several of one task, or one of each of several tasks."""


def stackable_groups(members: Sequence[MemberConfig]) -> Iterator[list[UntrainedMember]]:
    """Yield members of one task to train in one program: small ones of equal shape, or a large one alone.

    Members are stacked if they read the same inputs, have the same shape, and their recipes train alike. What is small
    depends on the device.
    """
    waiting: dict[str, list[UntrainedMember]] = {}
    for config in members:
        member = UntrainedMember(config, initial_probe(config))
        parameters, on_gpu = sum(map(torch.numel, member.probe.parameters())), config.inputs.device.type != "cpu"
        most = GPU_STACKED_PARAMETERS if on_gpu else MAX_STACKED_PARAMETERS
        if config.inputs.blocks is not None or member.probe.layout.tokens or parameters > most:
            yield [member]
            continue
        probe, train = replace(config.recipe.probe, inputs=(), layers="all"), replace(config.recipe.train, seeds=(0,))
        alike = plain(replace(config.recipe, variants=(), summary="", probe=probe, train=train))
        key = f"{id(config.inputs)} {member.probe.shape} {fingerprint(alike)}"
        group = waiting.setdefault(key, [])
        layers = sum(len(other.config.layers) for other in group) + len(config.layers)
        size = layers * config.inputs.width * 8 * config.recipe.train.batch_rows
        size += 16 * parameters * (len(group) + 1) if on_gpu else 0
        if group and size > (GPU_STACKED_BYTES if on_gpu else MAX_STACKED_BYTES):
            yield waiting.pop(key)
            group = waiting.setdefault(key, [])
        group.append(member)
    yield from waiting.values()
