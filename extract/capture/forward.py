"""Capture: one forward of a frozen backbone -> the latents of its texts, for every view and layer asked for.

Blocks above the last layer asked for do not run, and no head does. Layer ``k`` is what enters block ``k + 1``: the
output of block ``k`` before any final norm, or the embeddings for layer 0. Each layer is pooled as it comes by, so a
batch holds the hidden states of no more than one, but for the layers whose tokens are asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.store.plan import TOKENS, Columns
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.capture.packing import Layout
from permafrost.extract.capture.pooling import POOLINGS

Pooled = dict[str, NDArray[np.floating[Any]]]
"""View -> ``[layer, text, width]``; of tokens ``[layer, token, width]``, those of each text after the other."""


def capture(backbone: Backbone, layout: Layout, columns: Columns, final_norm: bool = False) -> Pooled:
    """Latents of the texts of ``layout`` for every column.

    Args:
        columns: view -> layers, ascending.
        final_norm: take the last layer after the backbone's final norm.

    Returns:
        view -> ``[layer, text, width]`` in float32 (of a backbone in float64, in float64), texts in the layout's order,
        layers in the column's; of the view ``tokens`` ``[layer, token, width]``, the tokens of those texts without
        padding.
    """
    device, dtype = backbone.device, torch.promote_types(backbone.dtype, torch.float32)
    places, within = torch.from_numpy(layout.token_index).to(device), torch.from_numpy(layout.token_mask).to(device)
    pooled: dict[str, dict[int, Tensor]] = {view: {} for view in columns if view != TOKENS}
    every = columns.get(TOKENS, ())
    real = places[within]
    states = torch.empty(len(every), len(real), backbone.source.width, device=device, dtype=dtype)

    def keep(layer: int, hidden: Tensor) -> None:
        flat = hidden.reshape(-1, hidden.shape[-1])
        if layer in every:
            states[every.index(layer)] = flat[real]
        wanted = [view for view in pooled if layer in columns[view]]
        if wanted:
            texts = (flat[places] if layout.gathered else hidden).to(dtype)
            for view in wanted:
                pooled[view][layer] = POOLINGS[view](texts, within)

    last = max(layer for layers in columns.values() for layer in layers)
    with torch.inference_mode(), _tapped(backbone, last, final_norm, keep):
        backbone.model(**_inputs(backbone, layout))
    found = {view: torch.stack([taken[layer] for layer in columns[view]]) for view, taken in pooled.items()}
    return {view: values.cpu().numpy() for view, values in (found | ({TOKENS: states} if every else {})).items()}


def _inputs(backbone: Backbone, layout: Layout) -> dict[str, Any]:
    ids = torch.from_numpy(layout.ids).to(backbone.device)
    if layout.attention_mask is None:
        mask = None if layout.real.all() else torch.from_numpy(layout.real).to(backbone.device)
        return {"input_ids": ids, "attention_mask": mask, **_kinds(backbone, layout.token_type_ids)}
    # Additive and in the compute dtype: boolean 4-D masks are silently wrong under eager attention (transformers 5.23).
    hidden = ~torch.from_numpy(layout.attention_mask).to(backbone.device)
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
