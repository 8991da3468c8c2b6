"""Contexts: what tokens tell each other before a head reads them. One network for each member of a probe.

A context reads the mixed states of whole texts, one after another without padding, and returns as many.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from permafrost.probes.models.layerwise import Dropout

Lengths = Sequence[int]
"""``[text]``: how many tokens each has."""


class BiLSTM(nn.Module):
    """A recurrent network that reads every text in both directions, ``width`` numbers a direction.

    Source: Huang, Xu and Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging" (2015), section 2.2.
    """

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.network = nn.LSTM(inputs, width, batch_first=True, bidirectional=True)
        self.code = 2 * width

    def forward(self, x: Tensor, lengths: Lengths) -> Tensor:
        """``[token, input]`` -> ``[token, code]``."""
        texts = pad_sequence(self.dropout(x[None])[0].split(list(lengths)), batch_first=True)
        packed = pack_padded_sequence(texts, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.network(packed)[0], batch_first=True)
        return read[real_tokens(lengths)]


class Texts:
    """Where texts lie among their tokens: those of like length together, so that little of what attends is padding."""

    AT_ONCE = 8

    def __init__(self, lengths: Lengths) -> None:
        counts = torch.tensor(lengths)
        starts, order = counts.cumsum(0) - counts, counts.argsort(stable=True)
        self.groups: list[tuple[Tensor, Tensor]] = []
        """Texts of like length: which token stands at each place ``[text, place]``, and which places are real."""
        for some in torch.split(order, self.AT_ONCE):
            places = torch.arange(int(counts[some].max()))
            real = places < counts[some, None]
            self.groups.append((torch.where(real, starts[some, None] + places, starts[some, None]), real))
        self.back = torch.cat([index[real] for index, real in self.groups]).argsort()
        """``[token]``: where each token is among those of the groups, one group after another."""


class Block(nn.Module):
    """Attention over the tokens of a text, then a feed-forward network, each normed before and added after.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3; the norm stands before, as in Xiong et al.,
    "On Layer Normalization in the Transformer Architecture" (2020), figure 1. What asks and what is asked start the
    same, so that a token looks at what is like it first: few rows would not teach it to.
    """

    HEAD = 64
    """Width of an attention head, where the width allows it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = max(1, width // self.HEAD) if width % self.HEAD == 0 else 1
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.answers = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            for part in (self.asks.weight, self.asks.bias):
                part[width : 2 * width] = part[:width]

    def forward(self, x: Tensor, texts: "Texts") -> Tensor:
        """``[token, width]`` -> the same shape."""
        asked = self.asks(self.first(x))
        seen = torch.cat([self._attend(asked[index], real)[real] for index, real in texts.groups])
        x = x + self._dropped(self.answers(seen[texts.back]))
        return x + self._dropped(self.down(functional.gelu(self.up(self.second(x)))))

    def _attend(self, asked: Tensor, real: Tensor) -> Tensor:
        """``[text, token, 3 width]`` -> ``[text, token, width]``."""
        query, key, value = asked.view(*real.shape, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, real[:, None, None])
        return seen.transpose(1, 2).flatten(2)

    def _dropped(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(x[None])[0]
        return dropped


class Transformer(nn.Module):
    """A few blocks of attention. Where a token stands it knows from the backbone."""

    def __init__(self, inputs: int, width: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.code = width

    def forward(self, x: Tensor, lengths: Lengths) -> Tensor:
        """``[token, input]`` -> ``[token, code]``."""
        read, texts = self.enter(self.dropout(x[None])[0]), Texts(lengths)
        for block in self.blocks:
            read = block(read, texts)
        normed: Tensor = self.norm(read)
        return normed


def real_tokens(lengths: Lengths) -> Tensor:
    """``[text, token]``: which of the tokens of padded texts are real."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


CONTEXTS: dict[str, Callable[[int, int, float, int], nn.Module]] = {
    "bilstm": lambda inputs, width, dropout, blocks: BiLSTM(inputs, width, dropout),
    "transformer": Transformer,
}
