"""Packs hold every text once within their budget, and a layout shows each token its own beginning and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permafrost.extract.capture.packing import lay_out, make_packs
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.token_batch import TokenBatch

token_lists = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=30)


def as_tokens(rows: list[list[int]]) -> TokenBatch:
    lengths = np.array([len(row) for row in rows])
    return TokenBatch(
        ids=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        uncut=lengths.astype("i4"),
    )


@pytest.mark.parametrize("road", list(Road))
@settings(max_examples=60)
@given(rows=token_lists, budget=st.integers(4, 40))
def test_every_text_is_in_one_pack_and_packs_keep_their_budget(road, rows, budget):
    tokens = as_tokens(rows)
    packs = make_packs(tokens, road, min(16, budget), budget)
    assert sorted(int(text) for pack in packs for row in pack for text in row) == list(range(len(rows)))
    for pack in packs:
        layout = lay_out(pack, tokens, road)
        assert layout.ids.size <= budget or len(pack) == 1


@settings(max_examples=60)
@given(rows=token_lists)
def test_packs_do_not_depend_on_the_order_of_texts(rows):
    rows = [list(row) for row in {tuple(row) for row in rows}]
    shuffled = list(reversed(rows))

    def contents(order: list[list[int]], road: Road) -> list[list[list[list[int]]]]:
        packs = make_packs(as_tokens(order), road, 12, 24)
        return [[[order[text] for text in row] for row in pack] for pack in packs]

    for road in Road:
        assert contents(rows, road) == contents(shuffled, road)


@pytest.mark.parametrize("road", list(Road))
@settings(max_examples=60)
@given(rows=token_lists, keep=st.data())
def test_a_layout_of_any_part_of_a_pack_spells_its_texts(road, rows, keep):
    tokens = as_tokens(rows)
    for pack in make_packs(tokens, road, 16, 32):
        part = [row[keep.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row)))] for row in pack]
        part = [row for row in part if len(row)]
        if not part:
            continue
        layout = lay_out(part, tokens, road)
        flat_ids, flat_positions = layout.ids.reshape(-1), layout.positions.reshape(-1)
        for index, text in enumerate(np.concatenate(part)):
            path = layout.token_index[index][layout.token_mask[index]]
            np.testing.assert_array_equal(flat_ids[path], rows[text])
            np.testing.assert_array_equal(flat_positions[path], np.arange(len(path)))
            if layout.attention_mask is not None:
                row, places = path[0] // layout.ids.shape[1], path % layout.ids.shape[1]
                for position, place in enumerate(places):
                    assert set(np.flatnonzero(layout.attention_mask[row, place])) == set(places[: position + 1])


def test_a_common_beginning_is_laid_out_once():
    tokens = as_tokens([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3], [9]])
    (pack,) = make_packs(tokens, Road.TREE, 64, 64)
    layout = lay_out(pack, tokens, Road.TREE)
    assert layout.real.sum() == 6  # 1 2 3, then 4 and 5, then 9: of 12 tokens


def test_texts_of_like_length_share_a_forward_and_the_longest_come_first():
    tokens = as_tokens([[1] * n for n in (2, 9, 3, 8, 1, 7)])
    packs = make_packs(tokens, Road.PADDED, 16, 18)
    sizes = [[len(tokens.ids_of(int(row[0]))) for row in pack] for pack in packs]
    assert sizes == [[9, 8], [7, 3], [2, 1]]
