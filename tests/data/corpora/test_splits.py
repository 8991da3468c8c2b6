"""Splits: a digest decides and rows added later change nothing; what is held out never parts rows of a text."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from permafrost.data.corpora.build import build_corpus
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record, Span
from permafrost.data.corpora.splits import cut_by_seed, limit_records, settle_splits, with_held_out, with_validation
from permafrost.data.text import Segments

SCORES = Targets("score", (0.0, 5.0))


def records(*rows: tuple[str, ...], split: str = "train") -> list[Record]:
    """Each row is its texts, then its target."""
    return [
        Record(origin=f"f.csv:{line}", split=split, texts=row[:-1], target=row[-1]) for line, row in enumerate(rows, 2)
    ]


def questions(contexts: int, each: int, split: str = "train") -> list[Record]:
    return [
        Record(
            origin=f"f:{n}",
            split=split,
            texts=(Segments(f"question {n}", f"context {n // each} of {split}"),),
            spans=(Span(0, 7),),
        )
        for n in range(contexts * each)
    ]


def contexts(corpus: Corpus, split: str) -> set[str]:
    return {corpus.texts[text].second for text in corpus.split(split).texts[:, 0]}


FRACTIONS = (0.8, 0.1, 0.1)

uncut = st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from("abcdef")), max_size=40)


def cut(rows: list[Record], fractions: tuple[float, float, float] = FRACTIONS, seed: int = 0) -> list[Record]:
    """Records as a corpus of one file has them, their target the name of their class."""
    return settle_splits(
        list(cut_by_seed(rows, fractions, seed)), fractions, seed, lambda record: [record.target or ""]
    )


@given(pairs=uncut, seed=st.integers(0, 99))
def test_a_cut_loses_nothing_and_repeats_itself_whatever_the_order(pairs, seed):
    before = records(*((a, b, str(number)) for number, (a, b) in enumerate(pairs)), split="")
    after = list(cut_by_seed(before, (0.5, 0.25, 0.25), seed))
    assert [record.origin for record in after] == [record.origin for record in before]
    homes = {record.texts[0]: record.split for record in after}
    assert all(record.split == homes[record.texts[0]] and record.split in SPLITS for record in after)
    assert list(cut_by_seed(before[::-1], (0.5, 0.25, 0.25), seed)) == after[::-1]


def test_a_cut_has_about_the_shares_asked_and_another_seed_cuts_otherwise():
    before = records(*((f"a{n}", f"b{n}", "1") for n in range(4000)), split="")
    cuts = [[record.split for record in cut_by_seed(before, FRACTIONS, seed)] for seed in (0, 1)]
    for splits in cuts:
        for split, fraction in zip(SPLITS, FRACTIONS, strict=True):
            deviation = (4000 * fraction * (1 - fraction)) ** 0.5
            assert abs(splits.count(split) - 4000 * fraction) < 4 * deviation
    assert cuts[0] != cuts[1]
    assert {record.split for record in cut_by_seed(before, (1.0, 0.0, 0.0), 0)} == {"train"}
    assert {record.split for record in cut_by_seed(before, (0.5, 0.0, 0.5), 0)} == {"train", "test"}


labelled = st.lists(st.tuples(st.text("abcdefgh ", min_size=1, max_size=3), st.sampled_from("xyz")), max_size=50)


added = st.lists(
    st.tuples(st.one_of(st.text("abc ", min_size=1), st.integers(0, 98)), st.sampled_from("uvwxyz")), max_size=50
)


@given(old=st.integers(0, 999), new=added, at=st.integers(0, 99), seed=st.integers(0, 9))
def test_rows_added_later_move_no_row_of_validation_or_test(old, new, at, seed):
    texts = [f"{old} text {n}" for n in range(99)]
    before = records(*((text, "uvw"[n % 3]) for n, text in enumerate(texts)), split="")
    splits = {record.texts: record.split for record in cut(before, seed=seed)}
    assume(len(set(splits.values())) == 3)
    rows = records(*((texts[text] if isinstance(text, int) else text, name) for text, name in new), split="")
    after = cut([*before[:at], *(replace(record, origin="new") for record in rows), *before[at:]], seed=seed)
    kept = {record.texts: record.split for record in after if record.origin != "new"}
    assert kept == splits


@given(rows=labelled, seed=st.integers(0, 99))
def test_every_class_is_learnt_and_every_split_that_can_be_filled_is(rows, seed):
    after = cut(records(*rows, split=""), seed=seed)
    by_split = {split: [record for record in after if record.split == split] for split in SPLITS}
    assert {record.target for record in by_split["train"]} == {record.target for record in after}
    for split in ("validation", "test"):
        if not by_split[split]:
            train, texts = by_split["train"], {record.texts for record in by_split["train"]}
            for text in texts if len(texts) > 1 else ():  # each group holds the last rows of a class
                others = {record.target for record in train if record.texts != text}
                assert {record.target for record in train if record.texts == text} - others


def test_a_split_that_no_digest_falls_into_takes_its_share_of_the_nearest():
    rows = records(*((f"text {n}", "x") for n in range(100)), split="")
    train = [record for record in cut_by_seed(rows, FRACTIONS, 0) if record.split == "train"][:30]
    after = cut([replace(record, split="") for record in train])
    assert [sum(record.split == split for record in after) for split in SPLITS] == [24, 3, 3]
    wider = (0.7, 0.2, 0.1)
    nearest = {record.texts for record in cut_by_seed(train, wider, 0) if record.split == "validation"}
    assert {record.texts for record in after if record.split != "train"} & nearest


@pytest.mark.parametrize("how", ["by seed", "validation", HELD_OUT])
def test_questions_on_one_context_stay_together(how):
    rows = questions(20, 5)
    if how == "by seed":
        corpus = build_corpus("q", cut_by_seed(rows, (0.8, 0.1, 0.1), 0), Targets("answers"))
    else:
        whole = build_corpus("q", rows, Targets("answers"))
        corpus = with_validation(whole, 0.1, 0) if how == "validation" else with_held_out(whole, 0.1, 0)
    sets = [contexts(corpus, split) for split in corpus.splits]
    assert len(sets) == (3 if how == "by seed" else 2)
    assert sum(map(len, sets)) == len(set.union(*sets)) == 20
    if how != "by seed":
        assert len(corpus.splits[how]) == 10


def test_a_held_out_part_chooses_and_leaves_validation_as_it_is():
    rows = [*records(*((f"a{n}", "b", "1") for n in range(40))), *records(("x", "y", "2"), split="validation")]
    whole = build_corpus("c", rows, SCORES)
    corpus = with_held_out(whole, 0.25, seed=3)
    assert {split: len(part) for split, part in corpus.splits.items()} == {"train": 30, HELD_OUT: 10, "validation": 1}
    assert (whole.selection_split, corpus.selection_split) == ("validation", HELD_OUT)
    assert corpus.split("validation") is whole.split("validation")
    parts = [{tuple(side) for side in corpus.split(split).texts} for split in ("train", HELD_OUT)]
    assert not parts[0] & parts[1]
    again, other = (with_held_out(whole, 0.25, seed).split(HELD_OUT).texts for seed in (3, 4))
    assert np.array_equal(again, corpus.split(HELD_OUT).texts)
    assert not np.array_equal(other, again)


def test_too_little_to_hold_out_of_is_told_with_the_way_out():
    corpus = build_corpus("c", records(*((f"a{n}", "b", "1") for n in range(9))), SCORES)
    with pytest.raises(CorpusError, match=r"^c: fewer than 10 distinct training texts; set corpus\.held_out = 0\.$"):
        with_held_out(corpus, 0.5, 0)


def test_a_validation_split_is_made_only_where_there_is_none_and_no_larger_than_allowed():
    whole = build_corpus("q", questions(20, 5), Targets("answers"))
    assert len(with_validation(whole, 0.5, 0).split("validation")) == 50
    corpus = with_validation(whole, 0.5, 0, max_rows=12)
    assert (len(corpus.split("validation")), len(corpus.split("train"))) == (10, 90)
    assert with_validation(corpus, 0.5, 0) is corpus
    assert with_validation(whole, 0.0, 0) is whole


def test_a_limit_keeps_the_first_rows_of_each_split():
    rows = [
        Record(origin=f"f:{n}", split=split, texts=(f"{split} {n}",), target="1")
        for n in range(5)
        for split in ("test", "train")
    ]
    kept = list(limit_records(rows, 2, {}, spread=False))
    assert [record.texts[0] for record in kept] == ["test 0", "train 0", "test 1", "train 1"]
    kept = list(limit_records(rows, 2, {"test": 4, "train": 0}, spread=False))
    assert [sum(record.split == split for record in kept) for split in SPLITS] == [5, 0, 4]


@given(size=st.integers(1, 60), most=st.integers(1, 70))
def test_a_spread_limit_takes_as_many_at_even_distances(size, most):
    rows = [Record(origin=f"f:{n}", split="train", texts=(str(n),)) for n in range(size)]
    kept = [int(str(record.texts[0])) for record in limit_records(rows, 0, {"train": most}, spread=True)]
    assert len(kept) == min(size, most)
    gaps = np.diff([*kept, size])
    assert kept[0] == 0
    assert gaps.max() - gaps.min() <= 1
