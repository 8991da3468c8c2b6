"""The token view: every token of a text, with its id and the characters it covers, as exact as the pooled views."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data.errors import MachineError
from permafrost.data.latents import maintenance
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.ragged import TokenLatents
from permafrost.data.spec import SpecError
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import tokenize
from tests.support.blocks import assert_equal_tokens
from tests.support.models.backbones import WORDS
from tests.support.models.families import FAMILIES
from tests.support.real import real_data, real_model

FLOAT32 = {"compute_dtype": "float32", "stored_dtype": "float32"}


def settings(folder: Path, **more: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(folder / "cache"), device="cpu", **more)


@pytest.fixture
def plan(tiny: Any) -> CapturePlan:
    return CapturePlan(backbone=str(tiny("bert")), views=("tokens",), layers=(1, 3), max_tokens=32, **FLOAT32)


class Notes(NoProgress):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def spelt(tokenizer: Any, tokens: TokenBatch, index: int, text: str) -> Iterator[tuple[str, str]]:
    """Each token of a text, and the characters that its span says it covers."""
    assert tokens.characters is not None
    start, end = tokens.offsets[index : index + 2]
    for token, (first, last) in zip(tokens.ids[start:end], tokens.characters[start:end], strict=True):
        yield tokenizer.id_to_token(int(token)), text[first:last] if first >= 0 else "-"


def test_spans_are_the_characters_of_the_text_as_it_is(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    text = "  The dog,  the\tstove."
    tokens = tokenize(tokenizer, [text], "{text}", 32, characters=True)
    assert list(spelt(tokenizer, tokens, 0, text)) == [
        ("<s>", "-"), ("The", "The"), ("dog", "dog"), (",", ","), ("the", "the"), ("stove", "stove"), (".", "."),
        ("</s>", "-"),
    ]  # fmt: skip


def test_words_of_the_template_cover_nothing_and_the_border_is_cut(tiny):
    tokenizer = load_tokenizer(tiny("bert"))
    texts = ["dog runs", "over"]
    tokens = tokenize(tokenizer, texts, "a brown{text}s the .", 32, characters=True)
    assert [covered for _, covered in spelt(tokenizer, tokens, 0, texts[0])] == ["-", "-", "dog", "runs", "-", "-", "-"]
    assert [covered for _, covered in spelt(tokenizer, tokens, 1, texts[1])] == ["-", "-", "over", "-", "-", "-"]


@pytest.mark.parametrize("template", ["{text}", "a {text} near the stove", "a {text} near {text} stove"])
def test_a_cut_text_keeps_the_spans_of_the_tokens_that_stay(tiny, template):
    tokenizer = load_tokenizer(tiny("bert"))
    texts = ["dog runs over green grass and then it sleeps", "dog"]
    places = template.count("{text}")
    words = len(template.split()) - places + 2
    tokens = tokenize(tokenizer, texts, template, words + 3 * places, characters=True)
    for index, text in enumerate(texts):
        covered = [part for _, part in spelt(tokenizer, tokens, index, text) if part != "-"]
        assert covered == text.split()[:3]
        seen = list(spelt(tokenizer, tokens, index, text))[tokens.viewed_range(index)]
        assert [part for _, part in seen if part != "-"] == covered, "the views see the place that the spans refer to"


@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_asking_for_characters_changes_no_token(tiny, texts, family):
    tokenizer = load_tokenizer(tiny(family))
    for template, longest in (("{text}", 9), ("the {text} .", 16), ("the {text} , {text} .", 12)):
        plain, more = (tokenize(tokenizer, texts, template, longest, characters) for characters in (False, True))
        np.testing.assert_array_equal(plain.ids, more.ids)
        np.testing.assert_array_equal(plain.offsets, more.offsets)
        np.testing.assert_array_equal(plain.viewed_lengths, more.viewed_lengths)
        assert plain.characters is None


def test_every_byte_of_a_character_covers_that_character():
    tokenizer = load_tokenizer(real_model("gpt2_vocab"))
    text = "naïve 🐕 犬"
    tokens = tokenize(tokenizer, [text], "{text}", 32, characters=True)
    covered = [part for _, part in spelt(tokenizer, tokens, 0, text)]
    assert covered == ["na", "ïve", " 🐕", "🐕", "🐕", " 犬", "犬", "犬"]


def test_minilm_spans_spell_real_sentences():
    lines = (real_data("conll2003") / "validation.txt").read_text().split("\n\n")[1:200]
    texts = [" ".join(row.split()[0] for row in block.splitlines()) for block in lines if block.strip()]
    tokenizer = load_tokenizer(find_backbone(CapturePlan(backbone="minilm")).tokenizer)
    tokens = tokenize(tokenizer, texts, "{text}", 256, characters=True)
    for index, text in enumerate(texts):
        for token, covered in list(spelt(tokenizer, tokens, index, text))[1:-1]:
            assert token == "[UNK]" or token.removeprefix("##") == covered.lower()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_store_and_an_extractor_give_the_same_tokens_in_the_order_asked(family, tiny, texts, tmp_path):
    plan = CapturePlan(backbone=str(tiny(family)), views=("tokens", "mean"), max_tokens=32, **FLOAT32)
    store = extract(plan, texts, settings(tmp_path)).store
    made = Extractor(plan, settings(tmp_path))(texts, plan.columns(4))
    read = store.read_tokens(texts, range(4))
    assert_equal_tokens(read, made["tokens"])
    np.testing.assert_array_equal(store.read(texts, "mean", range(4)), made["mean"])
    means = np.add.reduceat(read.states, read.offsets[:-1], axis=1) / read.lengths[:, None]
    np.testing.assert_allclose(means, made["mean"], atol=1e-5 * np.abs(read.states).max())
    batch = [3, 0, 3, len(texts) - 1]
    assert_equal_tokens(store.token_reader(texts, range(4)).read(batch), read.select(np.array(batch)))


def test_an_echo_holds_the_tokens_of_the_second_place_alone(plan, texts, tmp_path):
    short = [text for text in texts if len(text.split()) < 9]
    echo = replace(plan, template="then {text} , and {text} near it", max_tokens=64)
    read = extract(echo, short, settings(tmp_path)).store.read_tokens(short, [1])
    for index, text in enumerate(short):
        spans = read.spans[read.offsets[index] : read.offsets[index + 1]]
        assert [text[first:last] for first, last in spans] == text.replace(",", " , ").replace(".", " . ").split()


def test_tokens_run_beside_or_after_the_pooled_views_and_are_the_same(plan, texts, tmp_path):
    alone = extract(plan, texts, settings(tmp_path / "alone")).store
    both = extract(replace(plan, views=("tokens", "mean")), texts, settings(tmp_path / "both"))
    assert both.texts_run == len(texts)
    later = settings(tmp_path / "later")
    assert extract(replace(plan, views=("mean",)), texts, later).texts_run == len(texts)
    grown = extract(replace(plan, views=("mean", "tokens")), texts, later)
    assert grown.texts_run == len(texts)
    assert {view for shard in grown.store.shards for view in shard.columns} == {"mean", "tokens"}
    expected = alone.read_tokens(texts, [1, 3])
    for store in (both.store, grown.store):
        assert_equal_tokens(store.read_tokens(texts, [1, 3]), expected)
    assert extract(plan, texts, later).texts_run == 0


def test_only_the_layers_asked_for_are_on_disk_and_more_can_follow(plan, texts, tmp_path):
    store = extract(plan, texts, settings(tmp_path)).store
    assert store.columns() == {"tokens": (1, 3)}
    more = extract(replace(plan, layers="all"), texts, settings(tmp_path))
    assert sorted(shard.columns["tokens"] for shard in more.store.shards) == [(0, 2), (1, 3)]
    assert more.store.read_tokens(texts, range(4)).states.shape[0] == 4


@pytest.mark.parametrize("views", [("tokens",), ("tokens", "mean")])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_shards_keep_their_size_whatever_the_lengths_of_texts(views, family, tiny, texts, tmp_path):
    plan = CapturePlan(backbone=str(tiny(family)), views=views, layers=(2,), max_tokens=32, **FLOAT32)
    whole = extract(plan, texts, settings(tmp_path / "whole", batch_tokens=40)).store.read_tokens(texts, [2])
    small = extract(plan, texts, settings(tmp_path, batch_tokens=40, shard_bytes=20_000)).store
    assert len(small.shards) > 3
    for shard in small.shards:
        assert shard.tokens * (32 * 4 + 12) <= 20_000
    assert_equal_tokens(small.read_tokens(texts, [2]), whole)


@pytest.mark.parametrize("layers", ["all", pytest.param((2,), marks=pytest.mark.slow)])
@pytest.mark.parametrize("views", [("tokens", "mean", "max"), pytest.param(("tokens",), marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_size_expected_is_the_size_on_disk(layers, views, family, tiny, tmp_path):
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(400)))
    plan = CapturePlan(
        backbone=str(tiny(family, 64)), views=views, layers=layers, max_tokens=16, compute_dtype="float32"
    )
    expected = expected_bytes(plan, texts, tmp_path)
    notes = Notes()
    store = extract(plan, texts, settings(tmp_path), notes).store
    assert any(f" {expected / 1e6:,.1f} MB to {store.path}" in note for note in notes.said)
    size = sum(path.stat().st_size for path in store.path.glob("*.h5"))
    assert 0.95 * size < expected <= size


def expected_bytes(plan: CapturePlan, texts: list[str], folder: Path) -> int:
    """What a run that may add one byte says it would take."""
    with pytest.raises(SpecError) as error:
        extract(plan, texts, settings(folder, max_bytes=1))
    return int(str(error.value).split("take ")[1].split(" bytes")[0].replace(",", ""))


def test_more_bytes_than_allowed_are_refused_before_anything_runs(plan, texts, tmp_path):
    allowed = settings(tmp_path, max_bytes=10_000)
    with pytest.raises(SpecError) as error:
        extract(plan, texts, allowed)
    assert "bytes and extract.max_bytes = 10,000; ask for fewer layers" in str(error.value)
    assert "corpus.limit" in str(error.value)
    assert not maintenance.store_folders(tmp_path / "cache")
    size = expected_bytes(plan, texts, tmp_path)
    with pytest.raises(SpecError, match=f"take {size:,} bytes"):
        extract(plan, texts, settings(tmp_path, max_bytes=size - 1))
    assert extract(plan, texts, settings(tmp_path, max_bytes=size)).texts_run == len(texts)
    assert extract(plan, texts, allowed).texts_run == 0, "what is there already takes no room"
    with pytest.raises(SpecError, match="max_bytes must be 0"):
        ExtractSpec(max_bytes=-1)


def test_tokens_of_a_reworded_text_are_refused():
    with pytest.raises(SpecError, match="views has tokens, whose character spans refer to the text as it is"):
        CapturePlan(views=("mean", "tokens"), rewording=("lower_case",))


def test_the_self_check_looks_at_every_token(tiny, texts, tmp_path, monkeypatch):
    """A capture that takes some tokens from a neighbour is found before anything is stored."""
    from permafrost.extract.capture import forward

    real = forward.capture_on_device

    def shifted(*given: Any) -> Any:
        found = real(*given)
        found["tokens"][:, 1:3] = found["tokens"][:, 1:3].flip(1)
        return found

    monkeypatch.setattr(forward, "capture_on_device", shifted)
    plan = CapturePlan(backbone=str(tiny("bert")), views=("mean", "tokens"), max_tokens=32, **FLOAT32)
    with pytest.raises(MachineError, match="self-check"):
        extract(plan, texts, settings(tmp_path))
    assert not maintenance.store_folders(tmp_path / "cache")


def test_the_longest_batch_is_not_padded_in_the_store(plan, texts, tmp_path):
    read = extract(plan, texts, settings(tmp_path)).store.read_tokens(texts, [1])
    assert read.lengths.tolist() == [min(32, len(text.split()) + 2) for text in texts]
    assert isinstance(read, TokenLatents)
    assert np.abs(read.states).sum(-1).all()


@pytest.mark.parametrize("name", ["stories260K", "babyllama"])
def test_small_real_causal_models_give_spans_that_spell_their_texts(name, tmp_path):
    texts = ["Once upon a time there was a little dog.", "Once upon a time", "She ran."]
    plan = CapturePlan(backbone=str(real_model(name)), views=("tokens",), layers=(-1,))
    store = extract(plan, texts, settings(tmp_path)).store
    read = store.read_tokens(texts, store.columns()["tokens"])
    for index, text in enumerate(texts):
        spans = read.spans[read.offsets[index] : read.offsets[index + 1]]
        covered = {place for first, last in spans if first >= 0 for place in range(first, last)}
        assert {place for place, letter in enumerate(text) if letter != " "} <= covered
        assert (spans.max(), spans[0].tolist()) == (len(text), [-1, -1])
