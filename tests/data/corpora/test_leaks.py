"""Texts and pairs that are in train and in a measured split: counted as by hand, told, and taken out of train."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.build import build_corpus
from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import SPLITS, CorpusError, Record
from permafrost.data.corpora.splits import drop_leaks, leak_notes
from permafrost.data.text import Segments


def corpus_of(rows: list[tuple[str, ...]]) -> Corpus:
    """A corpus of rows of a split and texts."""
    return build_corpus("c", [Record(origin="f:1", split=row[0], texts=row[1:]) for row in rows], Targets())


def texts_of(corpus: Corpus, split: str) -> list[list[str]]:
    return (
        [sorted(corpus.texts[text] for text in row) for row in corpus.splits[split].texts]
        if split in corpus.splits
        else []
    )


letters = st.sampled_from("abcdefgh")
some = st.one_of(
    st.lists(st.tuples(st.sampled_from(SPLITS), letters), max_size=20),
    st.lists(st.tuples(st.sampled_from(SPLITS), letters, letters), max_size=20),
)


@given(rows=some)
def test_leaks_are_counted_as_by_hand_and_dropped_from_train_alone(rows):
    rows = [("train", *["z"] * max(1, len(rows[0]) - 1 if rows else 1)), *rows]
    corpus = corpus_of(rows)
    train = texts_of(corpus, "train")
    expected = []
    for split in ("validation", "test"):
        found = texts_of(corpus, split)
        same = sum(row in train for row in found)
        part = sum(row not in train and bool(set(row) & {text for texts in train for text in texts}) for row in found)
        expected += [f"{same} of {len(found)} rows of {split} have the same"] * bool(same)
        expected += [f"{part} of {len(found)} rows of {split} share one of their two texts"] * bool(part)
    notes = leak_notes(corpus)
    assert len(notes) == len(expected)
    assert all(note.startswith(start) for note, start in zip(notes, expected, strict=True))
    measured = [*texts_of(corpus, "validation"), *texts_of(corpus, "test")]
    dropped = drop_leaks(corpus)
    assert texts_of(dropped, "train") == [row for row in train if row not in measured]
    assert {split: dropped.splits[split] for split in corpus.splits if split != "train"} == {
        split: rows for split, rows in corpus.splits.items() if split != "train"
    }
    assert not [note for note in leak_notes(dropped) if "the same" in note]


def test_what_is_told_says_what_to_set_and_what_was_taken_out():
    corpus = corpus_of([("train", "a", "b"), ("train", "c", "d"), ("test", "b", "a"), ("test", "d", "e")])
    assert leak_notes(corpus) == (
        "1 of 2 rows of test have the same texts as a row of train, so figures read high; set corpus.drop_leaks = true "
        "(--drop-leaks) to take such rows out of train",
        "1 of 2 rows of test share one of their two texts with a row of train",
    )
    assert drop_leaks(corpus).notes == (
        "1 of 2 rows of train are taken out: their texts are in validation or test too",
    )
    with pytest.raises(
        CorpusError, match=r"^c: the texts of all its training rows are .*set corpus\.drop_leaks = false"
    ):
        drop_leaks(corpus_of([("train", "a"), ("test", "a")]))


def test_questions_share_a_context():
    rows = [("train", Segments("who", "here")), ("test", Segments("what", "here")), ("test", Segments("who", "here"))]
    notes = leak_notes(corpus_of(rows))
    assert [note.split(" with ")[0].split(", ")[0] for note in notes] == [
        "1 of 2 rows of test have the same text as a row of train",
        "1 of 2 rows of test share their context",
    ]


def test_half_a_million_rows_take_a_moment():
    rng, count = np.random.default_rng(0), 500_000
    pairs = {split: Rows(rng.integers(0, count, (count // 2, 2)), np.zeros(count // 2)) for split in ("train", "test")}
    corpus = Corpus(name="c", texts=tuple(map(str, range(count))), splits=pairs)
    started = time.perf_counter()
    leak_notes(drop_leaks(corpus))
    assert time.perf_counter() - started < 5
