"""Backbone runner: texts to latents in memory, by tokenization, packing and forward passes.

Packs are laid out over a whole request, so a text has the same latents, bit by bit, whatever part of it is run.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.device.memory import PartSize, free_bytes
from permafrost.data.device.pipeline import Pipeline
from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.store.block import Block
from permafrost.data.store.errors import StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.int8 import LARGEST_OF_INT8, quantize
from permafrost.data.store.keys import text_keys
from permafrost.data.text import Text, quote_text
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source
from permafrost.extract.capture.forward import Pooled, start_capture
from permafrost.extract.capture.packing import Indices, Layout, Pack, count_tokens, halve, lay_out, make_packs
from permafrost.extract.capture.pooling import WindowPools
from permafrost.extract.capture.roads import Road
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

LARGEST = {dtype: torch.finfo(getattr(torch, dtype)).max for dtype in ("float16", "bfloat16", "float32")}
LARGEST["int8"] = LARGEST_OF_INT8
"""Stored dtype -> largest value that it represents."""

LARGER = {"float16": '"bfloat16" or "float32"', "bfloat16": '"float32"', "int8": '"float32"'}
"""Stored dtype -> those that represent larger values."""


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

        Each block comes with the indices of its texts. With a GPU, passes are started, and their latents rounded, on
        threads of their own while the caller works on those before; these end with the iterator, which is to be closed.
        """
        is_member = np.zeros(len(texts), bool)
        is_member[members] = True
        of_packs = ([kept for row in pack if len(kept := row[is_member[row]])] for pack in packs)
        with Pipeline(self.overlaps) as pipeline:
            laid_out = pipeline.stage((rows, self._lay_out(rows, tokens)) for rows in of_packs if rows)
            started = pipeline.stage(
                (np.concatenate(rows), self.start_forward(rows, tokens, columns, layout=layout))
                for rows, layout in laid_out
            )
            finished = pipeline.stage(self._finish(*each, tokens, texts, columns) for each in started)
            for indices, captured, block in finished:
                if self.on_forward:
                    self.on_forward(indices, captured)
                yield indices, block

    @property
    def overlaps(self) -> bool:
        """Whether layout, passes and rounding run on threads: the CPU would do no less work, a GPU waits for none."""
        return self.backbone.device.type == "cuda"

    def _finish(
        self,
        members: Indices,
        wait: Callable[[], Pooled],
        tokens: TokenBatch,
        texts: Sequence[Text],
        columns: Columns,
    ) -> tuple[Indices, Pooled, Block]:
        captured = wait()
        return members, captured, self._block(members, captured, tokens, texts, columns)

    def _block(
        self, members: Indices, captured: Pooled, tokens: TokenBatch, texts: Sequence[Text], columns: Columns
    ) -> Block:
        member_texts = [texts[index] for index in members]
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


def encode_latents(
    values: NDArray[np.float32], dtype: str, view: str, layers: Sequence[int], texts: Sequence[Text]
) -> NDArray[Any]:
    """Check that latents fit their stored dtype, and return them in it.

    Args:
        values: ``[layer, text, width]``; of the view ``tokens``, ``[layer, token, width]``.
        texts: ``[text]``; of the view ``tokens``, the text of every token.

    Returns:
        as :func:`encode`.

    Raises:
        StoreError: a value is not finite, or does not fit the dtype; the message names layer and text.
    """
    low, high = values.min(initial=0), values.max(initial=0)  # NaN propagates through both
    if np.isfinite([low, high]).all() and max(-low, high) <= LARGEST[dtype]:
        return encode(values, dtype)
    finite = np.isfinite(values)
    if not finite.all():
        layer, text, _ = np.argwhere(~finite)[0]
        raise StoreError(
            f"layer {layers[layer]}, view {view}, text {quote_text(texts[text])}: the backbone gave a value that "
            "is not finite. Its weights or plan.compute_dtype cannot be right for this text; nothing of it was stored."
        )
    layer, text, _ = np.argwhere(np.abs(values) > LARGEST[dtype])[0]
    largest = float(np.abs(values[layer, text]).max())
    shown = f"{largest:,.0f}" if largest < 1e12 else f"{largest:.4g}"
    raise StoreError(
        f"layer {layers[layer]}, view {view}, text {quote_text(texts[text])}: |value| {shown} does not fit {dtype}; "
        f"set plan.stored_dtype = {LARGER[dtype]}."
    )


def encode(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return latents as a shard stores them; :func:`permafrost.data.store.encoding.decode` makes numbers of them."""
    if dtype == "int8":
        return quantize(values)
    # The same bits as values.astype(dtype), several times as fast.
    rounded = torch.from_numpy(values).to(getattr(torch, dtype))
    stored: NDArray[Any] = (rounded.view(torch.int16) if dtype == "bfloat16" else rounded).numpy()
    return stored.view("<u2") if dtype == "bfloat16" else stored
