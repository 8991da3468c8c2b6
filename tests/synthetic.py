"""Latents and corpora made up of numbers: what probes learn from where no backbone is needed."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from data.corpus import Corpus, Rows
from probes.inputs import Column, Inputs
from probes.probe import Probe
from probes.reading import reading
from probes.seats import Seats
from probes.siamese import cosines

TEXTS = 60
EVEN, RAGGED = (8, 8, 8, 8), (8, 8, 6, 4)


def latents(widths: Sequence[int] = EVEN, texts: int = TEXTS, seed: int = 0) -> torch.Tensor:
    """``[layer, text, widest]``, far from centred; zeros beyond the width of a layer."""
    x = torch.randn(len(widths), texts, max(widths), generator=torch.Generator().manual_seed(seed)) + 0.5
    for layer, width in enumerate(widths):
        x[layer, :, width:] = 0
    return x


def inputs(widths: Sequence[int] = EVEN, texts: int = TEXTS, seed: int = 0) -> Inputs:
    columns = tuple(Column("", "mean", layer) for layer in range(len(widths)))
    return Inputs(latents(widths, texts, seed), columns, tuple(widths))


def seats(members: Sequence[tuple[int, ...]] = ((0, 1, 2, 3),), widths: Sequence[int] = EVEN) -> Seats:
    """Seats of members whose codes are as wide as their latents."""
    return Seats(tuple(members), tuple(widths), tuple(widths))


def scored(source: Inputs, layer: int = 1) -> Corpus:
    """Pairs whose score is the cosine of their latents in one layer."""
    texts = source.values.shape[1]
    sides = np.arange(texts).reshape(-1, 2)
    scores = cosines(*(source.values[layer, column] for column in sides.T)).double().numpy() / 2 + 0.5
    return _corpus(texts, Rows(sides, scores), ())


def classed(source: Inputs, sides: int = 2, layer: int = 1) -> Corpus:
    """Pairs, or texts, of three classes: where their latents lie, along one direction of one layer."""
    texts = source.values.shape[1]
    pairs = np.arange(texts // 2 * sides).reshape(-1, sides)
    places = source.values[layer, :, 0].numpy()[pairs].sum(1)
    codes = np.digitize(places, np.quantile(places, [1 / 3, 2 / 3]))
    return _corpus(texts, Rows(pairs, codes), ("a", "b", "c"))


def _corpus(texts: int, rows: Rows, labels: tuple[str, ...]) -> Corpus:
    """The first two thirds of the rows are for training; each split has texts of its own."""
    bound = len(rows) * 2 // 3
    parts = {"train": slice(0, bound), "validation": slice(bound, None)}
    splits = {name: Rows(rows.sides[part], rows.targets[part]) for name, part in parts.items()}
    kind, unit = ("class", None) if labels else ("score", (0.0, 1.0))
    return Corpus("toy", tuple(map(str, range(texts))), splits, labels, unit, kind)


def normal(probe: Probe, latents: torch.Tensor) -> torch.Tensor:
    """Centred and scaled latents of every layer of the probe, of those of all layers of its inputs."""
    how = reading(probe.seats)
    return how.spread(probe.normal(latents[how.sources], how))


def encode(probe: Probe, latents: torch.Tensor) -> torch.Tensor:
    """The codes of every layer of the probe, of the latents of all layers of its inputs."""
    how = reading(probe.seats)
    return probe.encode(latents[how.sources], how)


def say(probe: Probe, sides: Sequence[torch.Tensor]) -> torch.Tensor:
    """What each member says of rows, given the latents of all layers of the inputs for each side."""
    how = reading(probe.seats)
    return probe([side[how.sources] for side in sides], how)


def moved(module: nn.Module, by: float = 0.1, seed: int = 1) -> nn.Module:
    """The module away from its starting point, as training would leave it; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return module


def sentences(source: Inputs) -> Corpus:
    """Every text by itself, with nothing to be learnt of it."""
    texts = source.values.shape[1]
    rows = Rows(np.arange(texts)[:, None], np.zeros(texts, np.int64))
    return Corpus("sentences", tuple(map(str, range(texts))), {"train": rows})


class Shelf:
    """A store of made-up latents: those of a text depend on the text, the view and the layer alone."""

    def __init__(self, width: int = 8, dtype: str = "float32") -> None:
        self.width, self.dtype = width, dtype
        self.identity = SimpleNamespace(name=f"shelf-{width}")

    def read(self, texts: Sequence[str], view: str, layers: Sequence[int]) -> np.ndarray:
        drawn = [[self._latent(text, f"{view}:{layer}") for text in texts] for layer in layers]
        return np.array(drawn, self.dtype)

    def _latent(self, text: str, column: str) -> np.ndarray:
        return np.random.default_rng([self.width, *text.encode(), *column.encode()]).normal(size=self.width)
