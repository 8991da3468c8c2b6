"""Capture: one forward pass of a frozen backbone gives the latents of its texts, for every view and layer asked for.

Blocks above the last layer asked for do not run, and no head does. Layer ``k`` is the input of block ``k + 1``: the
output of block ``k`` before any final norm, or the embeddings for layer 0. Each layer is pooled as soon as it is
computed, so at most one layer of hidden states is in memory, besides those of the ``tokens`` view.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.device.transfer import start_to_numpy, to_device
from permafrost.data.plan.plan import TOKENS, Columns
from permafrost.extract.architecture.discover import Stop, call, hidden_states, stoppable
from permafrost.extract.attention.varlen import Texts, attention_within_texts
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.capture.packing import Layout
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.extract.capture.roads import Road, tree_masks

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
    return start_capture(backbone, layout, columns, final_norm)()


def start_capture(
    backbone: Backbone, layout: Layout, columns: Columns, final_norm: bool = False
) -> Callable[[], Pooled]:
    """Start the forward pass of :func:`capture`; the function returned waits for the latents and returns them.

    A GPU may be given the next pass before. One pass of a backbone starts at a time, whatever the thread.
    """
    with backbone.lock:
        latents = capture_on_device(backbone, layout, columns, final_norm)
        copies = {view: start_to_numpy(values) for view, values in latents.items()}
    return lambda: {view: copied() for view, copied in copies.items()}


def capture_on_device(
    backbone: Backbone, layout: Layout, columns: Columns, final_norm: bool = False
) -> dict[str, Tensor]:
    """Return what :func:`capture` does, on the device of the backbone, which may still compute it."""
    device, dtype = backbone.device, torch.promote_types(backbone.dtype, torch.float32)
    token_index, token_mask = to_device(layout.token_index, device), to_device(layout.token_mask, device)
    own_mask = token_mask if layout.own_mask is None else to_device(layout.own_mask, device)
    assert layout.own_mask is not None or columns.keys().isdisjoint(layout.own_views)
    pooled: dict[str, dict[int, Tensor]] = {view: {} for view in columns if view != TOKENS}
    token_layers = columns.get(TOKENS, ())
    real = to_device(layout.token_index[layout.token_mask], device)
    states = torch.empty(len(token_layers), len(real), backbone.source.width, device=device, dtype=dtype)

    def keep(layer: int, hidden: Tensor) -> None:
        hidden = hidden.to(device)  # a block may be on another one
        flat = hidden.reshape(-1, hidden.shape[-1])
        if layer in token_layers:
            states[token_layers.index(layer)] = flat[real]
        views = [view for view in pooled if layer in columns[view]]
        if views:
            texts = (flat[token_index] if layout.gathered else hidden).to(dtype)
            for view in views:
                pooled[view][layer] = POOLINGS[view](texts, own_mask if view in layout.own_views else token_mask)

    last = max(layer for layers in columns.values() for layer in layers)
    attention = attention_within_texts(backbone.model) if layout.road is Road.ROWS else nullcontext()
    with torch.inference_mode(), attention, _tapped(backbone, last, final_norm, keep):
        call(backbone.model, **_inputs(backbone, layout))
    latents = {view: torch.stack([by_layer[layer] for layer in columns[view]]) for view, by_layer in pooled.items()}
    if token_layers:
        latents[TOKENS] = states
    return latents


def _inputs(backbone: Backbone, layout: Layout) -> dict[str, Any]:
    device = backbone.device
    inputs: dict[str, Any] = {"input_ids": to_device(layout.ids, device)}
    if layout.token_type_ids is not None and backbone.source.segments:
        inputs["token_type_ids"] = to_device(layout.token_type_ids, device)
    if layout.road is Road.PADDED and not layout.real.all():
        inputs["attention_mask"] = to_device(layout.real.astype(np.int64), device)
    if layout.road is Road.ROWS:
        inputs["texts"] = Texts(layout.lengths, device)
        inputs["position_ids"] = to_device(layout.positions, device)
    if layout.attention_mask is not None:
        masks = tree_masks(layout.road, backbone.source.architecture, layout.attention_mask, layout.positions)
        additive = {name: _additive(mask, backbone)[:, None] for name, mask in masks.items()}
        inputs["attention_mask"] = additive.get("", additive)
        inputs["position_ids"] = to_device(layout.positions, device)
    return inputs


def _additive(mask: NDArray[np.bool_], backbone: Backbone) -> Tensor:
    """Return a mask that is added to the scores, in the compute dtype.

    Boolean 4-D masks are silently wrong under eager attention (transformers 5.23).
    """
    hidden = ~to_device(mask, backbone.device)
    zeros = torch.zeros(hidden.shape, dtype=backbone.dtype, device=backbone.device)
    return zeros.masked_fill_(hidden, torch.finfo(backbone.dtype).min)


@contextmanager
def _tapped(backbone: Backbone, last: int, final_norm: bool, keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Pass every layer up to ``last`` to ``keep``, and run nothing above it."""
    architecture = backbone.source.architecture
    is_top = last == architecture.layers - 1
    ends_with_model = is_top and (final_norm or not architecture.chained)
    entered, left = count(), count(1)

    def pass_on(layer: int, values: Any) -> None:
        states = hidden_states(values)
        keep(layer, states.transpose(0, 1) if architecture.tokens_first else states)
        if layer == last:
            raise Stop

    def enter(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        pass_on(next(entered), [*positional, named])

    def leave(_: nn.Module, arguments: Any, output: Any) -> None:
        if next(left) == last:
            pass_on(last, output)

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in backbone.blocks]
    if is_top and not ends_with_model:
        handles += [block.register_forward_hook(leave) for block in backbone.blocks]
    if ends_with_model:
        handles.append(backbone.model.register_forward_hook(lambda _, __, output: keep(last, output[0])))
    with stoppable(handles):
        yield
