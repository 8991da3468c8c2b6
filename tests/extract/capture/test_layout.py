"""A layout is that of a plain loop over rows, texts and tokens, for every road and whatever views see of the texts."""

from typing import Any

import numpy as np
import pytest

from permafrost.extract.capture.packing import Layout, lay_out, make_packs
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.token_batch import TokenBatch

TREES = (Road.TREE, Road.WINDOWED_TREE, Road.TYPED_TREE)


def drawn_tokens(rng: np.random.Generator, pooled: bool, own: bool, typed: bool) -> TokenBatch:
    """Texts that often begin alike, some equal, some of one token; ranges are of one token at least."""
    starts = [list(rng.integers(1, 9, size)) for size in (2, 5, 7)]
    texts = [starts[n % 3] + list(rng.integers(1, 3, rng.integers(0, 5))) for n in range(12)]
    texts += [texts[0], [7], texts[3][:3]]
    lengths = np.array([len(text) for text in texts])
    low = np.array([rng.integers(0, length) for length in lengths])
    high = np.array([rng.integers(first + 1, length + 1) for first, length in zip(low, lengths, strict=True)])
    inner = np.array([rng.integers(a, b) for a, b in zip(low, high, strict=True)])
    return TokenBatch(
        ids=np.concatenate(texts).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        uncut=lengths.astype(np.int32),
        pooled=np.stack([low, high], 1).astype(np.int32) if pooled else None,
        own=np.stack([inner, high], 1) if own else None,
        own_views=("text_last", "mean"),
        token_type_ids=rng.integers(0, 2, lengths.sum()).astype(np.int8) if typed else None,
    )


def naive(pack: Any, tokens: TokenBatch, road: Road) -> dict[str, Any]:
    """What a layout holds, by its definition: rows of (id, position, path of ids) that no other text has yet."""
    rows: list[list[tuple[int, ...]]] = []  # of each row, the prefixes that are its tokens; in no tree, with the text
    paths = []
    for row in pack:
        if road not in TREES:
            rows.append([])
        seen: list[tuple[int, ...]] = []
        for text in row:
            ids = tuple(map(int, tokens.ids_of(int(text))))
            prefixes = [ids[: end + 1] for end in range(len(ids))]
            if road in TREES:
                seen += [prefix for prefix in prefixes if prefix not in seen]
                paths.append([(len(rows), seen.index(prefix)) for prefix in prefixes])
            else:
                rows[-1] += prefixes
                paths.append([(len(rows) - 1, place) for place in range(len(ids))])
        if road in TREES:
            rows.append(seen)
    if road is Road.ROWS:
        before = np.cumsum([0, *map(len, rows)])
        paths = [[(0, int(before[row]) + place) for row, place in path] for path in paths]
        lengths, rows = [len(row) for row in rows], [[token for row in rows for token in row]]
    else:
        lengths = [len(row) for row in rows]
    width = max(map(len, rows))
    width = -(-width // 16) * 16 if road in TREES else width

    def padded(value: Any) -> list[list[Any]]:
        return [[value(prefix) for prefix in row] + [0] * (width - len(row)) for row in rows]

    return {
        "lengths": lengths,
        "real": [[True] * len(row) + [False] * (width - len(row)) for row in rows],
        "ids": padded(lambda prefix: prefix[-1]),
        "positions": padded(lambda prefix: len(prefix) - 1),
        "paths": [[row * width + place for row, place in path] for path in paths],
        "mask": [
            [
                [
                    query == key or (query < len(row) and key < len(row) and row[query][: len(row[key])] == row[key])
                    for key in range(width)
                ]
                for query in range(width)
            ]
            for row in rows
        ],
    }


@pytest.mark.parametrize("road", list(Road))
@pytest.mark.parametrize(("pooled", "own", "typed"), [(False, False, False), (True, True, False), (False, True, True)])
def test_a_layout_is_that_of_a_loop_over_its_tokens(road, pooled, own, typed):
    tokens = drawn_tokens(np.random.default_rng(2 * pooled + own), pooled, own, typed)
    for pack in make_packs(tokens, road, 24, 48):
        layout, expected = lay_out(pack, tokens, road), naive(pack, tokens, road)
        for name in ("lengths", "real", "ids", "positions"):
            np.testing.assert_array_equal(getattr(layout, name), expected[name], err_msg=name)
        assert (layout.ids.dtype, layout.positions.dtype, layout.real.dtype) == (np.int64, np.int64, np.bool_)
        if road in TREES:
            np.testing.assert_array_equal(layout.attention_mask, expected["mask"])
        else:
            assert layout.attention_mask is None
        check_views(layout, np.concatenate(pack), tokens, expected["paths"])
        assert (layout.road, layout.own_views) == (road, tokens.own_views)
        assert layout.gathered == (road in TREES or road is Road.ROWS or pooled)
        check_types(layout, pack, tokens)


def check_views(layout: Layout, texts: Any, tokens: TokenBatch, paths: list[list[int]]) -> None:
    """The tokens of each text that views see, and which of these are its own."""
    ranges = [(0, len(path)) for path in paths] if tokens.pooled is None else tokens.pooled[texts].tolist()
    widest = max(high - low for low, high in ranges)
    assert layout.token_mask.shape == layout.token_index.shape == (len(texts), widest)
    for number, (path, (low, high)) in enumerate(zip(paths, ranges, strict=True)):
        assert layout.token_mask[number].tolist() == [place < high - low for place in range(widest)]
        assert layout.token_index[number, : high - low].tolist() == path[low:high]
        if tokens.own is not None:
            assert layout.own_mask is not None
            first, end = tokens.own[texts[number]]
            assert layout.own_mask[number].tolist() == [first <= low + place < end for place in range(widest)]
    if tokens.own is None:
        assert layout.own_mask is None


def check_types(layout: Layout, pack: Any, tokens: TokenBatch) -> None:
    """Segments, which trees are not told."""
    if layout.road in TREES or tokens.token_type_ids is None:
        assert layout.token_type_ids is None
        return
    flat = [tokens.token_type_ids_of(int(text)).tolist() for (text,) in pack]
    rows = [[segment for row in flat for segment in row]] if layout.road is Road.ROWS else flat
    assert layout.token_type_ids is not None
    assert layout.token_type_ids.tolist() == [row + [0] * (layout.ids.shape[1] - len(row)) for row in rows]


def test_a_layout_cannot_be_changed():
    tokens = drawn_tokens(np.random.default_rng(0), False, False, False)
    (pack, *_) = make_packs(tokens, Road.PADDED, 24, 48)
    with pytest.raises(AttributeError):
        lay_out(pack, tokens, Road.PADDED).road = Road.ROWS  # type: ignore[misc]
