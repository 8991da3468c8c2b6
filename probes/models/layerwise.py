"""Layerwise networks: one small network per layer, all in one batched matmul; layers share nothing.

Every module maps ``[layer, row, width]`` to ``[layer, row, code]``, and every parameter has the layer as its first
axis. So one module can hold the layers of several probes, and each probe trains as it would alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from permafrost.probes.models.shared_reads import SharedReads

SMALLEST_NORM = 1e-8


class LayerwiseLinear(nn.Module):
    """Linear map of every layer ``l``: ``x_l W_l + b_l``."""

    def __init__(self, layers: int, width: int, code: int, start: str = "random") -> None:
        """Initialise the weights.

        Args:
            start: ``identity`` (a code narrower than the width keeps the leading dimensions), or ``random``: uniform
                within ``1 / sqrt(width)``, as ``nn.Linear`` starts.
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

    def shared(self, x: Tensor, reads: SharedReads) -> Tensor:
        """Map shared latents: ``[distinct, row, width]`` -> ``[layer, row, code]``."""
        return reads.multiply(x, self.weight) + self.bias


class LayerwiseLowRank(nn.Module):
    """Low-rank update of every layer: ``x_l + x_l A_l B_l``; at the start, the identity.

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

    def cosines(self, first: Tensor, second: Tensor, reads: SharedReads) -> Tensor:
        """Return the cosines of the outputs of two texts: ``[distinct, row, width]`` twice -> ``[layer, row]``.

        With ``h = x A`` and ``k = x B^T`` of low rank, ``(x + h B) . (y + i B) = x . y + h . (y B^T) + (x B^T) . i +
        h B B^T i^T``: no tensor of the width of the latents is computed for each layer, only for distinct latents.
        """
        both, rows = torch.cat([first, second], 1), first.shape[1]
        down, up = reads.multiply(both, self.down), reads.multiply(both, self.up.transpose(1, 2))
        gram = torch.bmm(down, torch.bmm(self.up, self.up.transpose(1, 2)))
        squares = reads.expand(both.square().sum(-1)) + ((2 * up + gram) * down).sum(-1)
        (h, i), (k, j), (t, u) = (projected.chunk(2, 1) for projected in (down, up, gram))
        products = reads.expand((first * second).sum(-1)) + ((h * j + k * i) + (t * i + h * u) / 2).sum(-1)
        norms = (squares[:, :rows] * squares[:, rows:]).clamp_min(SMALLEST_NORM**4).sqrt()
        same = reads.expand((first == second).all(-1))
        return torch.where(same, 1.0, products / norms)


class LayerwiseNorm(nn.Module):
    """Layer norm of every row, with separate weights for each layer."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(layers, 1, width))
        self.bias = nn.Parameter(torch.zeros(layers, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> the same shape."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.weight)


class SeededRandom(nn.Module):
    """Base of modules that are random in training, with a random generator for each member.

    A member draws the same numbers alone and in a stacked probe; they are drawn on the device of its generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generators: list[tuple[torch.Generator, int]] = []
        """For each member, its generator and its number of layers (or 1 if the first axis is the member)."""

    def draw(self, kind: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Draw random numbers with ``kind``, of the shape of ``x``, ``[layer, row, width]``."""
        draws = [
            kind(layers, *x.shape[1:], generator=generator, device=generator.device)
            for generator, layers in self.generators
        ]
        return draws[0] if len(draws) == 1 else torch.cat(draws)


class Dropout(SeededRandom):
    """Dropout with the generators of the members."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> the same shape."""
        if not self.training or not self.share:
            return x
        return x.masked_fill(self.draw(torch.rand, x) < self.share, 0) / (1 - self.share)


class Noise(SeededRandom):
    """Gaussian noise of a given standard deviation, added in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> the same shape."""
        return x + self.deviation * self.draw(torch.randn, x) if self.active else x

    @property
    def active(self) -> bool:
        """Whether noise is added: in training mode, with a deviation above 0."""
        return self.training and self.deviation > 0


class GroupedByWidth(nn.Module):
    """Layers of different widths: one module for each run of consecutive layers of the same widths.

    Inputs and outputs are padded with zeros to the largest width.
    """

    def __init__(
        self, widths: Sequence[int], codes: Sequence[int], build: Callable[[int, int, int], nn.Module]
    ) -> None:
        """Build the module of each run with ``build(layers, width, code)``."""
        super().__init__()
        self.runs = list(runs(widths, codes))
        self.shapes = [(widths[run.start], codes[run.start]) for run in self.runs]
        self.code = max(codes)
        sizes = [run.stop - run.start for run in self.runs]
        self.parts = nn.ModuleList(build(size, *shape) for size, shape in zip(sizes, self.shapes, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, largest width]`` -> ``[layer, row, largest code]``."""
        outputs = []
        for run, (width, code), module in zip(self.runs, self.shapes, self.parts, strict=True):
            output = module(x[run, :, :width])
            outputs.append(output if code == self.code else functional.pad(output, (0, self.code - code)))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def layer_runs(self) -> Iterator[tuple[str, slice]]:
        """Yield the name of each parameter, and the slice of layers on its first axis."""
        for index, (run, part) in enumerate(zip(self.runs, self.parts, strict=True)):
            for name, _ in part.named_parameters():
                yield f"parts.{index}.{name}", run


def runs(*by_layer: Sequence[int]) -> Iterator[slice]:
    """Yield the slices of consecutive layers that are equal in every sequence, each ``[layer]``."""
    start = 0
    for _, group in groupby(zip(*by_layer, strict=True)):
        end = start + len(list(group))
        yield slice(start, end)
        start = end


def mlp(layers: int, width: int, code: int, depth: int, dropout: float, norm: bool) -> nn.Sequential:
    """Return ``depth`` linear maps with GELU between them and dropout before each, after a layer norm if ``norm``."""
    first: list[nn.Module] = [LayerwiseNorm(layers, width)] if norm else []
    first += [Dropout(dropout)] if dropout else []
    return nn.Sequential(*first, *linear_layers(layers, [width, *[code] * depth], dropout, nn.GELU))


def linear_layers(
    layers: int, sizes: Sequence[int], dropout: float, activation: Callable[[], nn.Module]
) -> list[nn.Module]:
    """Return linear maps from each of ``sizes`` to the next, with an activation and dropout between them."""
    modules: list[nn.Module] = []
    for width, code in pairwise(sizes):
        modules += [activation(), Dropout(dropout)] if modules else []
        modules.append(LayerwiseLinear(layers, width, code))
    return modules
