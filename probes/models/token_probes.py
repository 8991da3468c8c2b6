"""Token probes: outputs for every token of a text, tag logits or start and end logits of an answer.

The layers are mixed first, token by token; each member then has its own context model and head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.layerwise import Dropout
from permafrost.probes.models.mixers import code_mixer, mixed_width
from permafrost.probes.models.own_head import own_head
from permafrost.probes.models.pair_features import SCALE, best_cosines
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import MemberLayout, RaggedStates, SharedReads


class TokenHead(nn.Module):
    """Linear map over mixed token states, or a head from outside; after a context model if the spec has one."""

    def __init__(self, spec: ProbeSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        build = CONTEXTS.get(spec.context)
        self.context = build(inputs, spec.context_width, spec.dropout, spec.context_blocks) if build else None
        self.dropout = Dropout(spec.dropout)
        width = int(self.context.code) if self.context else inputs  # type: ignore[arg-type]
        self.out = own_head(spec, 1, width, outputs) or nn.Linear(width, outputs)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """``[token, input]`` -> ``[token, output]``."""
        states = self.context(x, lengths) if self.context else x
        outputs: Tensor = self.out(self.dropout(states[None]))[0]
        return outputs


class TokenProbe(Probe):
    """Numbers predicted for every token of a text."""

    pools = False

    def __init__(self, spec: ProbeSpec, layout: MemberLayout, outputs: int) -> None:
        super().__init__(spec, layout, outputs)
        self.outputs = outputs
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)
        matches = layout.mask.shape[1] if spec.match else 0
        self.features = mixed_width(spec.mixer, layout, self.encoder.code) + matches
        self.head = nn.ModuleList(TokenHead(spec, self.features, outputs) for _ in layout.members)

    def forward(self, states: RaggedStates, reads: SharedReads) -> Tensor:
        """Tokens ``[distinct, token, width]`` -> ``[member, token, output]``."""
        codes = self.encode(states.values, reads)
        mixed = self.mixer(self.layout.by_member(codes))
        if self.spec.match:
            matches = SCALE * best_cosines(codes, states.lengths, states.in_second)
            mixed = torch.cat([mixed, self.layout.by_member(matches).transpose(1, 2).to(mixed.dtype)], -1)
        heads = zip(self.head, mixed, strict=True)
        return torch.stack([head(x, states.lengths) for head, x in heads])

    def member_of(self) -> dict[str, Tensor]:
        """Return parameter name -> ``[first axis]``, the member that each index of its first axis belongs to."""
        heads = {
            f"head.{member}.{name}": torch.full(parameter.shape[:1], member)
            for member, head in enumerate(self.head)
            for name, parameter in head.named_parameters()
        }
        return super().member_of() | heads

    def _member_sizes(self, name: str) -> list[int]:
        if name.startswith("head."):
            member = int(name.split(".")[1])
            return [int(member == other) for other in range(len(self.head))]
        return super()._member_sizes(name)

    def member_states(self) -> list[dict[str, Tensor]]:
        """Return for each member its state of mixer and head."""
        heads = [{f"head.{name}": value for name, value in head.state_dict().items()} for head in self.head]
        return [mixer | head for mixer, head in zip(self._select_members(("mixer.",)), heads, strict=True)]

    def _load_member(self, member: int, member_state: dict[str, Tensor]) -> None:
        mixer = {name: value for name, value in member_state.items() if name.startswith("mixer.")}
        super()._load_member(member, mixer)
        for name, value in self.head[member].state_dict().items():
            value.copy_(member_state[f"head.{name}"])


class TagProbe(TokenProbe):
    """Tag logits of every word, read at its first token."""


class SpanProbe(TokenProbe):
    """Start and end logits of an answer for every token."""
