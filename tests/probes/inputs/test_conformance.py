"""Every kind of probe inputs says of texts what a slow loop over its latents says, whatever is read together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from permafrost.data.scratch.latent_file import StoredLayers
from permafrost.data.store.block import Block
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk import DiskInputs, disk_inputs
from permafrost.probes.inputs.disk_tokens import DiskTokens
from permafrost.probes.inputs.finetuned import finetuned_inputs
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs, pooled_inputs
from permafrost.probes.inputs.providers import FrozenStates
from permafrost.probes.inputs.token_inputs import require_tokens, stored_tokens
from permafrost.probes.models.shared_reads import TokenStates, shared_reads
from tests.support.blocks import ragged_block
from tests.support.synthetic import WIDE, as_inputs, layout

WINDOWS = ["a", "b", "c", "d", "e", "ff"]  # 7, 1, 2, 3, 4 and 5 tokens
STARTS = [0, 1, 3, 4, 6]
"""Texts 1 and 3 have two windows each."""

LAYERS = 3
ROWS = np.array([[3, 0], [1, 1], [0, 2], [3, 1]])
"""Texts of pairs: in any order, and more than once."""


class Blocks(nn.Module):
    """Blocks that scale the states of the layer at the cut by a number of each layer."""

    width = WIDE

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, below, lengths, view, kinds=None, layers=None, seen=None):
        states = torch.stack([below[-1] * self.weight[layer] for layer in layers])
        if view == "tokens":
            return states
        return torch.stack([part.mean(1) for part in states.split(lengths, 1)], 1)


@dataclass
class Case:
    """Inputs, and the latents of every text in every layer, ``[layer][text][latent, width]``."""

    inputs: ProbeInputs
    texts: list[list[torch.Tensor]]


KINDS = ("pooled", "disk", "memory", "store", "tokens on disk", "blocks", "blocks of tokens", "blocks on disk")


ONE_WINDOW = ("pooled", "disk", "blocks", "blocks on disk")
"""Kinds of one vector for each text."""


@pytest.fixture(params=KINDS)
def case(request, tmp_path, identity) -> Case:
    block = ragged_block(WINDOWS, {"tokens": (0, 1, 2)}, width=WIDE)
    latents, kind = block.tokens, request.param
    starts = np.array(STARTS if kind not in ONE_WINDOW else range(len(WINDOWS) + 1))
    weights = Blocks().weight.detach()
    made = [latents.states[-1] * float(weight) for weight in weights] if "blocks" in kind else latents.states
    first = [slice(*latents.offsets[window : window + 2]) for window in starts[:-1]]
    texts = [[torch.from_numpy(layer[tokens]) for tokens in first] for layer in made]
    if kind in ONE_WINDOW:
        texts = [[text.mean(0, keepdim=True) for text in layer] for layer in texts]
    if kind == "pooled":
        columns = [Column("", "mean", layer) for layer in range(LAYERS)]
        return Case(pooled_inputs([torch.stack(layer, 1).numpy() for layer in texts], columns), texts)
    if kind == "disk":
        pooled = {"mean": torch.stack([torch.stack(layer, 1)[0] for layer in texts]).numpy()}
        store = LatentStore.at(tmp_path, "org/model", identity)
        for part in (slice(3, None), slice(3)):  # the order in the store is not that of the texts
            keys, values = text_keys(WINDOWS[part]), {"mean": pooled["mean"][:, part]}
            lengths = np.ones(len(keys), np.int32)
            store.append(
                Block(keys=keys, lengths=lengths, columns={"mean": (0, 1, 2)}, latents=values), {"layers": LAYERS}
            )
        columns = [Column("", "mean", layer) for layer in range(LAYERS)]
        return Case(disk_inputs(tmp_path, [StoredLayers(store, "mean", (0, 1, 2))], WINDOWS, columns), texts)
    if kind == "memory":
        return Case(as_inputs(latents, starts), texts)
    held = as_inputs(latents, starts)
    store = LatentStore.at(tmp_path, "org/model", identity)
    store.append(block, {"layers": LAYERS})
    reader = store.token_reader(WINDOWS, range(LAYERS))
    disk = DiskTokens.write(tmp_path, reader, held.tokens) if "on disk" in kind else None
    if kind in ("store", "tokens on disk"):
        return Case(stored_tokens(reader.read, held.tokens, held.columns, WIDE, disk), texts)
    below = FrozenStates(held.tokens, lambda windows: (latents.select(windows).states, None))
    if disk:
        below = FrozenStates(held.tokens, lambda windows: (disk.read(windows, range(LAYERS)), None), disk)
    view = "mean" if kind in ("blocks", "blocks on disk") else "tokens"
    return Case(finetuned_inputs(Blocks(), below, view, range(LAYERS)), texts)


def latents_of(states: torch.Tensor | TokenStates, row: int) -> torch.Tensor:
    """``[layer, latent, width]`` of one row."""
    if isinstance(states, TokenStates):
        return states.values[:, row, states.mask[row]]
    return states[:, row, None]


def one_after_another(case: Case, layer: int, texts: Sequence[int]) -> torch.Tensor:
    return torch.cat([case.texts[layer][text] for text in texts])


@pytest.mark.parametrize("layers", [(0, 1, 2), (2,), (2, 0)])
def test_the_texts_of_rows_are_read_in_their_order_however_often_they_occur(case, layers):
    reads = shared_reads(layout([layers], (WIDE,) * LAYERS))
    found = case.inputs.text_states(reads, ROWS[None])
    assert len(found) == 2
    for column, states in zip(ROWS.T, found, strict=True):
        for row, text in enumerate(column):
            expected = torch.stack([case.texts[layer][text] for layer in layers])
            torch.testing.assert_close(reads.expand(latents_of(states, row)).detach(), expected)


def test_what_is_pooled_is_the_mean_of_what_the_text_has(case):
    texts = ROWS.reshape(-1)
    for layer in range(LAYERS):
        expected = torch.stack([case.texts[layer][text].mean(0) for text in texts])
        found = case.inputs.pooled(layer, texts)
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad


@pytest.mark.parametrize("scale", ["layer", "dimension"])
@pytest.mark.parametrize("by_token", [False, True])
def test_moments_are_those_of_the_texts_and_measured_once(case, scale, by_token):
    texts = np.array([0, 1, 3])
    if by_token and case.inputs.tokens is None:
        with pytest.raises(ValueError, match="pooled latents have no tokens"):
            case.inputs.moments(texts, True, scale, by_token)
        return
    mean, deviation = case.inputs.moments(texts, True, scale, by_token)
    for layer in range(LAYERS):
        tokens = [one_after_another(case, layer, [text]) for text in texts]
        known = torch.cat(tokens if by_token else [part.mean(0, keepdim=True) for part in tokens])
        variance = known.var(0, correction=0)
        torch.testing.assert_close(mean[layer, 0], known.mean(0))
        expected = variance if scale == "dimension" else variance.mean().reshape(1)
        torch.testing.assert_close(deviation[layer, 0], expected.sqrt())
    assert case.inputs.moments(texts.copy(), True, scale, by_token)[0] is mean
    assert not mean.requires_grad


def test_tokens_are_read_window_by_window_and_pooled_latents_have_none(case):
    reads, windows = shared_reads(layout([(2, 0)], (WIDE,) * LAYERS)), np.array([3, 0, 3])
    if case.inputs.tokens is None:
        for ask in (lambda: case.inputs.token_states(windows, [0]), lambda: require_tokens(case.inputs)):
            with pytest.raises(ValueError, match="pooled latents have no tokens"):
                ask()
        return
    texts = [case.inputs.tokens.starts.tolist().index(window) for window in windows]
    expected = torch.stack([one_after_another(case, layer, texts) for layer in (2, 0)])
    torch.testing.assert_close(case.inputs.token_states(windows, [2, 0]).detach(), expected)
    read = require_tokens(case.inputs).ragged(reads, windows)
    torch.testing.assert_close(reads.expand(read.values).detach(), expected)
    assert read.lengths == tuple(len(case.texts[0][text]) for text in texts)
    assert read.in_second.tolist() == [token > 0 for size in read.lengths for token in range(size)]


def test_members_take_rows_in_orders_of_their_own_where_texts_have_one_vector_and_nowhere_else(case):
    reads = shared_reads(layout([(0,), (1,)], (WIDE,) * LAYERS), np.array([0, 1]))
    orders = np.stack([ROWS, ROWS[::-1]])
    if isinstance(case.inputs, PooledInputs | DiskInputs):
        (first, _) = case.inputs.text_states(reads, orders)
        expected = [torch.cat([case.texts[layer][text] for text in orders[layer, :, 0]]) for layer in (0, 1)]
        assert torch.equal(reads.expand(first), torch.stack(expected))
    else:
        with pytest.raises(ValueError, match="rows in one order"):
            case.inputs.text_states(reads, orders)


def test_inputs_tell_their_sizes(case):
    assert (case.inputs.width, len(case.inputs.columns), case.inputs.widths) == (WIDE, LAYERS, (WIDE,) * LAYERS)
    assert case.inputs.longest == (1 if isinstance(case.inputs, PooledInputs | DiskInputs) else 7)


def test_a_gradient_reaches_the_blocks_and_nothing_that_is_stored(case):
    for states in case.inputs.text_states(shared_reads(layout([(0, 1, 2)], (WIDE,) * LAYERS)), ROWS[None]):
        assert latents_of(states, 0).requires_grad == (case.inputs.blocks is not None)
