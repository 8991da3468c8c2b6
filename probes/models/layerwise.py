"""Layerwise networks: one small network per layer, all in one batched matmul; nothing crosses the layer axis.

Every module maps ``[layer, row, width]`` to ``[layer, row, code]``, and every parameter has the layer as its first
axis. So the layers of several probes can sit side by side in one module, and each is trained as if it were alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from permafrost.probes.models.shared_reads import SharedReads

SMALLEST_NORM = 1e-8


class LayerwiseLinear(nn.Module):
    """``x_l W_l + b_l`` for every layer ``l``."""

    def __init__(self, layers: int, width: int, code: int, start: str = "random") -> None:
        """Start at the identity (a code narrower than the width keeps the leading dimensions), or at random.

        Args:
            start: ``identity``, or ``random``: uniform within ``1 / sqrt(width)``, as ``nn.Linear`` starts.
        """
        super().__init__()
        bound = 1 / math.sqrt(width)
        if start == "identity":
            weight, bias = torch.eye(width, code).repeat(layers, 1, 1), torch.zeros(layers, 1, code)
        else:
            weight = torch.empty(layers, width, code).uniform_(-bound, bound)
            bias = torch.empty(layers, 1, code).uniform_(-bound, bound)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> ``[layer, row, code]``."""
        return torch.baddbmm(self.bias, x, self.weight)

    def shared(self, x: Tensor, how: SharedReads) -> Tensor:
        """``[distinct, row, width]`` -> ``[layer, row, code]``."""
        return how.multiply(x, self.weight) + self.bias


class LayerwiseLowRank(nn.Module):
    """``x_l + x_l A_l B_l``: a change of low rank, which starts at none.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1, around the identity.
    """

    def __init__(self, layers: int, width: int, rank: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.down = nn.Parameter(torch.empty(layers, width, rank).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(layers, rank, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> the same shape."""
        return torch.baddbmm(x, torch.bmm(x, self.down), self.up)

    def cosines(self, first: Tensor, second: Tensor, how: SharedReads) -> Tensor:
        """Cosine of what two sides become: ``[distinct, row, width]`` twice -> ``[layer, row]``.

        With ``h = x A`` and ``k = x B^T`` of low rank, ``(x + h B) . (y + i B) = x . y + h . (y B^T) + (x B^T) . i +
        h B B^T i^T``: nothing as wide as a latent is made for a layer that others share.
        """
        both, rows = torch.cat([first, second], 1), first.shape[1]
        low, back = how.multiply(both, self.down), how.multiply(both, self.up.transpose(1, 2))
        turned = torch.bmm(low, torch.bmm(self.up, self.up.transpose(1, 2)))
        squares = how.spread(both.square().sum(-1)) + ((2 * back + turned) * low).sum(-1)
        (h, i), (k, j), (t, u) = (both.chunk(2, 1) for both in (low, back, turned))
        products = how.spread((first * second).sum(-1)) + ((h * j + k * i) + (t * i + h * u) / 2).sum(-1)
        norms = (squares[:, :rows] * squares[:, rows:]).clamp_min(SMALLEST_NORM**4).sqrt()
        same = how.spread((first == second).all(-1))
        return torch.where(same, 1.0, products / norms)


class LayerwiseNorm(nn.Module):
    """Layer norm of every row, with weights of its own in each layer."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(layers, 1, width))
        self.bias = nn.Parameter(torch.zeros(layers, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> the same shape."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.weight)


class SeededRandom(nn.Module):
    """What is random in training, drawn for each member from a generator of its own.

    A member alone and the same member beside others draw the same numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generators: list[tuple[torch.Generator, int]] = []
        """A generator and how many of the leading layers it serves, member by member."""

    def draw(self, kind: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Random numbers of the shape of ``x``, ``[layer, row, width]``."""
        parts = [kind(layers, *x.shape[1:], generator=generator) for generator, layers in self.generators]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Dropout(SeededRandom):
    """Zeroes a share of the values in training and scales the others up."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or not self.share:
            return x
        return x.masked_fill(self.draw(torch.rand, x) < self.share, 0) / (1 - self.share)


class Noise(SeededRandom):
    """Adds normal noise of a given deviation in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.deviation * self.draw(torch.randn, x) if self.acts else x

    @property
    def acts(self) -> bool:
        """Whether it does anything now."""
        return self.training and self.deviation > 0


class GroupedByWidth(nn.Module):
    """Layers of different widths: each run of layers of one shape is a module of its own.

    What comes in and goes out is padded with zeros to the widest; a layer reads and writes its own part.
    """

    def __init__(
        self, widths: Sequence[int], codes: Sequence[int], build: Callable[[int, int, int], nn.Module]
    ) -> None:
        """``build(layers, width, code)`` makes the module of a run."""
        super().__init__()
        self.runs = list(runs(widths, codes))
        self.shapes = [(widths[run.start], codes[run.start]) for run in self.runs]
        self.code = max(codes)
        sizes = [run.stop - run.start for run in self.runs]
        self.parts = nn.ModuleList(build(size, *shape) for size, shape in zip(sizes, self.shapes, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, widest]`` -> ``[layer, row, widest code]``."""
        done = []
        for run, (width, code), part in zip(self.runs, self.shapes, self.parts, strict=True):
            made = part(x[run, :, :width])
            done.append(made if code == self.code else functional.pad(made, (0, self.code - code)))
        return done[0] if len(done) == 1 else torch.cat(done)


def runs(*by_layer: Sequence[int]) -> Iterator[slice]:
    """Slices of consecutive layers that agree in everything."""
    start = 0
    for _, group in groupby(zip(*by_layer, strict=True)):
        end = start + len(list(group))
        yield slice(start, end)
        start = end


def mlp(layers: int, width: int, code: int, depth: int, dropout: float, norm: bool) -> nn.Sequential:
    """Layer norm where asked for, then ``depth`` linear maps with GELU and dropout between them."""
    modules: list[nn.Module] = [LayerwiseNorm(layers, width)] if norm else []
    modules.append(LayerwiseLinear(layers, width, code))
    for _ in range(depth - 1):
        modules += [nn.GELU(), Dropout(dropout), LayerwiseLinear(layers, code, code)]
    return nn.Sequential(*modules)
