"""Contexts: a text is read whole and by itself, whatever it lies beside."""

import pytest
import torch
from torch.nn import functional

from permafrost.probes.models.context import CONTEXTS, BiLSTM, Transformer, token_positions
from tests.support.synthetic import moved

LENGTHS = [3, 1, 6, 2]


def made(name: str, width: int = 6, inputs: int = 5) -> torch.nn.Module:
    return moved(CONTEXTS[name](inputs, width, 0.0, 2), 0.2).eval()


@pytest.mark.parametrize("name", CONTEXTS)
def test_texts_together_are_read_as_each_is_alone(name):
    context, x = made(name), torch.randn(sum(LENGTHS), 5)
    together = context(x, LENGTHS)
    assert together.shape == (sum(LENGTHS), context.code)
    alone = [context(part, [len(part)]) for part in x.split(LENGTHS)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONTEXTS)
def test_texts_in_another_order_are_read_the_same(name):
    context, parts = made(name), list(torch.randn(sum(LENGTHS), 5).split(LENGTHS))
    order = [2, 0, 3, 1]
    before = context(torch.cat(parts), LENGTHS).split(LENGTHS)
    after = context(torch.cat([parts[at] for at in order]), [LENGTHS[at] for at in order])
    torch.testing.assert_close(after, torch.cat([before[at] for at in order]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_longer_neighbour_changes_nothing_and_gets_no_gradient(name):
    context, x = made(name), torch.randn(3, 5)
    before = context(x, [3])
    for more in (1, 9):
        neighbour = (100 * torch.randn(more, 5)).requires_grad_()
        after = context(torch.cat([x, neighbour]), [3, more])[:3]
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
        after.square().sum().backward()
        assert (neighbour.grad == 0).all()


@pytest.mark.parametrize("name", CONTEXTS)
def test_every_token_hears_of_every_other_of_its_text(name):
    context, x = made(name), torch.randn(7, 5, requires_grad=True)
    for token in range(7):
        (gradient,) = torch.autograd.grad(context(x, [7])[token].sum(), x)
        assert (gradient != 0).any(1).all()


def test_the_recurrent_network_is_torchs_own_text_by_text():
    context, x = made("bilstm"), torch.randn(sum(LENGTHS), 5)
    assert isinstance(context, BiLSTM)
    slow = [context.network(part[None])[0][0] for part in x.split(LENGTHS)]
    torch.testing.assert_close(context(x, LENGTHS), torch.cat(slow), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("width", "heads"), [(6, 1), (64, 1), (128, 2), (96, 1)])
def test_a_block_is_attention_and_a_feed_forward_network_each_normed_before_and_added_after(width, heads):
    transformer, given = moved(Transformer(5, width, 0.0, 1)).eval(), torch.randn(7, 5)
    (block,) = transformer.blocks
    assert block.heads == heads
    x = given @ transformer.enter.weight.T + transformer.enter.bias
    normed = functional.layer_norm(x, [width], block.first.weight, block.first.bias)
    query, key, value = (normed @ block.asks.weight.T + block.asks.bias).split(width, 1)
    each, parts = width // heads, []
    for head in range(heads):
        own = slice(head * each, (head + 1) * each)
        weights = torch.softmax(query[:, own] @ key[:, own].T / each**0.5, 1)
        parts.append(weights @ value[:, own])
    slow = x + torch.cat(parts, 1) @ block.answers.weight.T + block.answers.bias
    normed = functional.layer_norm(slow, [width], block.second.weight, block.second.bias)
    inner = functional.gelu(normed @ block.up.weight.T + block.up.bias)
    slow = slow + inner @ block.down.weight.T + block.down.bias
    slow = functional.layer_norm(slow, [width], transformer.norm.weight, transformer.norm.bias)
    torch.testing.assert_close(transformer(given, [7]), slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("texts", [1, 8, 9, 40])
@pytest.mark.parametrize("name", CONTEXTS)
def test_however_many_texts_are_read_each_is_read_as_alone(name, texts):
    lengths = [(7 * at) % 11 + 1 for at in range(texts)]
    context, x = made(name), torch.randn(sum(lengths), 5)
    alone = [context(part, [len(part)]) for part in x.split(lengths)]
    torch.testing.assert_close(context(x, lengths), torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_transformer_has_as_many_blocks_as_it_is_given():
    assert len(Transformer(5, 6, 0.0, 3).blocks) == 3


def test_the_positions_of_tokens_are_within_their_text():
    assert token_positions([2, 0, 3], torch.device("cpu")).tolist() == [0, 1, 6, 7, 8]
