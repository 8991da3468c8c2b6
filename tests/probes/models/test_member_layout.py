"""Member layout: whose layer is whose, and what stands where a member has fewer layers than another."""

from dataclasses import replace

import torch

from permafrost.probes.models.member_layout import MemberLayout

LAYOUT = MemberLayout(((0, 1, 2), (2,), (0, 2)), (8, 8, 4), (2, 4, 2))


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


def test_beside_keeps_the_order_of_members():
    first, second = replace(LAYOUT, members=((0, 1), (1,))), replace(LAYOUT, members=((2,),))
    assert MemberLayout.stack([first, second]) == replace(LAYOUT, members=((0, 1), (1,), (2,)))
