"""Capture: one forward of a frozen backbone -> the latents of its texts, for every view and layer asked for.

Blocks above the last layer asked for do not run, and no head does. Layer ``k`` is what enters block ``k + 1``: the
output of block ``k`` before any final norm, or the embeddings for layer 0. Each layer is pooled as it comes by, so a
batch holds the hidden states of no more than one, but for the layers whose tokens are asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.plan import TOKENS, Columns
from data.ragged import bounds
from extract.loading import Backbone
from extract.packing import Layout, lay_out
from extract.pooling import POOLINGS
from extract.token_rows import Tokens

Pooled = dict[str, NDArray[np.float32]]
"""View -> ``[layer, text, width]``; of tokens ``[layer, token, width]``, those of each text after the other."""


def capture(backbone: Backbone, layout: Layout, columns: Columns, final_norm: bool = False) -> Pooled:
    """Latents of the texts of ``layout`` for every column.

    Args:
        columns: view -> layers, ascending.
        final_norm: take the last layer after the backbone's final norm.

    Returns:
        view -> ``[layer, text, width]`` in float32, texts in the layout's order, layers in the column's; of the view
        ``tokens`` ``[layer, token, width]``, the tokens of those texts without padding.
    """
    device = backbone.device
    places, within = torch.from_numpy(layout.places).to(device), torch.from_numpy(layout.within).to(device)
    pooled: dict[str, dict[int, Tensor]] = {view: {} for view in columns if view != TOKENS}
    every = columns.get(TOKENS, ())
    real = places[within]
    states = torch.empty(len(every), len(real), backbone.source.width, device=device)

    def keep(layer: int, hidden: Tensor) -> None:
        flat = hidden.reshape(-1, hidden.shape[-1])
        if layer in every:
            states[every.index(layer)] = flat[real]
        wanted = [view for view in pooled if layer in columns[view]]
        if wanted:
            texts = (flat[places] if layout.gathered else hidden).float()
            for view in wanted:
                pooled[view][layer] = POOLINGS[view](texts, within)

    last = max(layer for layers in columns.values() for layer in layers)
    with torch.inference_mode(), _tapped(backbone, last, final_norm, keep):
        backbone.model(**_inputs(backbone, layout))
    found = {view: torch.stack([taken[layer] for layer in columns[view]]) for view, taken in pooled.items()}
    return {view: values.cpu().numpy() for view, values in (found | ({TOKENS: states} if every else {})).items()}


def plain_latents(backbone: Backbone, tokens: Tokens, text: int, columns: Columns, final_norm: bool = False) -> Pooled:
    """The same latents for one text alone by the plain road: no padding, all blocks, ``output_hidden_states``.

    What :func:`capture` is checked against. ``[layer, 1, width]`` by view; ``[layer, token, width]`` of ``tokens``.
    """
    before_norm: list[Tensor] = []
    with torch.inference_mode():
        handle = _final_norm(backbone).register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
        try:
            row = torch.from_numpy(tokens.of(text).astype(np.int64))[None].to(backbone.device)
            kinds = _kinds(backbone, tokens.kinds_of(text).astype(np.int64)[None])
            states = list(backbone.model(input_ids=row, output_hidden_states=True, **kinds).hidden_states)
        finally:
            handle.remove()
        if before_norm and not final_norm:
            states[-1] = before_norm[-1]
        span = tokens.span(text)
        seen = [state[:, span].float() for state in states]
        real = torch.ones_like(row[:, span], dtype=torch.bool)
        return {
            view: torch.stack([seen[layer][0] if view == TOKENS else POOLINGS[view](seen[layer], real) for layer in ls])
            .cpu()
            .numpy()
            for view, ls in columns.items()
        }


def deviation(backbone: Backbone, tokens: Tokens, texts: Sequence[int], columns: Columns, final_norm: bool) -> float:
    """Largest difference between texts captured together and each of them alone, relative to ``max(1, |value|)``."""
    order = sorted(texts, key=lambda text: tokens.of(text).astype(">u4").tobytes())
    causal = backbone.source.family.causal
    rows = [np.array(order)] if causal else [np.array([text]) for text in order]
    together = capture(backbone, lay_out(rows, tokens, causal), columns, final_norm)
    worst, ends = 0.0, bounds(tokens.viewed[order])
    for index, text in enumerate(order):
        alone = plain_latents(backbone, tokens, text, columns, final_norm)
        for view, theirs in alone.items():
            own = slice(ends[index], ends[index + 1]) if view == TOKENS else slice(index, index + 1)
            mine = together[view][:, own]
            sound = np.isfinite(theirs)  # what is not finite is told by layer and text when it is to be stored
            scale = np.maximum(1, np.abs(theirs).max(axis=-1, keepdims=True, where=sound, initial=0))
            found = (np.abs(mine - theirs, where=sound, out=np.zeros_like(mine)) / scale).max()
            worst = float(np.maximum(worst, found))  # unlike max, this keeps a nan
    return worst


def _inputs(backbone: Backbone, layout: Layout) -> dict[str, Any]:
    ids = torch.from_numpy(layout.ids).to(backbone.device)
    if layout.visible is None:
        mask = None if layout.real.all() else torch.from_numpy(layout.real).to(backbone.device)
        return {"input_ids": ids, "attention_mask": mask, **_kinds(backbone, layout.kinds)}
    # Additive and in the compute dtype: boolean 4-D masks are silently wrong under eager attention (transformers 5.23).
    hidden = ~torch.from_numpy(layout.visible).to(backbone.device)
    mask = torch.zeros(hidden.shape, dtype=backbone.dtype, device=backbone.device)
    mask.masked_fill_(hidden, torch.finfo(backbone.dtype).min)
    positions = torch.from_numpy(layout.positions).to(backbone.device)
    return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions, "use_cache": False}


def _kinds(backbone: Backbone, kinds: NDArray[np.int64] | None) -> dict[str, Tensor]:
    if kinds is None or not backbone.source.segments:
        return {}
    return {"token_type_ids": torch.from_numpy(kinds).to(backbone.device)}


@contextmanager
def _tapped(backbone: Backbone, last: int, final_norm: bool, keep: Any) -> Iterator[None]:
    """The backbone cut above block ``last``, telling ``keep`` of every layer; whole again afterwards."""
    holder, name = _parent(backbone.model, backbone.source.family.blocks)
    blocks: nn.ModuleList = getattr(holder, name)
    norm = backbone.source.family.final_norm
    cut_norm = norm and not (final_norm and last == len(blocks))
    handles = [
        block.register_forward_pre_hook(lambda _, inputs, layer=layer: keep(layer, inputs[0]))
        for layer, block in enumerate(blocks[:last])
    ]
    handles.append(backbone.model.register_forward_hook(lambda _, inputs, output: keep(last, output[0])))
    normal = _final_norm(backbone)
    setattr(holder, name, blocks[:last])
    if cut_norm:
        setattr(*_parent(backbone.model, norm), nn.Identity())
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        setattr(holder, name, blocks)
        if cut_norm:
            setattr(*_parent(backbone.model, norm), normal)


def _final_norm(backbone: Backbone) -> nn.Module:
    norm = backbone.source.family.final_norm
    return backbone.model.get_submodule(norm) if norm else nn.Identity()


def _parent(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name
