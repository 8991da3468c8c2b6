"""The order of rows: a permutation of pieces within blocks, of one permutation if there are few."""

import numpy as np
import pytest

from permafrost.probes.training import row_order
from permafrost.probes.training.row_order import BLOCK_ROWS, PIECE_ROWS, row_blocks, rows_to_come


def drawn(rows: int, seed: int = 0) -> list[np.ndarray]:
    return row_blocks(rows, np.random.default_rng(seed))


@pytest.mark.parametrize("rows", [1, 7, BLOCK_ROWS - 1, BLOCK_ROWS])
def test_few_rows_are_one_permutation_as_they_always_were(rows):
    (block,) = drawn(rows, 3)
    np.testing.assert_array_equal(block, np.random.default_rng(3).permutation(rows))


@pytest.mark.parametrize("rows", [BLOCK_ROWS + 1, 2 * BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 5, 300_000])
def test_many_rows_are_shuffled_within_blocks_of_whole_pieces(rows):
    blocks = drawn(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(rows))
    assert min(map(len, blocks)) >= BLOCK_ROWS
    for block in blocks:
        pieces = np.split(np.sort(block), np.flatnonzero(np.diff(np.sort(block)) != 1) + 1)
        assert min(map(len, pieces)) >= PIECE_ROWS
        assert np.abs(np.diff(block)).max() > 2 * PIECE_ROWS or len(pieces) == 1
        assert (np.diff(block) == 1).mean() < 0.01
    again, other = drawn(rows), drawn(rows, 1)
    assert all(np.array_equal(*pair) for pair in zip(blocks, again, strict=True))
    assert not np.array_equal(np.concatenate(blocks), np.concatenate(other))


def test_beside_each_block_stands_the_next_one_in_the_order_of_the_disk(monkeypatch):
    monkeypatch.setattr(row_order, "BLOCK_ROWS", 16)
    monkeypatch.setattr(row_order, "PIECE_ROWS", 4)
    orders = [drawn(101, seed) for seed in (0, 1)]
    for blocks, coming in zip(orders, rows_to_come(orders), strict=True):
        assert len(blocks) == 6
        start = 0
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            beside = coming[start : start + len(block)]
            start += len(block)
            if following is None:
                assert (beside == -1).all()
            else:
                assert (np.diff(beside) >= 0).all()
                assert np.isin(beside, following).all()
                assert len(np.setdiff1d(following, beside)) <= max(0, len(following) - len(block))
