"""Member layout, padded by member; what several members read is fetched once, and comes to what each reads alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.layerwise import LayerwiseLinear, LayerwiseLowRank
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import stack
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.models.shared_reads import MemberLayout, shared_reads
from tests.support.synthetic import layout

LAYOUT = MemberLayout(((0, 1, 2), (2,), (0, 2)), (8, 8, 4), (2, 4, 2))
MEMBERS = [(0, 1, 2, 3), (1, 3), (3,), (0, 2, 3)]
ORDERS = pytest.mark.parametrize("orders", [None, [0, 1, 0, 1]], ids=["one order", "two orders"])


def read(orders: list[int] | None):
    """A reading, and distinct latents for it."""
    reads = shared_reads(layout(MEMBERS), None if orders is None else np.array(orders))
    return reads, torch.randn(len(reads.sources), 7, 8)


@ORDERS
def test_every_layer_reads_its_source_in_the_order_of_its_member(orders):
    reads, _ = read(orders)
    member_of, of = [0, 0, 0, 0, 1, 1, 2, 3, 3, 3], orders or [0, 0, 0, 0]
    sources = [0, 1, 2, 3, 1, 3, 3, 0, 2, 3]
    assert reads.sources[reads.index].tolist() == sources
    assert reads.row_orders[reads.index.numpy()].tolist() == [of[owner] for owner in member_of]
    assert len({*zip(reads.row_orders.tolist(), reads.sources.tolist(), strict=True)}) == len(
        reads.sources
    )  # each once


@ORDERS
def test_what_is_multiplied_together_is_what_each_layer_multiplies_for_itself(orders):
    reads, x = read(orders)
    weight = torch.randn(10, 8, 5)
    torch.testing.assert_close(reads.multiply(x, weight), torch.bmm(x[reads.index], weight))


@ORDERS
def test_what_belongs_to_layers_that_read_the_same_is_taken_once(orders):
    reads, _ = read(orders)
    shared = torch.randn(len(reads.sources), 1, 8)
    assert torch.equal(reads.reduce(reads.expand(shared)), shared)


def test_a_member_alone_reads_the_inputs_as_they_are():
    reads = shared_reads(layout())
    assert reads.index is None
    assert reads.all_layers
    x = torch.randn(4, 7, 8)
    assert reads.expand(x) is x
    assert reads.reduce(x) is x
    assert not shared_reads(layout([(1, 3)])).all_layers


@ORDERS
def test_a_shared_linear_map_is_that_of_each_layer(orders):
    reads, x = read(orders)
    linear = LayerwiseLinear(10, 8, 5)
    torch.testing.assert_close(linear.shared(x, reads), linear(x[reads.index]))


@pytest.mark.parametrize("by", [0.0, 0.3])
@ORDERS
def test_the_cosines_of_a_low_rank_change_are_those_of_what_it_makes(orders, by):
    reads, x = read(orders)
    other = torch.randn_like(x)
    change = LayerwiseLowRank(10, 8, rank=3)
    with torch.no_grad():
        change.up.normal_(std=by)
    expected = cosines(change(x[reads.index]), change(other[reads.index]))
    torch.testing.assert_close(change.cosines(x, other, reads), expected, rtol=1e-5, atol=1e-5)
    assert (change.cosines(x, x.clone(), reads) == 1).all()
    grads = [
        torch.autograd.grad(said.square().sum(), list(change.parameters()))
        for said in (change.cosines(x, other, reads), cosines(change(x[reads.index]), change(other[reads.index])))
    ]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_the_layers_of_members_lie_one_after_another():
    assert LAYOUT.sources == (0, 1, 2, 2, 0, 2)
    assert LAYOUT.widths == (8, 8, 4, 4, 8, 4)
    assert LAYOUT.codes == (2, 4, 2, 2, 2, 2)
    assert LAYOUT.member_of.tolist() == [0, 0, 0, 1, 2, 2]
    assert LAYOUT.mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]


def test_layers_are_laid_out_by_member_with_zeros_where_one_has_fewer():
    x = torch.arange(1.0, 13).reshape(6, 2)
    assert LAYOUT.by_member(x).tolist() == [
        [[1, 2], [3, 4], [5, 6]],
        [[7, 8], [0, 0], [0, 0]],
        [[9, 10], [11, 12], [0, 0]],
    ]


def test_members_of_one_size_are_laid_out_without_a_copy():
    x = torch.randn(6, 2, 5)
    laid = replace(LAYOUT, members=((0, 1, 2), (2, 1, 0))).by_member(x)
    assert laid.data_ptr() == x.data_ptr()
    assert torch.equal(laid, x.reshape(2, 3, 2, 5))


def test_stacked_probes_keep_the_order_of_members():
    layouts = [replace(LAYOUT, members=members) for members in (((0, 1), (1,)), ((1, 2),))]
    stacked = stack([ScoreProbe(ProbeSpec(), layout) for layout in layouts])
    assert stacked.layout == replace(LAYOUT, members=((0, 1), (1,), (1, 2)))
