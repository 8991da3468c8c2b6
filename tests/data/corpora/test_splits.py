"""Splits: what is cut, held out or limited never parts rows of the same text, and repeats itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.build import build_corpus
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record, Span
from permafrost.data.corpora.splits import cut_by_seed, limit_records, with_held_out, with_validation
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


uncut = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=40)


@given(pairs=uncut, seed=st.integers(0, 99))
def test_a_cut_loses_nothing_and_repeats_itself_and_never_parts_a_pair(pairs, seed):
    before = records(*((a, b, str(number)) for number, (a, b) in enumerate(pairs)), split="")
    after = list(cut_by_seed(before, (0.5, 0.25, 0.25), seed))
    assert after == list(cut_by_seed(before, (0.5, 0.25, 0.25), seed))
    assert sorted(record.origin for record in after) == sorted(record.origin for record in before)
    homes: dict[frozenset[str], set[str]] = {}
    for record in after:
        homes.setdefault(frozenset(record.texts), set()).add(record.split)
    assert all(len(splits) == 1 and splits <= set(SPLITS) for splits in homes.values())


def test_a_cut_has_the_shares_asked_and_another_seed_cuts_otherwise():
    before = records(*((f"a{n}", f"b{n}", "1") for n in range(200)), split="")
    cuts = [[record.split for record in cut_by_seed(before, (0.8, 0.1, 0.1), seed)] for seed in (0, 1)]
    assert [[cut.count(split) for split in SPLITS] for cut in cuts] == [[160, 20, 20]] * 2
    assert cuts[0] != cuts[1]
    assert len({record.split for record in cut_by_seed(before, (1.0, 0.0, 0.0), 0)}) == 1


@pytest.mark.parametrize("cut", ["by seed", "validation", HELD_OUT])
def test_questions_on_one_context_stay_together(cut):
    rows = questions(20, 5)
    if cut == "by seed":
        corpus = build_corpus("q", cut_by_seed(rows, (0.8, 0.1, 0.1), 0), Targets("answers"))
    else:
        whole = build_corpus("q", rows, Targets("answers"))
        corpus = with_validation(whole, 0.1, 0) if cut == "validation" else with_held_out(whole, 0.1, 0)
    sets = [contexts(corpus, split) for split in corpus.splits]
    assert len(sets) == (3 if cut == "by seed" else 2)
    assert sum(map(len, sets)) == len(set.union(*sets)) == 20
    assert len(corpus.splits[SPLITS[1] if cut == "by seed" else cut]) == 10


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
