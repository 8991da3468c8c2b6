"""Probes of tokens: every token of a text is scored, for its tag or as the first or last of an answer.

The layers are mixed first, token by token; what tokens tell each other comes after, in a network per member.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.layerwise import Dropout
from permafrost.probes.models.member_layout import MemberLayout
from permafrost.probes.models.mixers import code_mixer, mixed_width
from permafrost.probes.models.pair_features import SCALE, best_cosines
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads


class TokenHead(nn.Module):
    """Mixed states of tokens to numbers, through a context or not."""

    def __init__(self, spec: ProbeSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        made = CONTEXTS.get(spec.context)
        self.context = made(inputs, spec.context_width, spec.dropout, spec.context_blocks) if made else None
        self.dropout = Dropout(spec.dropout)
        self.out = nn.Linear(self.context.code if self.context else inputs, outputs)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """``[token, input]`` -> ``[token, output]``."""
        read = self.context(x, lengths) if self.context else x
        scores: Tensor = self.out(self.dropout(read[None])[0])
        return scores


class TokenProbe(Probe):
    """Every token of a text to a few numbers."""

    pools = False

    def __init__(self, spec: ProbeSpec, layout: MemberLayout, outputs: int) -> None:
        super().__init__(spec, layout)
        self.outputs = outputs
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)
        self.read = mixed_width(spec.mixer, layout, self.encoder.code) + (layout.mask.shape[1] if spec.match else 0)
        self.head = nn.ModuleList(TokenHead(spec, self.read, outputs) for _ in layout.members)

    @property
    def shape(self) -> tuple[int, ...]:
        """The widths in which probes agree that can stand side by side."""
        return *super().shape, self.read

    def rebuild(self, layout: MemberLayout) -> Self:
        """A fresh probe of the same kind with other seats."""
        return type(self)(self.spec, layout, self.outputs)

    def forward(self, states: RaggedStates, how: SharedReads) -> Tensor:
        """Tokens ``[distinct, token, width]`` -> ``[member, token, output]``."""
        encoded = self.encode(states.values, how)
        mixed = self.mixer(self.layout.by_member(encoded))
        if self.spec.match:
            assert states.second is not None
            met = SCALE * best_cosines(encoded, states.lengths, states.second)
            mixed = torch.cat([mixed, self.layout.by_member(met).transpose(1, 2).to(mixed.dtype)], -1)
        heads = zip(self.head, mixed, strict=True)
        return torch.stack([head(x, states.lengths) for head, x in heads])

    def member_of(self) -> dict[str, Tensor]:
        """Parameter name -> ``[first axis]``, the member that each of its parts belongs to."""
        own = {
            f"head.{member}.{name}": torch.full(part.shape[:1], member)
            for member, head in enumerate(self.head)
            for name, part in head.named_parameters()
        }
        return super().member_of() | own

    def _places(self, name: str) -> list[int]:
        if name.startswith("head."):
            member = int(name.split(".")[1])
            return [int(member == other) for other in range(len(self.head))]
        return super()._places(name)

    def by_member(self) -> list[dict[str, Tensor]]:
        """For each member, its part of the state of mixer and head."""
        heads = [{f"head.{name}": value for name, value in head.state_dict().items()} for head in self.head]
        return [mixer | head for mixer, head in zip(self._by_member(("mixer.",)), heads, strict=True)]

    def _load_member(self, member: int, weights: dict[str, Tensor]) -> None:
        super()._load_member(member, {name: own for name, own in weights.items() if name.startswith("mixer.")})
        state = self.head[member].state_dict()
        for name, value in state.items():
            value.copy_(weights[f"head.{name}"])


class TagProbe(TokenProbe):
    """A tag for every word, read off its first token."""


class SpanProbe(TokenProbe):
    """Where an answer starts and where it ends: two numbers for every token."""
