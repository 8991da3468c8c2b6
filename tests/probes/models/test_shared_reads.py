"""Readings: what several members read is fetched and multiplied once, and comes to what each reads for itself."""

import numpy as np
import pytest
import torch

from permafrost.probes.models.layerwise import LayerwiseLinear, LayerwiseLowRank
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.shared_reads import shared_reads
from tests.support.synthetic import layout

MEMBERS = [(0, 1, 2, 3), (1, 3), (3,), (0, 2, 3)]
ORDERS = pytest.mark.parametrize("orders", [None, [0, 1, 0, 1]], ids=["one order", "two orders"])


def read(orders: list[int] | None):
    """A reading, and distinct latents for it."""
    how = shared_reads(layout(MEMBERS), None if orders is None else np.array(orders))
    return how, torch.randn(len(how.sources), 7, 8)


@ORDERS
def test_every_layer_reads_its_source_in_the_order_of_its_member(orders):
    how, _ = read(orders)
    member_of, of = [0, 0, 0, 0, 1, 1, 2, 3, 3, 3], orders or [0, 0, 0, 0]
    sources = [0, 1, 2, 3, 1, 3, 3, 0, 2, 3]
    assert how.sources[how.index].tolist() == sources
    assert how.row_orders[how.index.numpy()].tolist() == [of[owner] for owner in member_of]
    assert len({*zip(how.row_orders.tolist(), how.sources.tolist(), strict=True)}) == len(how.sources)  # each once


@ORDERS
def test_what_is_multiplied_together_is_what_each_layer_multiplies_for_itself(orders):
    how, x = read(orders)
    weight = torch.randn(10, 8, 5)
    torch.testing.assert_close(how.multiply(x, weight), torch.bmm(x[how.index], weight))


@ORDERS
def test_what_belongs_to_layers_that_read_the_same_is_taken_once(orders):
    how, _ = read(orders)
    shared = torch.randn(len(how.sources), 1, 8)
    assert torch.equal(how.first(how.spread(shared)), shared)


def test_a_member_alone_reads_the_inputs_as_they_are():
    how = shared_reads(layout())
    assert how.index is None
    assert how.whole
    x = torch.randn(4, 7, 8)
    assert how.spread(x) is x
    assert how.first(x) is x
    assert not shared_reads(layout([(1, 3)])).whole


@ORDERS
def test_a_shared_linear_map_is_that_of_each_layer(orders):
    how, x = read(orders)
    linear = LayerwiseLinear(10, 8, 5)
    torch.testing.assert_close(linear.shared(x, how), linear(x[how.index]))


@pytest.mark.parametrize("by", [0.0, 0.3])
@ORDERS
def test_the_cosines_of_a_low_rank_change_are_those_of_what_it_makes(orders, by):
    how, x = read(orders)
    other = torch.randn_like(x)
    change = LayerwiseLowRank(10, 8, rank=3)
    with torch.no_grad():
        change.up.normal_(std=by)
    expected = cosines(change(x[how.index]), change(other[how.index]))
    torch.testing.assert_close(change.cosines(x, other, how), expected, rtol=1e-5, atol=1e-5)
    assert (change.cosines(x, x.clone(), how) == 1).all()
    grads = [
        torch.autograd.grad(said.square().sum(), list(change.parameters()))
        for said in (change.cosines(x, other, how), cosines(change(x[how.index]), change(other[how.index])))
    ]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
