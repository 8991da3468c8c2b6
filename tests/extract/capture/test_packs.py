"""Packs are as full as their limits allow, to the token, in the order of their lengths; texts in windows come first."""

import numpy as np
import pytest

from permafrost.data.ragged import offsets_from_lengths
from permafrost.extract.capture.packing import count_tokens, halve, lay_out, make_packs
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.text_windows import TextWindows
from permafrost.extract.tokenization.token_batch import TokenBatch
from tests.extract.capture.test_packing import as_tokens

BATCH, ROW = 64, 48
TREES = (Road.TREE, Road.WINDOWED_TREE, Road.TYPED_TREE)


def drawn_texts(seed: int) -> list[tuple[int, ...]]:
    """Distinct texts of 1 to 40 tokens, many of which begin alike; one is longer than a row, and than a pass."""
    rng = np.random.default_rng(seed)
    starts = [tuple(rng.choice([1, 2, 300, 70_000], size)) for size in (3, 9, 20)]
    texts = {starts[n % 3][: rng.integers(1, 21)] + tuple(rng.choice([1, 2, 300], n % 21)) for n in range(40)}
    return [tuple(map(int, text)) for text in [*sorted(texts), (5,) * 90]]


def tree_tokens(texts: list[tuple[int, ...]]) -> int:
    """Number of nodes of the prefix tree of some texts."""
    return len({text[: end + 1] for text in texts for end in range(len(text))})


def cost(rows: list[list[tuple[int, ...]]], road: Road) -> int:
    """Tokens of a forward pass, padding included, by the definition of each road."""
    if road in TREES:
        return len(rows) * (-(-max(map(tree_tokens, rows)) // 16) * 16)
    lengths = [len(text) for (text,) in rows]
    return sum(lengths) if road is Road.ROWS else len(rows) * max(lengths)


@pytest.mark.parametrize("road", list(Road))
@pytest.mark.parametrize("seed", range(3))
def test_packs_are_as_full_as_their_budget_allows_and_the_fullest_rows_come_first(road, seed):
    texts = drawn_texts(seed)
    tokens = as_tokens([list(text) for text in texts])
    packs = [[[texts[text] for text in row] for row in pack] for pack in make_packs(tokens, road, ROW, BATCH)]
    sizes = [tree_tokens(row) for pack in packs for row in pack]
    assert sizes == sorted(sizes, reverse=True)
    for pack, following in zip(packs, [*packs[1:], None], strict=True):
        assert cost(pack, road) <= BATCH or len(pack) == 1
        if road is Road.EQUAL:
            assert len({len(text) for (text,) in pack}) == 1
        if following and not (road is Road.EQUAL and len(following[0][0]) != len(pack[0][0])):
            assert cost([*pack, following[0]], road) > BATCH


@pytest.mark.parametrize("road", TREES)
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_trees_are_neighbours_in_the_order_of_their_tokens_as_many_as_fit(road, seed):
    texts = drawn_texts(seed)
    tokens = as_tokens([list(text) for text in texts])
    rows = sorted([texts[text] for text in row] for pack in make_packs(tokens, road, ROW, BATCH) for row in pack)
    assert [text for row in rows for text in row] == sorted(texts)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        assert tree_tokens(row) <= ROW or len(row) == 1
        if following:
            assert tree_tokens([*row, following[0]]) > ROW


def test_a_row_and_a_pack_of_exactly_their_limit_are_one():
    rows = [[1, 2, 3, 4], [1, 2, 5, 6], [7, 8]]  # 4, then 2 more, then 2 more tokens
    for limit, expected in ((8, [3]), (7, [2, 1]), (6, [2, 1]), (5, [1, 1, 1])):
        packs = make_packs(as_tokens(rows), Road.TREE, limit, 16 * 3)
        assert sorted((len(row) for pack in packs for row in pack), reverse=True) == expected
    for budget, expected in ((48, [3]), (47, [2, 1]), (32, [2, 1]), (31, [1, 1, 1])):
        assert [len(pack) for pack in make_packs(as_tokens(rows), Road.TREE, 1, budget)] == expected
    long = as_tokens([[number] * 300 for number in range(1, 4)])
    for budget, expected in ((900, [3]), (899, [2, 1])):
        assert [len(pack) for pack in make_packs(long, Road.EQUAL, 1, budget)] == expected
    for budget, expected in ((10, [3]), (9, [2, 1]), (8, [2, 1]), (7, [1, 2])):
        assert [len(pack) for pack in make_packs(as_tokens(rows), Road.ROWS, 1, budget)] == expected
    for budget, expected in ((12, [3]), (11, [2, 1]), (8, [2, 1]), (7, [1, 1, 1])):
        assert [len(pack) for pack in make_packs(as_tokens(rows), Road.PADDED, 1, budget)] == expected


@pytest.mark.parametrize("road", list(Road))
def test_no_texts_have_no_packs(road):
    none = TokenBatch(ids=np.zeros(0, np.int32), offsets=np.zeros(1, np.int64), uncut=np.zeros(0, np.int32))
    assert make_packs(none, road, ROW, BATCH) == []


def in_windows(texts: list[tuple[int, ...]], size: int) -> TokenBatch:
    """Texts of which those longer than ``size`` tokens run in windows that overlap by one token."""
    ranges = [
        [(start, min(start + size, len(text))) for start in range(0, max(1, len(text) - 1), size - 1)]
        if len(text) > size
        else [(0, len(text))]
        for text in texts
    ]
    windows = TextWindows(
        offsets=offsets_from_lengths(np.array([len(row) for row in ranges])),
        ranges=np.array([each for row in ranges for each in row], np.int64),
    )
    plain = as_tokens([list(text) for text in texts])
    return TokenBatch(ids=plain.ids, offsets=plain.offsets, uncut=plain.uncut, windows=windows)


@pytest.mark.parametrize("road", list(Road))
@pytest.mark.parametrize("seed", range(3))
def test_texts_in_windows_come_first_a_text_a_row_and_the_others_have_the_packs_they_have_without(road, seed):
    texts = [text for text in drawn_texts(seed) if len(text) < 90]
    order = np.random.default_rng(seed).permutation(len(texts))
    texts = [texts[text] for text in order]
    size = 12
    packs = make_packs(in_windows(texts, size), road, ROW, 16)
    found = [[[texts[text] for text in row] for row in pack] for pack in packs]
    whole = [text for text in texts if len(text) <= size]
    alone = make_packs(as_tokens([list(text) for text in whole]), road, ROW, 16)
    expected = [[[whole[text] for text in row] for row in pack] for pack in alone]
    split = found[: len(found) - len(expected)]
    assert found[len(split) :] == expected
    assert sorted(text for pack in split for (text,) in pack) == sorted(text for text in texts if len(text) > size)
    lengths = [len(text) for pack in split for (text,) in pack]
    assert lengths == sorted(lengths, reverse=True)

    def run(pack: list[list[tuple[int, ...]]]) -> int:
        """Tokens of all windows: each but the first of a text begins with the last token of the one before."""
        return sum(len(text) + -(-(len(text) - 1) // (size - 1)) - 1 for (text,) in pack)

    assert len(split) > 1
    for pack in split[:-1]:  # a pack ends with the text by which it has the tokens of four passes
        assert run(pack) >= 4 * 16 > run(pack[:-1])
    assert run(split[-1][:-1]) < 4 * 16


def test_a_pack_in_windows_of_exactly_four_passes_is_full():
    texts = [tuple(range(n, n + 23)) for n in range(4)]  # windows of 12 tokens: 0-12 and 11-23
    packs = make_packs(in_windows(texts, 12), Road.PADDED, ROW, 12)  # 24 tokens run of each, 48 are four passes
    assert [len(pack) for pack in packs] == [2, 2]
    assert [len(pack) for pack in make_packs(in_windows(texts, 12), Road.PADDED, ROW, 18)] == [3, 1]


@pytest.mark.parametrize("road", list(Road))
@pytest.mark.parametrize("seed", range(3))
def test_tokens_are_counted_as_they_are_laid_out_and_halves_are_the_whole(road, seed):
    texts = drawn_texts(seed)
    tokens = as_tokens([list(text) for text in texts])
    waiting = make_packs(tokens, road, ROW, 3 * BATCH)
    while waiting:
        pack = waiting.pop()
        rows = [[texts[text] for text in row] for row in pack]
        assert count_tokens(pack, tokens, road) == lay_out(pack, tokens, road).ids.size == cost(rows, road)
        halves = halve(pack)
        if len(pack) == len(pack[0]) == 1:
            assert halves == []
            continue
        first, second = halves
        parts = (first, second) if len(pack) > 1 else (first[0], second[0])
        assert len(parts[0]) == (len(parts[0]) + len(parts[1])) // 2
        assert [*map(list, first), *map(list, second)] == [*map(list, pack)] or len(pack) == 1
        assert np.concatenate([*first, *second]).tolist() == np.concatenate(pack).tolist()
        waiting += halves
