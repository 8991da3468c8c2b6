"""Two segments are joined as the tokenizer's own pair; what is too long is cut, or run in windows that lose nothing."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permafrost.data.plan.plan import CapturePlan
from permafrost.data.text import Segments, TextError
from permafrost.data.writing.script import is_mark, unbreakable_spans
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import CHUNK, tokenize, windowed
from tests.support.models.backbones import WORDS
from tests.support.real import real_model

QUESTION = "the dog runs"
STORY = "A small brown dog runs over green grass and then it sleeps near an old warm stove in winter ."
KINDS = ["bert", "llama", "gpt2", "qwen2"]
SEPARATED = ["bert", "llama"]


def pair_tokens(tokenizer: Any, texts: list[Any], max_tokens: int, stride: int = -1) -> TokenBatch:
    return tokenize(tokenizer, texts, "{text}", max_tokens, characters=True, stride=stride)


def covered(tokens: TokenBatch, index: int, text: str) -> list[str]:
    """The characters of the second segment that each token of a text covers."""
    assert tokens.characters is not None
    spans = tokens.characters[tokens.offsets[index] : tokens.offsets[index + 1]]
    return [text[start:end] if start >= 0 else "-" for start, end in spans]


def spelt(tokenizer: Any, tokens: TokenBatch, index: int) -> list[str]:
    return [tokenizer.id_to_token(int(one)) for one in tokens.ids_of(index)]


@pytest.mark.parametrize("family", KINDS)
def test_two_segments_are_the_pair_that_transformers_makes(family, tiny):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tiny(family))
    texts = [Segments(QUESTION, STORY), Segments("winter , the dog", "it sleeps")]
    tokens = pair_tokens(load_tokenizer(tiny(family)), texts, 256)
    for index, text in enumerate(texts):
        made = theirs(text.first + "\n" * (family not in SEPARATED), text.second, return_token_type_ids=True)
        assert tokens.ids_of(index).tolist() == made["input_ids"]
        assert tokens.token_type_ids_of(index).tolist() == made["token_type_ids"]
    assert tokens.uncut.tolist() == tokens.lengths.tolist()


@pytest.mark.parametrize(("folder", "between"), [("bert_vocab", ["[SEP]"]), ("gpt2_vocab", ["Ċ"])])
def test_real_vocabularies_have_one_token_between_the_segments(folder, between):
    tokenizer = load_tokenizer(real_model(folder))
    tokens = pair_tokens(tokenizer, [Segments("how?", "so it is")], 64)
    spelling = [token.removeprefix("Ġ") for token in spelt(tokenizer, tokens, 0) if token != "[CLS]"]
    assert spelling == ["how", "?", *between, "so", "it", "is", *(["[SEP]"] if folder == "bert_vocab" else [])]


def test_spans_are_those_of_the_whole_second_segment_and_the_first_has_none(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    text = Segments("dog runs", "  The dog,  the stove.")
    assert covered(pair_tokens(tokenizer, [text], 64), 0, text.second) == [
        "-", "-", "-", "-", "The", "dog", ",", "the", "stove", ".", "-",
    ]  # fmt: skip


def test_segments_and_plain_texts_may_be_mixed_and_say_which_segment_they_count_to(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    texts = ["dog", Segments("dog", "runs over"), "dog runs", "dog runs"]
    tokens = pair_tokens(tokenizer, texts, 16)
    assert [tokens.token_type_ids_of(index).tolist() for index in range(3)] == [[0] * 3, [0, 0, 0, 1, 1, 1], [0] * 4]
    assert tokens.lengths.tolist() == [3, 6, 4, 4]
    assert tokenize(tokenizer, texts[:1], "{text}", 16).token_type_ids is None


@pytest.mark.parametrize("family", SEPARATED)
def test_a_cut_takes_from_the_second_segment_alone_as_transformers_does(family, tiny):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tiny(family))
    made = theirs(QUESTION, STORY, truncation="only_second", max_length=12)
    tokens = pair_tokens(load_tokenizer(tiny(family)), [Segments(QUESTION, STORY)], 12)
    assert tokens.ids_of(0).tolist() == made["input_ids"]
    assert tokens.uncut.tolist() == [len(theirs(QUESTION, STORY)["input_ids"])]
    assert [part for part in covered(tokens, 0, STORY) if part != "-"] == STORY.split()[:6]


@pytest.mark.parametrize("stride", [-1, 0])
def test_a_first_segment_that_leaves_no_room_is_named_with_its_size_and_the_way_out(stride, tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    text = Segments(QUESTION, "dog runs over")
    assert pair_tokens(tokenizer, [text], 7, stride).lengths[0] == 7
    with pytest.raises(TextError) as error:
        pair_tokens(tokenizer, [text], 6, stride)
    assert str(error.value) == (
        "text 'the dog runs | dog runs over': its first segment takes 6 tokens with special ones, which leaves no room "
        "for the second in plan.max_tokens = 6; raise it, or leave the text out."
    )


def test_a_stride_that_would_never_get_on_is_named_where_windows_are_needed(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    fits, long = Segments(QUESTION, "dog"), Segments(QUESTION, STORY)
    assert windowed(tokenizer, [fits], 12, 6)[0] == [fits]
    for road in (windowed, pair_tokens):
        with pytest.raises(
            TextError, match=r"plan\.stride = 6 is too much for text 'the dog .* windows of 6 of the se"
        ):
            road(tokenizer, [long], 12, 6)
    assert len(windowed(tokenizer, [long], 12, 5)[0]) > 1


def test_a_second_segment_without_tokens_is_named(tiny):
    with pytest.raises(TextError, match=r"'dog \| \\u2028': the tokenizer makes no token of its second segment"):
        pair_tokens(load_tokenizer(tiny("bert")), [Segments("dog", "\u2028")], 16)


def test_a_window_that_is_not_there_is_named(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    with pytest.raises(TextError, match="has 1 windows, and none of number 1"):
        pair_tokens(tokenizer, [Segments(QUESTION, "dog", 1)], 16, 2)


def test_windows_by_hand(tiny):
    """Room for five tokens, an overlap of two: four words, one of them of two tokens, which stay together."""
    tokenizer = load_tokenizer(tiny("bert"))
    text = Segments("dog", "a the dog, runs over and it in")
    windows, offsets = windowed(tokenizer, ["dog", text, "a"], 9, 2)
    assert windows == ["dog", text, text.shift_window(1), text.shift_window(2), "a"]
    assert offsets.tolist() == [0, 1, 4, 5]
    tokens = pair_tokens(tokenizer, windows, 9, 2)
    seen = [[part for part in covered(tokens, index, text.second) if part != "-"] for index in (1, 2, 3)]
    assert seen == [["a", "the", "dog", ",", "runs"], ["dog", ",", "runs", "over", "and"], ["over", "and", "it", "in"]]
    assert tokens.uncut.tolist() == [3, 13, 11, 8, 3]
    assert spelt(tokenizer, tokens, 2) == ["<s>", "dog", "</s>", "dog", ",", "runs", "over", "and", "</s>"]


def test_a_word_longer_than_a_window_is_cut_and_one_nearly_as_long_costs_overlap_only():
    tokenizer = load_tokenizer(real_model("bert_vocab"))
    endless = Segments("how", "so " + "+" * 30 + " it is")
    windows, _ = windowed(tokenizer, [endless], 14, 3)
    tokens = pair_tokens(tokenizer, windows, 14, 3)
    pieces = ["".join(covered(tokens, index, endless.second)).strip("-") for index in range(len(windows))]
    assert pieces == ["so" + "+" * 9, "+" * 10, "+" * 10, "+" * 10, "+" * 3 + "itis"]
    long = Segments("how", "so so so so so so " + "+" * 9 + " it is")
    windows, _ = windowed(tokenizer, [long], 14, 3)
    tokens = pair_tokens(tokenizer, windows, 14, 3)
    pieces = ["".join(covered(tokens, index, long.second)).strip("-") for index in range(len(windows))]
    assert pieces == ["so" * 6, "so" + "+" * 9, "+" * 9 + "it", "itis"]


def test_windows_of_a_script_without_spaces_end_between_characters_and_overlap_as_others():
    tokenizer = load_tokenizer(real_model("bert_vocab"))
    text = Segments("how", "so " + "一二三四五六七八九十" * 2 + " it")
    windows, _ = windowed(tokenizer, [text], 14, 3)
    tokens = pair_tokens(tokenizer, windows, 14, 3)
    pieces = ["".join(covered(tokens, index, text.second)).strip("-") for index in range(len(windows))]
    assert pieces == ["so一二三四五六七八九", "七八九十一二三四五六", "四五六七八九十it"]


def test_a_plain_text_stands_for_all_of_its_windows(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    windows, offsets = windowed(tokenizer, [STORY], 8, 2)
    assert (windows, offsets.tolist()) == ([STORY], [0, 1])
    tokens = pair_tokens(tokenizer, windows, 8, 2)
    assert tokens.ids_of(0).tolist() == tokenizer.encode(STORY).ids
    parts, texts = tokens.in_windows(np.array([0]))
    assert len(texts) > 2
    assert parts.lengths.max() == 8
    held = [parts.ids_of(window)[parts.viewed_range(window)] for window in range(len(texts))]
    assert np.concatenate(held).tolist() == tokenizer.encode(STORY).ids


def test_texts_and_windows_keep_their_order_over_chunks(tiny):
    tokenizer = load_tokenizer(tiny("gpt2"))
    texts: list[Any] = []
    for number in range(CHUNK + 5):
        texts += [Segments(f"dog {number}", STORY), "dog runs"]
    windows, offsets = windowed(tokenizer, texts, 12, 2)
    tokens = pair_tokens(tokenizer, windows, 12, 2)
    assert offsets[-1] == len(windows) == len(tokens.lengths)
    for index, text in enumerate(texts):
        own = windows[offsets[index] : offsets[index + 1]]
        assert own == ([text] if isinstance(text, str) else [text.shift_window(window) for window in range(len(own))])
    assert {len(windows[offsets[0] : offsets[1]])} == set(np.diff(offsets)[::2].tolist())
    np.testing.assert_array_equal(tokens.lengths[offsets[:-1]][1::2], 2)
    last = len(texts) - 2
    np.testing.assert_array_equal(tokens.ids_of(int(offsets[last]) + 1)[3:], tokens.ids_of(1)[3:])


def between(letters: list[int], starts: list[int], room: int, context: str = "") -> list[int]:
    """Tokens that go on with what the one before is in, of what begins at some characters; if a window can hold it.

    Args:
        context: only such as have a combining mark in it.
    """
    of_token = np.searchsorted(starts, letters, side="right")
    return [
        at
        for at in range(1, len(letters))
        if of_token[at] == of_token[at - 1]
        and (of_token == of_token[at]).sum() <= room
        and (not context or (of_token[at] and is_mark(context[starts[of_token[at] - 1] :][1:2] or " ")))
    ]


words = st.one_of(
    st.sampled_from([*WORDS, "winter,", "dog.", "unbelievable", "naïve", "🐕", "犬犬犬犬", "3.14%", "--"]),
    st.sampled_from(["在2016年赢了。", "ที่นี่ดี", "हिन्दीभाषाहिन्दीभाषा", "كِتَابٌ", "e\u0301" * 20]),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12),
)
spaces = st.sampled_from([" ", " ", " ", "  ", "\n", "\t ", "\n\n"])
contexts = st.lists(st.tuples(spaces, words), min_size=1, max_size=60).map(lambda parts: "".join(map("".join, parts)))


@pytest.fixture(scope="module")
def tokenizers(tiny: Any) -> dict[str, Any]:
    folders = {"words": tiny("bert"), "bytes": tiny("qwen2"), "word pieces": find_backbone(CapturePlan()).tokenizer}
    return {name: load_tokenizer(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("context", ["हिन्दी" * 12, "e\u0301" * 40, "กี่ปี" * 12, "كِتَابٌ" * 10])
def test_a_window_never_parts_a_mark_from_its_character(context):
    tokenizer, text = load_tokenizer(real_model("gpt2_vocab")), Segments("the dog?", context)
    for stride in (0, 5):
        windows, _ = windowed(tokenizer, [text], 30, stride)
        tokens = pair_tokens(tokenizer, windows, 30, stride)
        assert len(windows) > 3
        for index in range(len(windows)):
            spans = tokens.characters[tokens.offsets[index] : tokens.offsets[index + 1]]
            first, last = spans[spans[:, 0] >= 0][[0, -1]]
            assert not is_mark(context[first[0]])
            assert not is_mark(context[last[1] : last[1] + 1] or " ")


@pytest.mark.parametrize("context", ["野马队赢了2016年的比赛，" * 9, "ที่นี่มี๕๐เขต" * 6, "नई दिल्ली भारत में है। " * 5])
def test_every_short_answer_lies_whole_in_a_window(context):
    tokenizer, text = load_tokenizer(real_model("gpt2_vocab")), Segments("the dog?", context)
    windows, _ = windowed(tokenizer, [text], 60, 30)
    tokens = pair_tokens(tokenizer, windows, 60, 30)
    spans = [tokens.characters[first:last] for first, last in pairwise(tokens.offsets)]
    held = [(own[own[:, 0] >= 0][0, 0], own[own[:, 0] >= 0][-1, 1]) for own in spans]
    assert len(held) > 3
    starts = [first for first, _ in unbreakable_spans(context)]
    for first, last in zip(starts, starts[3:], strict=False):  # of three characters, or words
        if len(tokenizer.encode(context[first:last].strip()).ids) <= 28:
            assert any(low <= first and len(context[:last].rstrip()) <= high for low, high in held)


@pytest.mark.parametrize("kind", ["words", "bytes", "word pieces"])
@settings(max_examples=60)
@given(context=contexts, max_tokens=st.integers(14, 40), stride=st.integers(0, 6))
def test_windows_lose_nothing_end_at_words_and_overlap(kind, tokenizers, context, max_tokens, stride):
    tokenizer, text = tokenizers[kind], Segments("the dog?", context)
    try:
        whole = pair_tokens(tokenizer, [text], 10_000)
    except TextError:  # characters that the tokenizer drops
        return
    assert whole.characters is not None
    ids, spans = whole.ids_of(0), whole.characters
    place = np.flatnonzero(spans[:, 0] >= 0)
    before, after = ids[: place[0]].tolist(), ids[place[-1] + 1 :].tolist()
    second = ids[place[0] : place[-1] + 1].tolist()
    room = max_tokens - len(before) - len(after)
    letters = [start + len(context[start:]) - len(context[start:].lstrip()) for start, _ in spans[place]]
    inside = between(
        letters, [first for first, _ in unbreakable_spans(context)], room
    )  # a word, or a character of a long one
    bases = [at for at, letter in enumerate(context) if not is_mark(letter)]
    inside += between(spans[place, 0].tolist(), bases, room, context)

    windows, _ = windowed(tokenizer, [text], max_tokens, stride)
    tokens = pair_tokens(tokenizer, windows, max_tokens, stride)
    ends, start = [], 0
    for index in range(len(windows)):
        own = tokens.ids_of(index).tolist()
        assert len(own) <= max_tokens
        assert own[: len(before)] == before
        assert own[len(own) - len(after) :] == after
        part = own[len(before) : len(own) - len(after)]
        start = len(ids) - int(tokens.uncut[index])
        assert second[start : start + len(part)] == part, "a window is a stretch of the whole"
        ends.append((start, start + len(part)))
        assert not set(ends[-1]) & set(inside), "a window begins and ends between words"
    assert (ends[0][0], ends[-1][1]) == (0, len(second))
    for (start, stop), (following, further) in pairwise(ends):
        assert start < following <= stop < further, "every window reaches further, and leaves no gap"
        next_word = min([at for at in range(stop + 1, len(second)) if at not in inside], default=len(second))
        assert stop - following >= stride or following - 1 in inside or following - 1 + room < next_word
    assert (tokens.uncut[:-1] > max_tokens).all()
    assert tokens.uncut[-1] <= max_tokens
