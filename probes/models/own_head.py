"""Heads from outside this package: one module for each member, whose parameters are stacked as all others are."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from permafrost.data.plugin_registry import PluginError, find, named_errors
from permafrost.data.plugins import Head
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.generators import default_generator, forked_generators
from permafrost.probes.models.layerwise import SeededRandom


def own_head(spec: ProbeSpec, members: int, inputs: int, outputs: int) -> "OwnHead | None":
    """Return the head from outside that a spec names; None if it names one of ours.

    Args:
        members: number of members, each of which gets a module of its own.
        inputs, outputs: widths.

    Raises:
        PluginError: there is no such head, or it is not built as a head must be.
    """
    if spec.head in Head.built_in:
        return None
    part = find(Head, spec.head)
    modules = [_build(spec.head, part, inputs, outputs, spec.head_options) for _ in range(members)]
    with named_errors(spec.head, part, "cannot be copied"):
        return OwnHead(spec.head, part, modules, outputs)


def _build(name: str, part: Head, inputs: int, outputs: int, options: Mapping[str, Any]) -> nn.Module:
    given = ", ".join((f"{inputs}", f"{outputs}", *(f"{key}={value!r}" for key, value in options.items())))
    with named_errors(name, part, f"cannot be built with ({given}); see probe.head_options"):
        try:
            module = part.build(inputs, outputs, **options)
        except Exception:  # a build that computes with its weights needs real ones, also to load a run
            if torch.get_default_device().type != "meta":
                raise
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                module = part.build(inputs, outputs, **options)
    if not isinstance(module, nn.Module):
        raise PluginError(f"the head '{name}' must build a torch.nn.Module, got {type(module).__name__}.")
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise PluginError(f"the head '{name}' has lazy parameters; build it with its widths {inputs} and {outputs}.")
    if unsaved := {key for key, _ in module.named_buffers()} - module.state_dict().keys():
        raise PluginError(f"the head '{name}' must save its buffer '{min(unsaved)}': register it with persistent=True.")
    for path, owner in module.named_modules():
        if loose := [key for key, value in vars(owner).items() if isinstance(value, Tensor)]:
            raise PluginError(
                f"the head '{name}' holds the tensor '{f'{path}.{loose[0]}'.strip('.')}' as an attribute: make it an "
                "nn.Parameter, or register it as a buffer."
            )
    return module


class OwnHead(SeededRandom):
    """Modules of several members as one: every parameter and buffer has the member as its first axis.

    Random numbers of a module, such as those of ``nn.Dropout``, are drawn from its member's generator.
    """

    def __init__(self, name: str, part: Head, modules: Sequence[nn.Module], outputs: int) -> None:
        """Stack the tensors of modules of one architecture, tied weights once."""
        super().__init__()
        self.name, self.part, self.outputs = name, part, outputs
        self.module = copy.deepcopy(modules[0])
        by_module = [dict(_tensors(module)) for module in modules]
        stacked: dict[int, Tensor] = {}
        for key, original in list(_tensors(self.module)):
            if id(original) not in stacked:
                values = torch.stack([tensors[key].detach() for tensors in by_module])
                is_parameter = isinstance(original, nn.Parameter)
                stacked[id(original)] = nn.Parameter(values, original.requires_grad) if is_parameter else values
            owner, _, leaf = key.rpartition(".")
            setattr(self.module.get_submodule(owner), leaf, stacked[id(original)])

    def forward(self, x: Tensor) -> Tensor:
        """``[member, row, input]`` -> ``[member, row, output]``."""
        return torch.stack([self._of_member(member, rows) for member, rows in enumerate(x)])

    def _of_member(self, member: int, rows: Tensor) -> Tensor:
        distinct = {id(value): value[member] for _, value in _tensors(self.module)}
        tensors = {key: distinct[id(value)] for key, value in _tensors(self.module)}
        buffers = dict(self.module.named_buffers()) if self.training else {}
        before = {key: value._version for key, value in buffers.items()}
        generator = self.generators[member][0] if self.training and self.generators else None
        if generator is None:
            outputs = self._call(tensors, rows)
        else:
            drawn_from = default_generator(generator.device)
            with forked_generators(generator.device):
                drawn_from.set_state(generator.get_state())
                outputs = self._call(tensors, rows)
                generator.set_state(drawn_from.get_state())
        if changed := [key for key, value in buffers.items() if value._version != before[key]]:
            raise PluginError(
                f"the head '{self.name}' changes its buffer '{changed[0]}' in training, as nn.BatchNorm1d does; use "
                "what has parameters only, such as nn.LayerNorm."
            )
        if not isinstance(outputs, Tensor) or outputs.shape != (len(rows), self.outputs):
            found = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise PluginError(
                f"the head '{self.name}' must return [row, {self.outputs}] for [row, {rows.shape[1]}]; of {len(rows)} "
                f"rows it returned {found}."
            )
        return outputs

    def _call(self, tensors: dict[str, Tensor], rows: Tensor) -> Any:
        with named_errors(self.name, self.part, f"fails for {list(rows.shape)}"):
            return functional_call(self.module, tensors, (rows,))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers by name, tied ones under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
