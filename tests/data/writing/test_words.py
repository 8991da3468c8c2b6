"""Words of raw text: split as the tagged corpora split theirs, and nothing of the text is lost."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.reader import RecordReader
from permafrost.data.readers.registry import SAMPLES
from permafrost.data.writing.script import is_mark
from permafrost.data.writing.words import read_entities, split_words, tag_words
from tests.support.real import real_data

SPLIT = {
    "in 1963.": "in 1963 .",
    "the U.S. and the U.N.": "the U.S. and the U.N.",
    "She paid $1,200, or C$1.5.": "She paid $ 1,200 , or C$ 1.5 .",
    "a Russian-born player": "a Russian-born player",
    "Seamus's sister didn't say": "Seamus 's sister did n't say",
    "the workers' union, they're told": "the workers ' union , they 're told",
    "It’s Siobhán O’Brien": "It ’s Siobhán O’Brien",
    '"Who?" (he asked)': '" Who ? " ( he asked )',
    "Elon Musk's SpaceX/Tesla": "Elon Musk 's SpaceX / Tesla",
    "won 6-4 in 2:29.34, up 1/2 or 5%": "won 6-4 in 2:29.34 , up 1/2 or 5 %",
    "wait... no--yes": "wait ... no -- yes",
    "Mr. J. Smith of Acme Inc.": "Mr. J. Smith of Acme Inc.",
    "Plan B.": "Plan B .",
    "1. Kenya, 2nd": "1. Kenya , 2nd",
    "U.S.'s, AT&T's": "U.S. 's , AT&T 's",
    "London,Paris": "London , Paris",
    "see http://a.org/b?c=1. Or me@a.org.": "see http://a.org/b?c=1 . Or me@a.org .",
    "a .500 season": "a .500 season",
    "然后野马队在2016年赢了NBA比赛。": "然 后 野 马 队 在 2016 年 赢 了 NBA 比 赛 。",
    "《Time》说：US$1.5，见http://a.org/b。好": "《 Time 》 说 ： US$ 1.5 ， 见 http://a.org/b 。 好",
    "バラク・オバマは、": "バ ラ ク ・ オ バ マ は 、",
    "ที่นี่มี ๕๐ เขต": "ที่ นี่ มี ๕๐ เ ข ต",
    "नई दिल्ली भारत में है। ए.पी.जे. कलाम": "नई दिल्ली भारत में है । ए.पी.जे. कलाम",
    "وُلِدَ فِي القَاهِرَةِ، مَنْ؟": "وُلِدَ فِي القَاهِرَةِ ، مَنْ ؟",
    "می\u200cخواهم (کتاب)": "می\u200cخواهم ( کتاب )",
    "cafe\u0301, e\u0301t.": "cafe\u0301 , e\u0301t .",
}


@pytest.mark.parametrize("text", SPLIT)
def test_a_text_is_split_as_the_corpora_split_theirs(text):
    assert " ".join(text[start:end] for start, end in split_words(text)) == SPLIT[text]


@given(st.text(st.sampled_from("aB1 .,'’-n ts$/\n(\"é東กีदी।\u0301。")) | st.text())
def test_every_character_but_white_space_is_in_one_word(text):
    places = split_words(text)
    assert [start for start, _ in places] == sorted(start for start, _ in places)
    assert "".join(text[start:end] for start, end in places) == "".join(text.split())
    assert all(start < end for start, end in places)
    assert all(one[1] <= other[0] for one, other in pairwise(places))
    assert not any(is_mark(text[end]) and text[end - 1].isalnum() for _, end in places if end < len(text))


@pytest.mark.parametrize(("corpus", "share"), [("samples", 1.0), ("conll2003", 0.99)])
def test_sentences_written_as_people_write_them_are_split_into_their_words(corpus, share):
    path = SAMPLES / "tags.conll" if corpus == "samples" else real_data(corpus) / "validation.txt"
    right = total = 0
    for record in RecordReader(CorpusSpec(target="tags")).read_file(path):
        words = [str(record.texts[0])[mark.start : mark.end] for mark in record.spans]
        text = written(words)
        right += [text[start:end] for start, end in split_words(text)] == words
        total += 1
    assert total > 100
    assert right >= share * total


def written(words: list[str]) -> str:
    """Words as a text: no blank before what follows its word, or after what leads its own; quotes open and close."""
    text, joined, quoted = "", True, False
    for word in words:
        follows = re.fullmatch(r"(?i)[.,;:!?)\]%']|\.\.\.|n't|'(s|m|re|ve|ll|d)", word) or (word == '"' and quoted)
        text += word if joined or follows else f" {word}"
        quoted ^= word == '"'
        joined = word in ("(", "[", "/") or word.endswith("$") or (word == '"' and quoted)
    return text


TEXT = "Ana Ruiz lives in Berlin-Mitte today."
ENTITIES = [(0, 8, "PER"), (18, 30, "LOC")]


@pytest.mark.parametrize(
    "value",
    [
        [[18, 30, "LOC"], [0, 8, "PER"]],
        {"entities": [[0, 8, "PER"], [18, 30, "LOC"]]},
        [{"start": start, "end": end, "label": label, "token_start": 0} for start, end, label in ENTITIES],
        [{"start": start, "end": end, "labels": [label], "text": "x"} for start, end, label in ENTITIES],
        [{"id": 1, "start_offset": start, "end_offset": end, "label": label} for start, end, label in ENTITIES],
    ],
)
def test_entities_are_the_same_however_a_tool_writes_them(value):
    assert read_entities(value) == ENTITIES


@pytest.mark.parametrize(
    "value",
    [
        "PER",
        None,
        ["PER"],
        [[0, 1]],
        [[0, "1", "PER"]],
        [[0, 1, ""]],
        [[0, 1, ["a", "b"]]],
        [{"start": 0}],
    ],
)
def test_what_is_no_list_of_entities_is_none(value):
    assert read_entities(value) is None
    assert read_entities([]) == []


def test_words_have_the_tags_of_the_entities_that_cover_them():
    words = [(TEXT[start:end], tag) for start, end, tag in tag_words(TEXT, ENTITIES)]
    tags = ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O"]
    assert words == list(zip(["Ana", "Ruiz", "lives", "in", "Berlin-Mitte", "today", "."], tags, strict=True))
    assert [tag for _, _, tag in tag_words("李明在北京", [(0, 2, "PER"), (3, 5, "LOC")])] == [
        *("B-PER", "I-PER"),
        "O",
        *("B-LOC", "I-LOC"),
    ]


@given(st.lists(st.tuples(st.sampled_from(["Ana", "lives", "Berlin"]), st.booleans()), min_size=1, max_size=9))
def test_entities_on_whole_words_come_back(words):
    text = " ".join(word for word, _ in words)
    starts = [len(" ".join(word for word, _ in words[:number])) + bool(number) for number in range(len(words))]
    entities = [(start, start + len(word), "X") for start, (word, marked) in zip(starts, words, strict=True) if marked]
    assert [(start, end, tag[2:]) for start, end, tag in tag_words(text, entities) if tag != "O"] == entities


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([(0, 8, "PER"), (4, 8, "LOC")], "share a word; a word has one tag"),
        ([(30, 90, "PER")], "covers no word of the text"),
        ([(3, 4, "PER")], "covers no word of the text"),
        ([(-1, 3, "PER")], "covers no word of the text"),
    ],
)
def test_an_entity_that_is_no_tag_of_words_is_told(entities, message):
    with pytest.raises(ValueError, match=message):
        tag_words(TEXT, entities)
