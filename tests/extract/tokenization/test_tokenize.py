"""Truncation takes from a text's own end; template and special tokens stay; what cannot be tokenized is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from permafrost.data.plan.plan import CapturePlan
from permafrost.data.spec import SpecError
from permafrost.data.text import TextError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.tokenization.tokenize import CHUNK, tokenize
from tests.support.real import real_model

PROMPT = 'a brown "{text}" in winter .'


def words(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.id_to_token(int(i)) for i in ids]


def test_a_cut_text_equals_the_tokenizers_own_truncation(texts):
    folder = find_backbone(CapturePlan(backbone="minilm")).tokenizer
    ours, theirs = load_tokenizer(folder), load_tokenizer(folder)
    theirs.enable_truncation(8)
    tokens = tokenize(ours, texts, "{text}", 8)
    for index, encoding in enumerate(theirs.encode_batch(texts)):
        assert tokens.ids_of(index).tolist() == encoding.ids
    assert tokens.uncut.max() > 8


def test_the_words_of_a_template_survive_a_long_text(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    tokens = tokenize(tokenizer, ["dog runs over green grass and then it sleeps", "dog"], PROMPT, 12)
    cut = words(tokenizer, tokens.ids_of(0))
    assert cut == ["<s>", "a", "brown", "<unk>", "dog", "runs", "over", "<unk>", "in", "winter", ".", "</s>"]
    assert tokens.uncut.tolist() == [18, 10]
    assert len(tokens.ids_of(1)) == 10


def test_both_places_of_an_echoed_text_are_cut_alike_and_the_second_is_pooled(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    tokens = tokenize(tokenizer, ["dog runs over green grass and then", "dog"], "a {text} near {text} stove", 11)
    cut = words(tokenizer, tokens.ids_of(0))
    assert cut == ["<s>", "a", "dog", "runs", "over", "near", "dog", "runs", "over", "stove", "</s>"]
    assert [words(tokenizer, tokens.ids_of(text)[tokens.viewed_range(text)]) for text in (0, 1)] == [
        ["dog", "runs", "over"],
        ["dog"],
    ]
    assert tokens.uncut.tolist() == [19, 7]


def test_a_template_that_leaves_no_room_is_refused(tiny):
    with pytest.raises(SpecError, match="leaves no room"):
        tokenize(load_tokenizer(tiny("bert")), ["dog runs over green grass"], PROMPT, 9)


def test_a_text_without_tokens_is_named(tiny):
    with pytest.raises(TextError, match=r"'\\u2028'"):
        tokenize(load_tokenizer(tiny("gpt2")), ["dog", "\u2028"], "{text}", 9)


def test_a_text_that_leaves_nothing_within_a_long_template_is_named(tiny):
    with pytest.raises(TextError, match=r"'\\u2028'"):
        tokenize(load_tokenizer(tiny("bert")), ["\u2028"], PROMPT, 6)


def test_texts_keep_their_order_over_chunks(tiny):
    tokenizer = load_tokenizer(tiny("gpt2"))
    many = ["dog runs", "a", "small brown dog"] * CHUNK
    tokens = tokenize(tokenizer, many, "{text}", 16)
    assert tokens.lengths.tolist() == [2, 1, 3] * CHUNK
    assert words(tokenizer, tokens.ids_of(3 * CHUNK - 1)) == ["small", "brown", "dog"]


@pytest.mark.parametrize(("folder", "text", "ids"), [("gpt2_vocab", "Hello world", [15496, 995])])
def test_the_published_gpt2_vocabulary_makes_a_tokenizer(folder, text, ids):
    assert tokenize(load_tokenizer(Path(real_model(folder))), [text], "{text}", 9).ids.tolist() == ids


def test_the_bert_vocabulary_makes_a_tokenizer():
    assert tokenize(load_tokenizer(real_model("bert_vocab")), ["hello"], "{text}", 9).ids.tolist() == [101, 7592, 102]


BROKEN: dict[str, dict[str, Any]] = {
    "a normalizer that panics when it is made": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    },
    "no token for what is unknown": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "x"}},
    "an id of 32 bits": {"model": {"type": "WordLevel", "vocab": {"a": 0, "x": 4294967295}, "unk_token": "x"}},
    "a template of tokens that are none": {
        "post_processor": {
            "type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{"SpecialToken": {"id": "z", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_tokenizer_that_fails_on_a_text_is_told_in_a_line(name, tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    made = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(made | BROKEN[name]))
    with pytest.raises(BackboneError) as caught:
        tokenize(load_tokenizer(folder), ["the dog"], "{text}", 16)
    assert len(str(caught.value).splitlines()) == 1
