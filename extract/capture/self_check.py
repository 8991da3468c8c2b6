"""The self-check: it stops a run whose latents are not those of each text alone.

1. Tokens are those that transformers' tokenizer makes of the same files, read anew.
2. Structure (masks, positions, padding, prefixes, pooling, layers) is proven in float64, dimension by dimension, on
   texts of unequal length that share beginnings, run together and each alone: on the backbone in float64 where that
   costs a small share of the run, else on a twin of its configuration, and remembered.
3. Arithmetic: the run's own precision against the same reference. No tolerance tells structure from bfloat16.
4. Read-back: texts of the first shard are read by key and compared with the plain forward of the real weights.
"""

import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data import ragged
from permafrost.data.errors import MachineError
from permafrost.data.ragged import bounds
from permafrost.data.store.plan import TOKENS, WHOLE, Columns
from permafrost.data.text import Segments, Text, short
from permafrost.extract.backbones import configuration, load, locate
from permafrost.extract.backbones.configuration import canonical_json, first_line
from permafrost.extract.backbones.file_digest import Memo
from permafrost.extract.backbones.load import Backbone, tokenizer_digest
from permafrost.extract.capture import forward, packing, pooling, reference, structure, twin
from permafrost.extract.capture.code_digest import code_digest
from permafrost.extract.capture.reference import Reference, ReferenceText, ReferenceTokenizer
from permafrost.extract.capture.structure import Deviation, Runner, structure_deviation
from permafrost.extract.capture.twin import VOCABULARY, make_copy, make_twin, special_ids
from permafrost.extract.tokenization import token_batch
from permafrost.extract.tokenization.token_batch import TokenBatch

STRUCTURE_TOLERANCE = 1e-5
"""Largest deviation in float64, as a share of the spread of each dimension over texts."""

PRECISION_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Most that latents may deviate in the run's precision, as a share of the largest value of each, or of 1."""

TOLERATED_SHARE = {"float32": 1.0, "bfloat16": 0.5}
"""Of which share of the latents this is asked: beside a massive activation, bfloat16 alone moves some by 0.3."""

MEMO = "self-checks.json"

TOKENIZED_TEXTS, RUN_TEXTS, KNOWN_TOKENS = 64, 2, 1_000_000

COPY_SHARE = 0.02
"""Of a run's cost, what the proof on a copy of the backbone may take."""

COPY_TOKENS = {("cpu", "float32"): 3_000, ("cpu", "bfloat16"): 12_000}

COPY_TOKENS_ELSEWHERE = 24_000
"""What that proof costs, in tokens of the run, by device and precision: float64 is slow, and single texts are short."""


class SelfCheckError(MachineError):
    """Latents that are not those of each text alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f'self-check: {reason}. These latents cannot be trusted and are not kept. Try extract.device = "cpu" or '
            'plan.compute_dtype = "float32"; if it stays, report this message: torch '
            f"{torch.__version__}, transformers {version('transformers')}."
        )


class SelfCheck:
    """The checks of one request: the tokens of its texts, and what they are run by."""

    def __init__(self, job: Runner, texts: Sequence[Text], tokens: TokenBatch) -> None:
        self._job, self._texts, self.tokens, self.identity = job, texts, tokens, job.store.identity
        self._tokenizer = ReferenceTokenizer(job.source.tokenizer, job.plan)
        self._reference = Reference(job.backbone, job.plan.final_norm)
        self.known_states: dict[int, torch.Tensor] = {}
        """Hidden states by the reference of the texts that the run's precision was tried on."""

    def check_before_run(self, todo: NDArray[np.int64], columns: Columns) -> float:
        """Check tokens, structure and arithmetic before anything is stored; returns the deviation of the arithmetic.

        Args:
            todo: the texts that are to run.

        Raises:
            MachineError: one of them is not right.
        """
        if tokenizer_digest(self._job.backbone.tokenizer) != self.identity.tokenizer:
            raise SelfCheckError(f"the tokenizer in use is not the one in {self._job.source.tokenizer}")
        ranked = todo[np.argsort(self.tokens.lengths[todo], kind="stable")]
        for text in evenly_spaced(ranked, TOKENIZED_TEXTS):
            self.tokenized(text)
            self._check_windows(text)
        self._prove_structure(int(self.tokens.lengths[todo].sum()))
        return self._arithmetic(evenly_spaced(ranked, RUN_TEXTS), columns)

    def tokenized(self, text: int) -> ReferenceText:
        """A text by transformers' tokenizer; raises where ours gives other tokens, spans or another length."""
        tokens = self.tokens
        length, uncut, seen = int(tokens.lengths[text]), int(tokens.uncut[text]), tokens.span(text)
        expected = self._tokenizer(self._texts[text], length, uncut)
        pairs: list[tuple[str, Any, Any]] = [
            ("token ids", tokens.of(text), expected.ids),
            ("tokens that views see", np.arange(length)[seen], expected.seen),
            ("length", uncut, expected.uncut),
        ]
        if tokens.token_type_ids is not None:
            pairs.append(("segments", tokens.token_type_ids_of(text), expected.token_type_ids or [0] * length))
        if tokens.characters is not None:
            spans = tokens.characters[tokens.seen(np.array([text]))]
            pairs.append(("character spans", spans.reshape(-1), np.reshape(expected.spans, -1)))
        for name, found, wanted in pairs:
            if not np.array_equal(found, wanted):
                raise SelfCheckError(
                    f"text {short(self._texts[text])} has other {name} than transformers' tokenizer gives it: "
                    f"{_first_difference(found, wanted)}"
                )
        return expected

    def _check_windows(self, text: int) -> None:
        """Raise if the windows of a text of two segments leave out a token of it."""
        segments = self._texts[text]
        if not isinstance(segments, Segments) or self._job.plan.overlap == WHOLE:
            return
        windows = [text - segments.window]
        while self._texts[windows[-1] + 1 : windows[-1] + 2] == [segments.later(len(windows) - segments.window)]:
            windows.append(windows[-1] + 1)
        lengths, uncut = self.tokens.lengths[windows], self.tokens.uncut[windows]
        if not self._tokenizer.covers(segments, lengths.tolist(), uncut.tolist()):
            raise SelfCheckError(f"the windows of text {short(segments)} leave out tokens of it")

    def _prove_structure(self, run_tokens: int) -> None:
        job = self._job
        if _worth_a_copy(job.backbone, self.identity.compute_dtype, run_tokens):
            known = np.unique(self.tokens.ids[:KNOWN_TOKENS])
            self._prove_on(make_copy(job.backbone), known[evenly_spaced(np.arange(len(known)), VOCABULARY)])
        else:
            found = Memo(Path(job.spec.cache) / MEMO).get(self._proof_key(), lambda: f"{self._prove_on_twin():.1e}")
            self._check_structure(Deviation(float(found)))

    def _proof_key(self) -> str:
        """What a proof on a twin holds for."""
        import transformers

        job = self._job
        of = [canonical_json(job.source.config), job.source.family, job.plan.final_norm, job.backbone.device.type]
        making = (
            ragged,
            locate,
            configuration,
            load,
            forward,
            packing,
            pooling,
            token_batch,
            sys.modules[type(job).__module__],
        )
        checking = (reference, structure, twin, sys.modules[__name__])
        by = [torch.__version__, transformers.__version__, code_digest(*making, *checking)]
        return f"structure {hashlib.sha256(repr((of, by)).encode()).hexdigest()}"

    def _prove_on_twin(self) -> float:
        small = make_twin(self._job.backbone)
        ids = np.array(sorted({*range(VOCABULARY)} - special_ids(small.source)), np.int32)
        return self._prove_on(small, ids)

    def _prove_on(self, model: Backbone, ids: NDArray[np.int32]) -> float:
        try:
            found = structure_deviation(self._job, model, ids)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what is wrong with masks or positions may not run at all
            raise SelfCheckError(f"texts together cannot be run in float64 ({first_line(error)})") from error
        self._check_structure(found)
        return found.value

    def _check_structure(self, found: Deviation) -> None:
        if not found.value <= STRUCTURE_TOLERANCE:
            raise SelfCheckError(
                f"in float64 texts together differ from texts alone by {found.value:.2g} of the spread of a dimension "
                f"(view {found.view}, layer {found.layer}); {STRUCTURE_TOLERANCE:g} is allowed"
            )

    def _arithmetic(self, sample: Sequence[int], columns: Columns) -> float:
        """Largest difference between texts together and alone in the run's precision, relative to the largest value."""
        job, tokens = self._job, self.tokens.select(np.array(sample))
        found: list[float] = []
        for pack in job.packed(tokens):
            members, together = np.concatenate(pack), job.forward(pack, tokens, columns)
            ends = bounds(tokens.viewed[members])
            for place, text in enumerate(members):
                expected = self.reference_latents(int(sample[text]), columns)
                for view, theirs in expected.items():
                    own = slice(ends[place], ends[place + 1]) if view == TOKENS else place
                    found += _relative(together[view][:, own], theirs).reshape(-1).tolist()
        dtype = self.identity.compute_dtype
        limit, largest = PRECISION_TOLERANCE[dtype], float(np.quantile(found, TOLERATED_SHARE[dtype]))
        if not largest <= limit:
            raise SelfCheckError(
                f"in {dtype} texts together differ from texts alone by {largest:.2g} of the largest value; "
                f"{limit:g} is allowed"
            )
        return max(found)

    def reference_latents(self, text: int, columns: Columns) -> dict[str, NDArray[Any]]:
        """View -> ``[layer, width]``, or of tokens ``[layer, token, width]``, of one text by the reference."""
        found = self.tokenized(text)
        states = self.known_states.get(text)
        if states is None:
            states = self._reference.states(found.ids, found.token_type_ids)
            if len(self.known_states) < RUN_TEXTS:
                self.known_states[text] = states
        return self._reference.latents(states, found.seen, columns)


def _relative(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
    """``[..., width]`` -> ``[...]``: largest difference of each latent, as a share of its largest value, or of 1."""
    sound = np.isfinite(theirs)
    scale = np.maximum(1, np.abs(theirs).max(axis=-1, keepdims=True, where=sound, initial=0))
    return np.asarray((np.abs(mine - theirs, where=sound, out=np.zeros(theirs.shape)) / scale).max(-1))


def _worth_a_copy(backbone: Backbone, dtype: str, run_tokens: int) -> bool:
    """Whether a proof on the backbone in float64 fits into half of the memory, and takes a small share of the run."""
    cost = COPY_TOKENS.get((backbone.device.type, dtype), COPY_TOKENS_ELSEWHERE)
    copy = backbone.parameters * (8 + backbone.dtype.itemsize)
    return cost <= COPY_SHARE * run_tokens and copy <= _free_memory(backbone.device) / 2


def _free_memory(device: torch.device) -> int:
    """Bytes that this process may still take."""
    import psutil

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current")]  # of a container
    try:
        most, taken = (int(path.read_text()) for path in limits)
    except (OSError, ValueError):  # there is none, or no limit
        return int(psutil.virtual_memory().available)
    return min(most - taken, int(psutil.virtual_memory().available))


def evenly_spaced(ranked: NDArray[np.int64], most: int) -> list[int]:
    """At most so many of the texts, from the shortest to the longest."""
    return [int(ranked[place]) for place in np.unique(np.linspace(0, len(ranked) - 1, most).astype(int))]


def _first_difference(found: Any, wanted: Any) -> str:
    found, wanted = np.atleast_1d(found), np.atleast_1d(wanted)
    if len(found) != len(wanted):
        return f"{len(wanted)} expected, {len(found)} found"
    place = int(np.argmax(found != wanted))
    return f"{wanted[place]} expected at {place}, {found[place]} found"
