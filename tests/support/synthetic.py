"""Latents and corpora made up of numbers: what probes learn from where no backbone is needed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.text import Segments
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.inputs.token_inputs import TokenInputs, stored_tokens
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import MemberLayout, shared_reads

TEXTS = 60
EVEN, RAGGED = (8, 8, 8, 8), (8, 8, 6, 4)


def latents(widths: Sequence[int] = EVEN, texts: int = TEXTS, seed: int = 0) -> torch.Tensor:
    """``[layer, text, widest]``, far from centred; zeros beyond the width of a layer."""
    x = torch.randn(len(widths), texts, max(widths), generator=torch.Generator().manual_seed(seed)) + 0.5
    for layer, width in enumerate(widths):
        x[layer, :, width:] = 0
    return x


def inputs(widths: Sequence[int] = EVEN, texts: int = TEXTS, seed: int = 0) -> PooledInputs:
    columns = tuple(Column("", "mean", layer) for layer in range(len(widths)))
    return PooledInputs(values=latents(widths, texts, seed), columns=columns, widths=tuple(widths))


def layout(members: Sequence[tuple[int, ...]] = ((0, 1, 2, 3),), widths: Sequence[int] = EVEN) -> MemberLayout:
    """Layout of members whose codes are as wide as their latents."""
    return MemberLayout(tuple(members), tuple(widths), tuple(widths))


def scored(source: PooledInputs, layer: int = 1) -> Corpus:
    """Pairs whose score is the cosine of their latents in one layer."""
    texts = source.values.shape[1]
    sides = np.arange(texts).reshape(-1, 2)
    scores = cosines(*(source.values[layer, column] for column in sides.T)).double().numpy() / 2 + 0.5
    return _corpus(texts, Rows(sides, scores), ())


def classed(source: PooledInputs, sides: int = 2, layer: int = 1) -> Corpus:
    """Pairs, or texts, of three classes: where their latents lie, along one direction of one layer."""
    texts = source.values.shape[1]
    pairs = np.arange(texts // 2 * sides).reshape(-1, sides)
    places = source.values[layer, :, 0].numpy()[pairs].sum(1)
    codes = np.digitize(places, np.quantile(places, [1 / 3, 2 / 3]))
    return _corpus(texts, Rows(pairs, codes), ("a", "b", "c"))


def labelled(source: ProbeInputs, sides: int = 2, layer: int = 1) -> Corpus:
    """Pairs, or texts, with label sets: whether the sums of their first latents of one layer are large, each by itself.

    The second label is rarer than the first, and the last is in no row.
    """
    texts = source.values.shape[1]
    pairs = np.arange(texts // 2 * sides).reshape(-1, sides)
    sums = source.values[layer, :, :3].numpy()[pairs].sum(1)
    sets = sums > np.quantile(sums, [0.5, 0.7, 1.0], axis=0).diagonal()
    return _corpus(texts, Rows(pairs, sets.astype(np.float64)), ("large", "larger", "nowhere"))


def ranked(source: PooledInputs, candidates: int = 4, layer: int = 1) -> Corpus:
    """Queries with several passages each, of which the two nearest in one layer are relevant, the nearest most."""
    texts = source.values.shape[1]
    queries = texts // (candidates + 1)
    pairs = np.stack([np.repeat(np.arange(queries), candidates), np.arange(queries, queries * (candidates + 1))], 1)
    near = cosines(*(source.values[layer, column] for column in pairs.T)).numpy().reshape(queries, candidates)
    places = np.argsort(np.argsort(-near, 1), 1).reshape(-1)
    return replace(_corpus(texts, Rows(pairs, np.maximum(2.0 - places, 0)), ()), score_range=None, kind="rank")


def _corpus(texts: int, rows: Rows, labels: tuple[str, ...]) -> Corpus:
    """The first two thirds of the rows are for training; each split has texts of its own."""
    bound = len(rows) * 2 // 3
    bounds_of = {"train": slice(0, bound), "validation": slice(bound, None)}
    splits = {name: Rows(rows.texts[bounds], rows.targets[bounds]) for name, bounds in bounds_of.items()}
    kind = "labels" if rows.targets.ndim > 1 else "class" if labels else "score"
    unit = (0.0, 1.0) if kind == "score" else None
    return Corpus(
        name="toy", texts=tuple(map(str, range(texts))), splits=splits, labels=labels, score_range=unit, kind=kind
    )


def normal(probe: Probe, latents: torch.Tensor) -> torch.Tensor:
    """Centred and scaled latents of every layer of the probe, of those of all layers of its inputs."""
    reads = shared_reads(probe.layout)
    return reads.expand(probe.normalize(latents[reads.sources], reads))


def encode(probe: Probe, latents: torch.Tensor) -> torch.Tensor:
    """The codes of every layer of the probe, of the latents of all layers of its inputs."""
    reads = shared_reads(probe.layout)
    return probe.encode(latents[reads.sources], reads)


def say(probe: Probe, sides: Sequence[torch.Tensor]) -> torch.Tensor:
    """What each member says of rows, given the latents of all layers of the inputs for each side."""
    reads = shared_reads(probe.layout)
    return probe([side[reads.sources] for side in sides], reads)


def moved(module: nn.Module, by: float = 0.1, seed: int = 1) -> nn.Module:
    """The module away from its starting point, as training would leave it; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return module


def sentences(source: PooledInputs) -> Corpus:
    """Every text by itself, with nothing to be learnt of it."""
    texts = source.values.shape[1]
    rows = Rows(np.arange(texts)[:, None], np.zeros(texts, np.int64))
    return Corpus(name="sentences", texts=tuple(map(str, range(texts))), splits={"train": rows})


class Shelf:
    """A store of made-up latents: those of a text depend on the text, the view and the layer alone."""

    def __init__(self, width: int = 8, dtype: str = "float32") -> None:
        self.width, self.dtype = width, dtype
        self.identity = SimpleNamespace(name=f"shelf-{width}", max_tokens=256)
        self.shards: list[Any] = []

    def columns(self) -> dict[str, tuple[int, ...]]:
        return {}

    def read(self, texts: Sequence[str], view: str, layers: Sequence[int]) -> np.ndarray:
        drawn = [[self._latent(text, f"{view}:{layer}") for text in texts] for layer in layers]
        return np.array(drawn, self.dtype)

    def _latent(self, text: str, column: str) -> np.ndarray:
        return np.random.default_rng([self.width, *text.encode(), *column.encode()]).normal(size=self.width)


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SPECIAL = (-1, -1)
WIDE = 8
"""Width of made-up tokens."""

Span = tuple[int, int]


def pieces(text: str, size: int = 2) -> list[Span]:
    """The characters of every token: words in pieces of two characters."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    return [(at, min(at + size, last)) for first, last in words for at in range(first, last, size)]


def written(rng: np.random.Generator, fewest: int, most: int) -> str:
    """Some words of one to six letters."""
    return " ".join(
        "".join(rng.choice(list("abcdefgh"), rng.integers(1, 7))) for _ in range(rng.integers(fewest, most))
    )


def drawn_tags(rng: np.random.Generator, words: int) -> list[int]:
    """Indices of tags that follow each other as IOB2 allows."""
    tags: list[int] = []
    for _ in range(words):
        inside = {1: [2], 2: [2], 3: [4], 4: [4]}.get(tags[-1], []) if tags else []
        tags.append(int(rng.choice([0, 0, 1, 3, *inside, *inside])))
    return tags


def token_latents(
    texts: Sequence[Sequence[Span]], layers: int = 2, seed: int = 0, dtype: str = "float32"
) -> TokenLatents:
    """Random states of the tokens of texts, or windows, with these spans; the second number of a span of -1 is free."""
    lengths = np.array([len(text) for text in texts])
    rng = np.random.default_rng([seed, 5])
    states = (rng.normal(size=(layers, lengths.sum(), WIDE)) + 0.3).astype(dtype)
    spans = np.array([span for text in texts for span in text], np.int32).reshape(-1, 2)
    return TokenLatents(states, offsets_from_lengths(lengths), np.zeros(len(spans), np.int32), spans)


def as_inputs(latents: TokenLatents, starts: Sequence[int] | None = None) -> TokenInputs:
    """Token latents as a probe reads them, each window a text by itself where no starts of texts are given."""
    columns = [Column("", "tokens", layer) for layer in range(len(latents.states))]
    starts = range(len(latents.offsets)) if starts is None else starts
    return stored_tokens(latents.select, latents.index(np.array(starts)), columns, latents.states.shape[2])


def token_inputs(
    texts: Sequence[Sequence[Span]], layers: int = 2, seed: int = 0, dtype: str = "float32"
) -> TokenInputs:
    """The same as a probe reads them."""
    return as_inputs(token_latents(texts, layers, seed, dtype))


def states_of(found: TokenInputs) -> torch.Tensor:
    """The states of all tokens, ``[layer, token, width]``."""
    return found.token_states(np.arange(len(found.tokens.lengths)), range(len(found.columns)))


def tagged(
    sentences: int = 30, most: int = 9, room: int = 99, layers: int = 2, seed: int = 0, shift: int = 0
) -> tuple[TokenInputs, Corpus]:
    """Sentences whose tags stand in the states of their words' first tokens, in the last layer.

    Args:
        room: most tokens of a text, the special ones at both ends included; further ones are cut.
        shift: by how many words the state that tells a tag stands after the word.
    """
    rng = np.random.default_rng(seed)
    texts = [written(rng, 1, most) for _ in range(sentences)]
    words = [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
    codes = [drawn_tags(rng, len(spans)) for spans in words]
    latents = token_latents([[SPECIAL, *pieces(text)[: room - 2], SPECIAL] for text in texts], layers, seed)
    for text, (spans, tags) in enumerate(zip(words, codes, strict=True)):
        starts = latents.spans[latents.offsets[text] : latents.offsets[text + 1], 0].tolist()
        for word, tag in enumerate(tags):
            if word + shift < len(spans) and spans[word + shift][0] in starts:
                latents.states[-1, latents.offsets[text] + starts.index(spans[word + shift][0]), tag] += 5
    order = rng.permutation(sentences)
    marks = Spans(
        np.array([span for text in order for span in words[text]]),
        np.array([tag for text in order for tag in codes[text]]),
        offsets_from_lengths(np.array([len(words[text]) for text in order])),
    )
    rows = Rows(order[:, None], np.zeros(sentences, np.int64), marks)
    corpus = Corpus(name="toy", texts=tuple(texts), splits=_thirds(rows), labels=TAGS, kind="tags")
    return as_inputs(latents), corpus


def answered(
    questions: int = 24, room: int = 12, stride: int = 4, layers: int = 2, seed: int = 0, unanswered: int = 0
) -> tuple[TokenInputs, Corpus]:
    """Questions on contexts in windows of ``room`` tokens; the states of the answer's first and last token say so.

    Before the tokens of the context stand a special one, two of the question and a special one, after them another.

    Args:
        unanswered: one of so many questions has no answer; 0 gives all one. The state of a window's first token then
            says that it is the first.
    """
    rng = np.random.default_rng(seed)
    texts, windows, starts, spans, counts = [], [], [0], [], []
    for number in range(questions):
        context = written(rng, 3, 14)
        texts.append(Segments(f"why {number}", context))
        tokens = pieces(context)
        for at in range(0, max(1, len(tokens) - stride), room - stride):
            windows.append([*[SPECIAL] * 4, *tokens[at : at + room], SPECIAL])
        starts.append(len(windows))
        words = [match.span() for match in re.finditer(r"\S+", context)]
        counts.append(0 if unanswered and number % unanswered == 0 else int(rng.integers(1, 4)))
        for _ in range(counts[-1]):
            first = int(rng.integers(len(words)))
            spans.append((words[first][0], words[min(first + int(rng.integers(3)), len(words) - 1)][1]))
    latents = token_latents(windows, layers, seed)
    marks = Spans(np.array(spans), np.zeros(len(spans), np.int64), offsets_from_lengths(np.array(counts)))
    latents.states[-1, latents.offsets[:-1], 2] += 4 * bool(unanswered)
    for number in np.flatnonzero(counts):
        first, last = spans[marks.offsets[number]]
        for window in range(starts[number], starts[number + 1]):
            for token, (low, high) in enumerate(windows[window]):
                latents.states[-1, latents.offsets[window] + token, 0] += 4 * (low <= first < high)
                latents.states[-1, latents.offsets[window] + token, 1] += 4 * (low < last <= high)
    order = rng.permutation(questions)
    rows = Rows(order[:, None], np.zeros(questions, np.int64), marks.select(order))
    corpus = Corpus(name="toy", texts=tuple(texts), splits=_thirds(rows), kind="answers")
    return as_inputs(latents, starts), corpus


def _thirds(rows: Rows) -> dict[str, Rows]:
    bound = len(rows) * 2 // 3
    places = np.arange(len(rows))
    return {"train": rows.select(places[:bound]), "validation": rows.select(places[bound:])}
