"""Ragged arrays: what is indexed, selected and padded of texts is what a loop over the texts finds."""

import numpy as np
import pytest

from permafrost.data.ragged import TokenIndex, TokenLatents, offsets_from_lengths, pad_index

LENGTHS = np.array([3, 1, 4, 2])


def latents() -> TokenLatents:
    tokens, rng = int(LENGTHS.sum()), np.random.default_rng(0)
    spans = np.stack([np.arange(tokens), np.arange(tokens) + 1], 1).astype(np.int32)
    states = rng.normal(size=(3, tokens, 5)).astype(np.float16)
    return TokenLatents(states, offsets_from_lengths(LENGTHS), np.arange(tokens, dtype=np.int32), spans)


@pytest.mark.parametrize("texts", [[2, 0, 2], [1], [], [3, 2, 1, 0]])
@pytest.mark.parametrize("layers", [None, [2, 0], []])
def test_texts_and_layers_are_selected_in_the_order_given(texts, layers):
    whole = latents()
    found = whole.select(np.array(texts, np.int64), layers)
    places = [token for text in texts for token in range(whole.offsets[text], whole.offsets[text + 1])]
    np.testing.assert_array_equal(found.states, whole.states[range(3) if layers is None else layers][:, places])
    np.testing.assert_array_equal(found.ids, whole.ids[places])
    np.testing.assert_array_equal(found.spans, whole.spans[places])
    assert found.lengths.tolist() == [LENGTHS[text] for text in texts]
    assert (found.states.dtype, found.ids.dtype, found.spans.dtype) == (np.float16, np.int32, np.int32)


def test_an_index_tells_the_windows_of_texts_and_the_tokens_of_windows():
    index: TokenIndex = latents().index(np.array([0, 1, 3, 4]))
    windows, offsets = index.windows_of(np.array([1, 2, 1]))
    assert (windows.tolist(), offsets.tolist()) == ([1, 2, 3, 1, 2], [0, 2, 3, 5])
    assert index.tokens_of(np.array([2, 0])).tolist() == [4, 5, 6, 7, 0, 1, 2]
    assert (index.lengths.tolist(), index.longest) == (LENGTHS.tolist(), 4)


def test_every_position_of_padded_texts_has_its_token_and_padding_the_first_of_its_text():
    for starts, multiple, width in ((None, 1, 4), (np.array([10, 0, 20, 30]), 1, 4), (None, 3, 6), (None, 4, 4)):
        index, mask = pad_index(LENGTHS, multiple, starts)
        first = offsets_from_lengths(LENGTHS)[:-1] if starts is None else starts
        for text, length in enumerate(LENGTHS):
            expected = [first[text] + (token if token < length else 0) for token in range(width)]
            assert index[text].tolist() == expected
            assert mask[text].tolist() == [token < length for token in range(width)]
