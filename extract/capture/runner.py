"""Backbone runner: texts to latents in memory, by tokenization, packing and forward passes.

Packs are laid out over a whole request, so a text has the same latents, bit by bit, whatever part of it is run.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.device.memory import PartSize, free_bytes
from permafrost.data.device.pipeline import Pipeline
from permafrost.data.device.side_by_side import run_side_by_side
from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.store.block import Block
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.text import Text
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source
from permafrost.extract.capture.forward import Pooled, start_capture
from permafrost.extract.capture.packing import Indices, Layout, Pack, count_tokens, halve, lay_out, make_packs
from permafrost.extract.capture.pooling import WindowPools
from permafrost.extract.capture.roads import Road
from permafrost.extract.capture.rounding import encode_latents
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.token_ids import tokenize_by_plan

ROW_TOKENS = 256
"""Most tokens in a row of a causal backbone; a longer text is a row of its own."""

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Device -> tokens of a pack, padding included, if ``extract.batch_tokens`` does not say."""

MEMORY_SHARE = 0.5
"""Share of the free memory of a GPU that a forward pass is made for; that of one for which it is short is halved."""

STATES_IN_PASS = 40
"""Hidden states for each token that a forward pass takes the memory of: projections, activations and copies."""

COPIES_OF_LATENTS = 3
"""Latents in the memory of a GPU, in forward passes: those that are computed, and those that are copied from it."""

TOKENS_OF_TEXT = 4
"""Number of tokens that a text is taken to have at least, for the memory of its pooled latents."""

SMALL_PASS = 4096
"""Most tokens of a forward pass on the CPU that others run beside; a larger one has work for all cores, and its memory
may grow with the square of a text's length."""

MOST_AT_ONCE = 8
"""Most forward passes that run side by side on the CPU; Python runs on one core at a time."""

_Todo = tuple[Sequence[Indices], Sequence[Indices]]
"""A pack of a request, and the rows of it that are to run."""

_Done = tuple[Indices, Pooled, Block]
"""Indices of texts, their latents, and the block that is stored of these."""


class _Request(NamedTuple):
    """Texts that blocks are made of."""

    tokens: TokenBatch
    texts: Sequence[Text]
    columns: Columns


@dataclass
class BackboneRunner:
    """Loaded backbone, and the plan that it runs texts for."""

    plan: CapturePlan
    source: Source
    identity: Identity
    spec: ExtractSpec
    backbone: Backbone
    road: Road = Road.EQUAL
    """How texts share a forward pass."""

    on_forward: Callable[[Indices, Pooled], None] | None = None
    """Called with the texts of each forward pass and their latents."""

    def __post_init__(self) -> None:
        self._replicas = [self.backbone]

    def tokenize_and_pack(self, texts: Sequence[Text], characters: bool = False) -> tuple[TokenBatch, list[Pack]]:
        """Tokenize a whole request, and group it into packs; arguments and errors as of :func:`tokenize_by_plan`."""
        tokens = self.tokenize(texts, characters)
        return tokens, self.pack(tokens)

    def tokenize(self, texts: Sequence[Text], characters: bool = False) -> TokenBatch:
        """Tokenize texts; arguments and errors as of :func:`tokenize_by_plan`."""
        return tokenize_by_plan(self.plan, self.source, self.backbone.tokenizer, texts, characters)

    def pack(self, tokens: TokenBatch, row_tokens: int = ROW_TOKENS, batch_tokens: int = 0) -> list[Pack]:
        """Group texts into packs of at most ``batch_tokens``; 0 takes the setting, or else the device's default."""
        default = self.spec.batch_tokens or BATCH_TOKENS.get(self.backbone.device.type, BATCH_TOKENS["cuda"])
        batch_tokens = batch_tokens or default
        return make_packs(tokens, self.road, min(row_tokens, batch_tokens), batch_tokens)

    def forward(
        self, rows: Sequence[Indices], tokens: TokenBatch, columns: Columns, backbone: Backbone | None = None
    ) -> Pooled:
        """Return the latents of the texts in ``rows``, run in one forward pass, or in several if texts have windows.

        So it is if the memory of a GPU does not hold the pass: then this and later ones are smaller.

        Args:
            backbone: another of the same family; None takes the runner's own.

        Raises:
            MachineError: the memory of the device does not hold the pass of a single text.
        """
        return self.start_forward(rows, tokens, columns, backbone)()

    def start_forward(
        self,
        rows: Sequence[Indices],
        tokens: TokenBatch,
        columns: Columns,
        backbone: Backbone | None = None,
        layout: Layout | None = None,
    ) -> Callable[[], Pooled]:
        """Start what :meth:`forward` does; the function returned waits for the latents and returns them.

        Args:
            layout: of the rows, as :meth:`_lay_out` returns it, if it is made already.
        """
        texts = np.concatenate(rows)
        if tokens.split(texts).any():
            latents = self._forward_windows(texts, tokens, columns, backbone)
            return lambda: latents

        def start(part: Sequence[Indices]) -> Callable[[], Pooled]:
            made = layout if layout and part is rows else lay_out(part, tokens, self.road)
            return start_capture(backbone or self.backbone, made, columns, self.plan.final_norm)

        try:
            parts = list(self.pass_size.run(rows, lambda part: count_tokens(part, tokens, self.road), halve, start))
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the memory of {self.backbone.device} does not hold the forward pass of one text, of up to "
                f'{int(tokens.lengths[texts].max()):,} tokens; set extract.device = "cpu", or a smaller '
                "plan.max_tokens, and run the same command: what was committed is kept."
            ) from error
        return parts[0] if len(parts) == 1 else lambda: _joined([part() for part in parts])

    def _lay_out(self, rows: Sequence[Indices], tokens: TokenBatch) -> Layout | None:
        """Return the layout of a forward pass; None if its texts run in windows, in passes of their own."""
        return None if tokens.split(np.concatenate(rows)).any() else lay_out(rows, tokens, self.road)

    @cached_property
    def pass_size(self) -> PartSize:
        """Most tokens of a forward pass that the memory of a GPU holds, by what is free now, and then by what fails."""
        device, spec = self.backbone.device, self.spec
        if device.type != "cuda" or spec.batch_tokens:
            return PartSize()
        columns = self.plan.columns(self.source.layers)
        return PartSize(tokens_that_fit(free_bytes(device), self.source.width, self.backbone.dtype.itemsize, columns))

    def _forward_windows(
        self, texts: Indices, tokens: TokenBatch, columns: Columns, backbone: Backbone | None
    ) -> Pooled:
        windows, text_of_window = tokens.in_windows(texts)
        pools = WindowPools(windows, text_of_window, columns)
        for pack in self.pack(windows):
            captured = self.forward(pack, windows, pools.columns, backbone)
            pools.add(np.concatenate(pack), captured)
        return pools.latents(next(iter(captured.values())).dtype)

    def blocks(
        self,
        packs: Sequence[Sequence[Indices]],
        members: Indices,
        tokens: TokenBatch,
        texts: Sequence[Text],
        columns: Columns,
    ) -> Generator[tuple[Indices, Block], None, None]:
        """Yield the latents of the texts with the indices ``members``, pack by pack; other packs are skipped.

        Each block comes with the indices of its texts. On the CPU several passes run side by side. With a GPU, passes
        are started, and their latents rounded, on threads of their own while the caller works on those before. The
        threads end with the iterator, which is to be closed.

        Args:
            packs: those of a whole request, whatever is to run of it; what runs side by side depends on them.
        """
        is_member = np.zeros(len(texts), bool)
        is_member[members] = True
        kept = ((pack, [own for row in pack if len(own := row[is_member[row]])]) for pack in packs)
        todo = ((pack, rows) for pack, rows in kept if rows)
        request, at_once = _Request(tokens, texts, columns), self._passes_at_once(packs)
        with closing(
            self._side_by_side(todo, request, at_once) if at_once > 1 else self._in_stages(todo, request)
        ) as run:
            for indices, captured, block in run:
                if self.on_forward:
                    self.on_forward(indices, captured)
                yield indices, block

    def _passes_at_once(self, packs: Sequence[Sequence[Indices]]) -> int:
        """Return how many passes run side by side; small ones do not keep more than one core busy."""
        is_alone = self.backbone.device.type != "cpu" or self.backbone.spread or self.spec.batch_tokens > SMALL_PASS
        return 1 if is_alone else min(torch.get_num_threads(), MOST_AT_ONCE, max(1, len(packs)))

    def _side_by_side(self, todo: Iterable[_Todo], request: _Request, at_once: int) -> Generator[_Done, None, None]:
        """Yield the blocks of packs, whole passes on threads that share the cores; a long text runs by itself."""
        self._replicas += [self.backbone.replica() for _ in range(len(self._replicas), at_once)]
        idle = SimpleQueue[Backbone]()
        for replica in self._replicas[:at_once]:
            idle.put(replica)

        def run(each: _Todo) -> _Done:
            rows, backbone = each[1], idle.get()
            try:
                wait = self.start_forward(rows, request.tokens, request.columns, backbone)
                return self._finish(np.concatenate(rows), wait, request)
            finally:
                idle.put(backbone)

        def is_long(each: _Todo) -> bool:
            texts = np.concatenate(each[0])
            return bool(request.tokens.lengths[texts].max() > SMALL_PASS) and not request.tokens.split(texts).any()

        return run_side_by_side(run, todo, at_once, is_long)

    def _in_stages(self, todo: Iterable[_Todo], request: _Request) -> Generator[_Done, None, None]:
        """Yield the blocks of packs; with a GPU, each stage of the work runs on a thread of its own."""
        tokens, columns = request.tokens, request.columns
        with Pipeline(self.overlaps) as pipeline:
            laid_out = pipeline.stage((rows, self._lay_out(rows, tokens)) for _, rows in todo)
            started = pipeline.stage(
                (np.concatenate(rows), self.start_forward(rows, tokens, columns, layout=layout))
                for rows, layout in laid_out
            )
            yield from pipeline.stage(self._finish(*each, request) for each in started)

    @property
    def overlaps(self) -> bool:
        """Whether layout, passes and rounding run on threads of their own, so that a GPU waits for none of them."""
        return self.backbone.device.type == "cuda"

    def _finish(self, members: Indices, wait: Callable[[], Pooled], request: _Request) -> _Done:
        captured = wait()
        return members, captured, self._block(members, captured, request)

    def _block(self, members: Indices, captured: Pooled, request: _Request) -> Block:
        tokens, columns = request.tokens, request.columns
        member_texts = [request.texts[index] for index in members]
        counts = tokens.viewed_lengths[members]
        texts_of_tokens = np.repeat(np.array(member_texts, object), counts).tolist() if TOKENS in columns else []
        latents: dict[str, NDArray[Any]] = {}
        for view, values in captured.items():
            texts_of_values = texts_of_tokens if view == TOKENS else member_texts
            latents[view] = encode_latents(values, self.identity.stored_dtype, view, columns[view], texts_of_values)
        token_latents = None
        if TOKENS in columns:
            assert tokens.characters is not None
            seen = tokens.viewed_index(members)
            token_latents = TokenLatents(
                latents.pop(TOKENS), offsets_from_lengths(counts), tokens.ids[seen], tokens.characters[seen]
            )
        return Block(
            keys=text_keys(member_texts, self.identity.in_windows),
            lengths=tokens.uncut[members],
            columns=columns,
            latents=latents,
            tokens=token_latents,
        )


def tokens_that_fit(free: int, width: int, value_bytes: int, columns: Columns) -> int:
    """Return about how many tokens a forward pass may have; at least those of a row.

    Args:
        free: bytes of memory that are free beside the weights.
        width: of a hidden state, whose values have ``value_bytes``.
    """
    pooled = sum(len(layers) for view, layers in columns.items() if view != TOKENS)
    latents = len(columns.get(TOKENS, ())) + pooled / TOKENS_OF_TEXT
    bytes_of_token = width * (STATES_IN_PASS * value_bytes + COPIES_OF_LATENTS * latents * 4)
    return max(ROW_TOKENS, int(MEMORY_SHARE * free / bytes_of_token))


def _joined(parts: Sequence[Pooled]) -> Pooled:
    """Return the latents of several forward passes as if of one."""
    return {view: np.concatenate([part[view] for part in parts], axis=1) for view in parts[0]}
