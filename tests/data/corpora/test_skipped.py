"""Rows that cannot be used: left out, counted by reason, told with the first of each, and no more than a share."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.build import make_encoding, usable_records
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.skipped import SkippedRows

SCORES = Targets("score", (0.0, 5.0))


def scored(*scores: str) -> list[Record]:
    return [
        Record(origin=f"f.csv:{line}", split="", texts=("a", "b"), target=score) for line, score in enumerate(scores, 2)
    ]


def read(rows: list[Record], skipped: SkippedRows, targets: Targets = SCORES) -> list[Record]:
    return list(usable_records(rows, make_encoding(targets), skipped))


cells = st.lists(st.sampled_from(["1", "5", "", "x", "nan", "7", "-"]), min_size=1, max_size=40)


@given(scores=cells, most=st.floats(0, 1))
def test_each_row_is_kept_or_in_the_list_and_few_are_no_error(scores, most):
    skipped = SkippedRows(most=most, ignored=["-"])
    rows = scored(*scores)
    kept = read(rows, skipped)
    assert [record.target for record in kept] == [score for score in scores if score in "15" and score]
    origins = [record.origin for record in kept] + [row.origin for row in skipped.all_rows]
    assert sorted(origins) == sorted(record.origin for record in rows)
    assert len(skipped.unwanted) == scores.count("-")
    usable = len(scores) - scores.count("-")
    if usable - len(kept) <= most * usable:
        skipped.check("f.csv")
    else:
        with pytest.raises(CorpusError) as error:
            skipped.check("f.csv")
        share = float(re.search(r"set corpus\.most_skipped = ([\d.]+) to", str(error.value)).group(1))
        skipped.most = share
        skipped.check("f.csv")  # as the message says


def test_the_error_counts_by_reason_and_says_what_to_set_to_what():
    skipped = SkippedRows()
    read(scored("1", "", "x", "4.5", "", "9.2", "0.5"), skipped)
    with pytest.raises(CorpusError) as error:
        skipped.check("f.csv")
    assert str(error.value) == (
        "f.csv:3: the score is missing; 4 of 7 rows of f.csv cannot be used (no score: 2; score that is no number: 1, "
        "the first f.csv:4; score outside corpus.score_range: 1, the first f.csv:7), and corpus.most_skipped = 0.01 "
        "allows 0; set corpus.score_range = [0, 10] (scores reach from 0.5 to 9.2), or correct them, or set "
        "corpus.most_skipped = 0.572 to leave them out."
    )


def test_notes_tell_each_reason_with_its_first_row_and_what_the_user_ignores():
    skipped = SkippedRows(ignored=["-"])
    read(scored(*["1"] * 394, "", "-", *["-"] * 4), skipped)
    skipped.check("f.csv")
    assert skipped.notes() == (
        "1 of 400 rows (0.25%) are left out, no score; the first: f.csv:396",
        "5 of 400 rows (1.25%) are left out, label '-'; the first: f.csv:397",
    )


def test_with_strict_the_first_row_is_refused_but_not_those_that_the_user_ignores():
    skipped = SkippedRows(strict=True, ignored=["-"])
    with pytest.raises(CorpusError) as error:
        read(scored("1", "-", "7", ""), skipped)
    assert str(error.value) == (
        "f.csv:4: the score 7 is outside corpus.score_range = [0, 5]; correct it, or leave out --strict (corpus.strict "
        "= false) to skip it."
    )
    assert [row.origin for row in skipped.all_rows] == ["f.csv:3"]
