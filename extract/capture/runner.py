"""Backbone runner: texts to latents in memory, by tokenization, packing and forward passes.

Packs are laid out over a whole request, so a text has the same latents, bit by bit, whatever part of it is run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
from permafrost.extract.capture.forward import Pooled, capture
from permafrost.extract.capture.packing import Indices, Pack, lay_out, make_packs
from permafrost.extract.capture.pooling import WindowPools
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.token_ids import tokenize_by_plan

ROW_TOKENS = 256
"""Most tokens in a row of a causal backbone; a longer text is a row of its own."""

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Device -> tokens of a pack, padding included, if ``extract.batch_tokens`` does not say."""

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

        Args:
            backbone: another of the same family; None takes the runner's own.
        """
        texts = np.concatenate(rows)
        if tokens.split(texts).any():
            windows, text_of_window = tokens.in_windows(texts)
            pools = WindowPools(windows, text_of_window, columns)
            for pack in self.pack(windows):
                captured = self.forward(pack, windows, pools.columns, backbone)
                pools.add(np.concatenate(pack), captured)
            return pools.latents(next(iter(captured.values())).dtype)
        layout = lay_out(rows, tokens, self.road)
        return capture(backbone or self.backbone, layout, columns, self.plan.final_norm)

    def blocks(
        self,
        packs: Sequence[Sequence[Indices]],
        members: Indices,
        tokens: TokenBatch,
        texts: Sequence[Text],
        columns: Columns,
    ) -> Iterator[tuple[Indices, Block]]:
        """Yield the latents of the texts with the indices ``members``, pack by pack; other packs are skipped.

        Each block comes with the indices of its texts.
        """
        is_member = np.zeros(len(texts), bool)
        is_member[members] = True
        for pack in packs:
            rows = [kept for row in pack if len(kept := row[is_member[row]])]
            if rows:
                yield np.concatenate(rows), self._block(rows, tokens, texts, columns)

    def _block(self, rows: Sequence[Indices], tokens: TokenBatch, texts: Sequence[Text], columns: Columns) -> Block:
        members = np.concatenate(rows)
        try:
            captured = self.forward(rows, tokens, columns)
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the {self.backbone.device.type} ran out of memory on {int(tokens.lengths[members].sum()):,} tokens; "
                "lower extract.batch_tokens and run the same command: what was committed is kept."
            ) from error
        if self.on_forward:
            self.on_forward(members, captured)
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
