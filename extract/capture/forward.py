"""Capture: one forward pass of a frozen backbone gives the latents of its texts, for every view and layer asked for.

Blocks above the last layer asked for do not run, and no head does. Layer ``k`` is the input of block ``k + 1``: the
output of block ``k`` before any final norm, or the embeddings for layer 0. Each layer is pooled as soon as it is
computed, so at most one layer of hidden states is in memory, besides those of the ``tokens`` view.
"""

from collections.abc import Callable, Iterator
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
"""View -> ``[layer, text, width]``; of ``tokens``, ``[layer, token, width]``, text after text."""


def capture(backbone: Backbone, layout: Layout, columns: Columns, final_norm: bool = False) -> Pooled:
    """Return the latents of the texts of ``layout`` for every column.

    Args:
        columns: view -> layers, ascending.
        final_norm: take the last layer after the backbone's final norm.

    Returns:
        view -> ``[layer, text, width]`` in float32 (float64 if the backbone is), texts in the order of the layout,
        layers in that of the column; of the view ``tokens``, ``[layer, token, width]`` without padding.
    """
    device, dtype = backbone.device, torch.promote_types(backbone.dtype, torch.float32)
    token_index = torch.from_numpy(layout.token_index).to(device)
    token_mask = torch.from_numpy(layout.token_mask).to(device)
    pooled: dict[str, dict[int, Tensor]] = {view: {} for view in columns if view != TOKENS}
    token_layers = columns.get(TOKENS, ())
    real = token_index[token_mask]
    states = torch.empty(len(token_layers), len(real), backbone.source.width, device=device, dtype=dtype)

    def keep(layer: int, hidden: Tensor) -> None:
        flat = hidden.reshape(-1, hidden.shape[-1])
        if layer in token_layers:
            states[token_layers.index(layer)] = flat[real]
        views = [view for view in pooled if layer in columns[view]]
        if views:
            texts = (flat[token_index] if layout.gathered else hidden).to(dtype)
            for view in views:
                pooled[view][layer] = POOLINGS[view](texts, token_mask)

    last = max(layer for layers in columns.values() for layer in layers)
    with torch.inference_mode(), _tapped(backbone, last, final_norm, keep):
        backbone.model(**_inputs(backbone, layout))
    latents = {view: torch.stack([by_layer[layer] for layer in columns[view]]) for view, by_layer in pooled.items()}
    if token_layers:
        latents[TOKENS] = states
    return {view: values.cpu().numpy() for view, values in latents.items()}


def _inputs(backbone: Backbone, layout: Layout) -> dict[str, Any]:
    ids = torch.from_numpy(layout.ids).to(backbone.device)
    if layout.attention_mask is None:
        padding_mask = None if layout.real.all() else torch.from_numpy(layout.real).to(backbone.device)
        inputs = {"input_ids": ids, "attention_mask": padding_mask}
        if layout.token_type_ids is not None and backbone.source.segments:
            inputs["token_type_ids"] = torch.from_numpy(layout.token_type_ids).to(backbone.device)
        return inputs
    # Additive and in the compute dtype: boolean 4-D masks are silently wrong under eager attention (transformers 5.23).
    hidden = ~torch.from_numpy(layout.attention_mask).to(backbone.device)
    mask = torch.zeros(hidden.shape, dtype=backbone.dtype, device=backbone.device)
    mask.masked_fill_(hidden, torch.finfo(backbone.dtype).min)
    positions = torch.from_numpy(layout.positions).to(backbone.device)
    return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions, "use_cache": False}


@contextmanager
def _tapped(backbone: Backbone, last: int, final_norm: bool, keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Cut the backbone above block ``last``, and pass every layer to ``keep``; restore the backbone afterwards."""
    model, family = backbone.model, backbone.source.family
    blocks: nn.ModuleList = model.get_submodule(family.blocks)
    cut: dict[str, nn.Module] = {family.blocks: blocks[:last]}
    if family.final_norm and not (final_norm and last == len(blocks)):
        cut[family.final_norm] = nn.Identity()
    whole = {path: model.get_submodule(path) for path in cut}
    handles = [
        block.register_forward_pre_hook(lambda _, inputs, layer=layer: keep(layer, inputs[0]))
        for layer, block in enumerate(blocks[:last])
    ]
    handles.append(model.register_forward_hook(lambda _, inputs, output: keep(last, output[0])))
    for path, module in cut.items():
        model.set_submodule(path, module, strict=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for path, module in whole.items():
            model.set_submodule(path, module, strict=True)
