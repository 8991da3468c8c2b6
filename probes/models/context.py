"""Context models: networks over the tokens of a text, between the mixer and a token head. One for each member.

A context model reads the mixed states of whole texts, one text after another without padding, and returns states in
the same order.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from permafrost.data.device.transfer import to_device
from permafrost.data.ragged import offsets_from_lengths, pad_index
from permafrost.probes.models.layerwise import Dropout

Lengths = Sequence[int]
"""``[text]``: number of tokens of each text."""


class BiLSTM(nn.Module):
    """Bidirectional LSTM over the tokens of each text, of ``width`` units in each direction.

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
        counts = torch.tensor(lengths, device="cpu")  # of which torch makes its own indices on the device
        packed = pack_padded_sequence(texts, counts, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.network(packed)[0], batch_first=True)
        return states.flatten(0, 1)[token_positions(lengths, x.device)]


class TextGroups:
    """Padded groups of texts of similar length, so that attention computes little padding."""

    AT_ONCE = 8
    """Texts in a group."""

    def __init__(self, lengths: Lengths, device: torch.device) -> None:
        counts = np.array(lengths)
        starts, order = offsets_from_lengths(counts)[:-1], np.argsort(counts, kind="stable")
        padded = [
            pad_index(counts[texts], starts=starts[texts])
            for texts in np.split(order, range(self.AT_ONCE, len(order), self.AT_ONCE))
        ]
        self.groups = [
            (to_device(index, device), to_device(mask, device), to_device(np.flatnonzero(mask), device))
            for index, mask in padded
        ]
        """For each group, token indices and token mask, both ``[text, position]``, and ``[token]``, the place of each
        token among all positions of the group."""
        self.inverse = to_device(np.concatenate([index[mask] for index, mask in padded]).argsort(), device)
        """``[token]``: index of each token among the tokens of all groups, one group after another."""


class Block(nn.Module):
    """Transformer block: self-attention over the tokens of a text, then a feed-forward network, pre-norm.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3; the norm stands before, as in Xiong et al.,
    "On Layer Normalization in the Transformer Architecture" (2020), figure 1. The query and key maps start equal, so
    that a token first attends to similar tokens: a small training set would not teach it to.
    """

    HEAD = 64
    """Width of an attention head; a width that is no multiple of it has one head."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = max(1, width // self.HEAD) if width % self.HEAD == 0 else 1
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.answers = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            for parameter in (self.asks.weight, self.asks.bias):
                parameter[width : 2 * width] = parameter[:width]

    def forward(self, x: Tensor, texts: TextGroups) -> Tensor:
        """``[token, width]`` -> the same shape."""
        projected = self.asks(self.first(x))
        attended = torch.cat(
            [self._attend(projected[index], mask).flatten(0, 1)[places] for index, mask, places in texts.groups]
        )
        x = x + self._drop(self.answers(attended[texts.inverse]))
        return x + self._drop(self.down(functional.gelu(self.up(self.second(x)))))

    def _attend(self, projected: Tensor, mask: Tensor) -> Tensor:
        """``[text, token, 3 width]`` -> ``[text, token, width]``."""
        query, key, value = projected.view(*mask.shape, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, mask[:, None, None])
        return attended.transpose(1, 2).flatten(2)

    def _drop(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(x[None])[0]
        return dropped


class Transformer(nn.Module):
    """Transformer encoder over the tokens of each text, without position embeddings: the backbone adds them."""

    def __init__(self, inputs: int, width: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.code = width

    def forward(self, x: Tensor, lengths: Lengths) -> Tensor:
        """``[token, input]`` -> ``[token, code]``."""
        states, texts = self.enter(self.dropout(x[None])[0]), TextGroups(lengths, x.device)
        for block in self.blocks:
            states = block(states, texts)
        normed: Tensor = self.norm(states)
        return normed


def token_positions(lengths: Lengths, device: torch.device) -> Tensor:
    """Return ``[token]``: the place of each token among the positions of all texts, padded to the longest."""
    return to_device(np.flatnonzero(pad_index(np.array(lengths))[1]), device)


CONTEXTS: dict[str, Callable[[int, int, float, int], nn.Module]] = {
    "bilstm": lambda inputs, width, dropout, blocks: BiLSTM(inputs, width, dropout),
    "transformer": Transformer,
}
"""Name -> constructor, called with input width, width, dropout and number of blocks."""
