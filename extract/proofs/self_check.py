"""Self-check: stops a run whose latents are not those of each text alone.

1. Tokens: they equal those of transformers' tokenizer, made of the same files read anew.
2. Structure: masks, positions, padding, prefixes, pooling and layers are proven in float64, because no tolerance tells
   a wrong structure from the rounding of bfloat16 (:mod:`permafrost.extract.proofs.proof`).
3. Arithmetic: a few texts of the run, in its own precision, are compared with the reference.
4. Read-back: texts of the first shard are read by key and compared with the reference
   (:mod:`permafrost.extract.proofs.read_back`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.plan.plan import TOKENS, Columns
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.text import Segments, Text, quote_text
from permafrost.extract.backbones.tokenizer import tokenizer_digest
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.proofs.proof import SelfCheckError, prove_structure
from permafrost.extract.proofs.reference import (
    ReferenceText,
    ReferenceTokenizer,
    reference_latents,
    reference_states,
    states_in_windows,
)
from permafrost.extract.proofs.structure import evenly_spaced
from permafrost.extract.tokenization.token_batch import TokenBatch

PRECISION_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference allowed in the run's precision, as a share of the largest value of each latent, or of 1."""

TOLERATED_SHARE = {"float32": 1.0, "bfloat16": 0.5}
"""Share of the latents that must keep the tolerance: beside a massive activation, bfloat16 alone moves some by 0.3."""

TOKENIZED_TEXTS, RUN_TEXTS = 64, 2
"""Texts whose tokens are checked, and texts that are run alone."""

MOST_WINDOWS = 8
"""Most windows of a text that is compared as a whole; of a longer one, the first two windows are compared."""


class Rounding(NamedTuple):
    """Differences between texts run together and alone in the run's precision, as shares of the largest value."""

    dtype: str
    tolerated: float
    """Largest difference of the share of the latents that must keep the tolerance, ``TOLERATED_SHARE``."""

    largest: float

    def __str__(self) -> str:
        share = TOLERATED_SHARE[self.dtype]
        latents = "latents" if share == 1 else f"{share:.0%} of the latents"
        return (
            f"{latents} of texts together differ from those of each text alone by at most {self.tolerated:.1e} of the "
            f"largest value, and {PRECISION_TOLERANCE[self.dtype]:g} is allowed in {self.dtype}"
        )


class SelfCheck:
    """Checks of one request."""

    def __init__(self, runner: BackboneRunner, texts: Sequence[Text], tokens: TokenBatch) -> None:
        """Read the reference tokenizer; ``tokens`` are those of ``texts`` by the extraction under check."""
        self._runner, self.texts, self.tokens, self.identity = runner, texts, tokens, runner.identity
        self._tokenizer = ReferenceTokenizer(runner.source.tokenizer, runner.plan)
        self.known_states: dict[int, Tensor] = {}
        """Text -> its hidden states by the reference, of the texts that the arithmetic was checked on."""

    def check_before_run(self, todo: NDArray[np.int64], columns: Columns) -> Rounding:
        """Check tokens, structure and arithmetic before anything is stored; return the result of the arithmetic check.

        Args:
            todo: the texts that are to run.

        Raises:
            SelfCheckError: a check failed.
        """
        if tokenizer_digest(self._runner.backbone.tokenizer) != self.identity.tokenizer:
            raise SelfCheckError(f"the tokenizer in use is not the one in {self._runner.source.tokenizer}")
        by_length = todo[np.argsort(self.tokens.lengths[todo], kind="stable")]
        for text in evenly_spaced(by_length, TOKENIZED_TEXTS):
            self._check_windows(text, self._reference_text(text))
        prove_structure(self._runner, self.tokens, int(self.tokens.run_lengths[todo].sum()))
        return self._check_arithmetic(evenly_spaced(by_length, RUN_TEXTS), columns)

    def _reference_text(self, text: int) -> ReferenceText:
        """Return the reference tokens of a text; raise :class:`SelfCheckError` if the extraction has others."""
        tokens = self.tokens
        length, uncut, seen = int(tokens.lengths[text]), int(tokens.uncut[text]), tokens.viewed_range(text)
        expected = self._tokenizer(self.texts[text], length, uncut)
        comparisons: list[tuple[str, Any, Any]] = [
            ("token ids", tokens.ids_of(text), expected.ids),
            ("tokens that views see", np.arange(length)[seen], expected.seen),
            ("length", uncut, expected.uncut),
        ]
        if tokens.token_type_ids is not None:
            comparisons.append(("segments", tokens.token_type_ids_of(text), expected.token_type_ids or [0] * length))
        if tokens.own is not None:
            comparisons.append(("tokens of its own", np.arange(length)[slice(*tokens.own[text])], expected.own))
        if tokens.characters is not None:
            spans = tokens.characters[tokens.viewed_index(np.array([text]))]
            comparisons.append(("character spans", spans.reshape(-1), np.reshape(expected.spans, -1)))
        for name, actual, wanted in comparisons:
            if not np.array_equal(actual, wanted):
                raise SelfCheckError(
                    f"text {quote_text(self.texts[text])} has other {name} than transformers' tokenizer gives it: "
                    f"{_first_difference(actual, wanted)}"
                )
        return expected

    def _check_windows(self, text: int, reference: ReferenceText) -> None:
        """Raise :class:`SelfCheckError` if the windows of a text leave out a token of it, or are too long."""
        covers, segments = True, self.texts[text]
        if self.window_counts[text] > 1:
            covers = self._stretches_cover(text, reference)
        elif isinstance(segments, Segments) and self.identity.in_windows:
            windows = [text - segments.window]
            following = segments.shift_window(1 - segments.window)
            while self.texts[windows[-1] + 1 : windows[-1] + 2] == [following.shift_window(len(windows) - 1)]:
                windows.append(windows[-1] + 1)
            lengths, uncut = self.tokens.lengths[windows], self.tokens.uncut[windows]
            covers = self._tokenizer.covers(segments, lengths.tolist(), uncut.tolist())
        if not covers:
            raise SelfCheckError(f"the windows of text {quote_text(segments)} leave out tokens of it")

    def _stretches_cover(self, text: int, reference: ReferenceText) -> bool:
        """Return whether the windows of a text of one segment hold every token of it, and are not too long."""
        (first, end), stretches = reference.inside, self._stretches(text)
        room = self._runner.plan.token_limit - (len(reference.ids) - (end - first))
        ends = [first, *(stop for _, stop in stretches)]
        fit = all(stop - room <= start <= before for before, (start, stop) in zip(ends, stretches, strict=False))
        return fit and (stretches[0][0], ends[-1]) == (first, end)

    def _check_arithmetic(self, sample: Sequence[int], columns: Columns) -> Rounding:
        """Return the relative differences between texts together and alone in the run's precision."""
        whole = [text for text in sample if self.window_counts[text] <= MOST_WINDOWS]
        tokens = self.tokens.select(np.array(whole, np.int64))
        differences = list(
            self._differences(tokens, lambda number: self.reference_latents(whole[number], columns), columns)
        )
        for text in {*sample} - {*whole}:
            words = self._reference_text(text).words
            windows = self.tokens.in_windows(np.array([text]))[0].select(np.arange(2))
            differences += self._differences(
                windows, partial(self._latents_of_window, windows, words, columns), columns
            )
        dtype = self.identity.compute_dtype
        tolerated = float(np.quantile(differences, TOLERATED_SHARE[dtype]))
        rounding = Rounding(dtype, tolerated, max(differences))
        if not tolerated <= PRECISION_TOLERANCE[dtype]:
            raise SelfCheckError(str(rounding))
        return rounding

    def _differences(
        self, tokens: TokenBatch, expected: Callable[[int], dict[str, NDArray[Any]]], columns: Columns
    ) -> Iterator[float]:
        """Yield the relative differences of some texts together from ``expected``, which is called with each text."""
        for pack in self._runner.pack(tokens) if len(tokens.uncut) else ():
            texts, latents = np.concatenate(pack), self._runner.forward(pack, tokens, columns)
            ends = offsets_from_lengths(tokens.viewed_lengths[texts])
            for number, text in enumerate(texts.tolist()):
                for view, wanted in expected(text).items():
                    index = slice(ends[number], ends[number + 1]) if view == TOKENS else number
                    yield from _relative_difference(latents[view][:, index], wanted).reshape(-1).tolist()

    def _latents_of_window(
        self, windows: TokenBatch, words: bool, columns: Columns, number: int
    ) -> dict[str, NDArray[Any]]:
        """Return what a window of a text adds to its latents, by the reference."""
        states = self._states(windows.ids_of(number).tolist())
        seen = np.arange(len(states[0]))[windows.viewed_range(number)].tolist()
        own = seen if windows.own is None else np.arange(*windows.own[number]).tolist()
        return reference_latents(states, seen, own, words, columns)

    @cached_property
    def window_counts(self) -> NDArray[np.int64]:
        """``[text]``: number of windows."""
        return np.ones(len(self.texts), np.int64) if self.tokens.windows is None else self.tokens.windows.counts

    def _stretches(self, text: int) -> list[tuple[int, int]]:
        """Return the stretches of a text that runs in windows."""
        assert self.tokens.windows is not None
        return list(map(tuple, self.tokens.windows.select(np.array([text])).ranges.tolist()))

    def _states(self, ids: list[int], token_type_ids: list[int] | None = None) -> Tensor:
        return reference_states(self._runner.backbone, self._runner.plan.final_norm, ids, token_type_ids)

    def reference_latents(self, text: int, columns: Columns) -> dict[str, NDArray[Any]]:
        """Return the latents of one text by the reference.

        Returns:
            view -> ``[layer, width]``, or of ``tokens``, ``[layer, token, width]``.

        Raises:
            SelfCheckError: the text has other tokens than by the reference.
        """
        reference = self._reference_text(text)
        states = self.known_states.get(text)
        if states is None:
            ids = reference.ids
            if self.window_counts[text] > 1:
                stretches = self._stretches(text)
                states = states_in_windows(lambda held: self._states([ids[n] for n in held]), stretches, len(ids))
            else:
                states = self._states(ids, reference.token_type_ids)
            if len(self.known_states) < RUN_TEXTS:
                self.known_states[text] = states
        return reference_latents(states, reference.seen, reference.own, reference.words, columns)


def _relative_difference(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """Return the largest difference of each latent ``[..., width]``, as a share of its largest value, or of 1."""
    finite = np.isfinite(expected)
    scale = np.maximum(1, np.abs(expected).max(axis=-1, keepdims=True, where=finite, initial=0))
    return np.asarray((np.abs(actual - expected, where=finite, out=np.zeros(expected.shape)) / scale).max(-1))


def _first_difference(actual: Any, expected: Any) -> str:
    actual, expected = np.atleast_1d(actual), np.atleast_1d(expected)
    if len(actual) != len(expected):
        return f"{len(expected)} expected, {len(actual)} found"
    index = int(np.argmax(actual != expected))
    return f"{expected[index]} expected at {index}, {actual[index]} found"
