"""Surface patterns: negation is a word, overlap is of words or characters, and every group is what its name says."""

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.probes.metrics.calibration import Temperature
from permafrost.probes.metrics.probabilities import softmax
from permafrost.probes.tasks.base import OutputSpace
from permafrost.probes.tasks.classes import patterns, word_overlap
from permafrost.probes.tasks.registry import TASKS


def of_classes(texts: tuple[str, ...], sides: int) -> Corpus:
    rows = Rows(np.arange(len(texts)).reshape(-1, sides), np.zeros(len(texts) // sides, np.int64))
    return Corpus(name="toy", texts=texts, splits={"test": rows}, labels=("a", "b"), kind="class")


NEGATED = {
    "It isn't here.": True, "it isn’t here": True, "they do n't go": True, "Not today": True, "nobody came": True,
    "I cannot": True, "a knot in a note": False, "nonetheless fine": False, "notable": False, "": False,
    "他说no。": True, "no\u0301": False, "他不去": False,
}  # fmt: skip


def test_negation_is_a_word_of_the_text_that_is_looked_at():
    corpus = of_classes(tuple(NEGATED), 1)
    assert patterns(corpus, corpus.split("test"))["negation"].tolist() == list(NEGATED.values())
    pairs = of_classes(("no", "a dog runs", "a dog", "no dog", "b", "x"), 2)
    found = patterns(pairs, pairs.split("test"))
    assert found["negation"].tolist() == [False, True, False]
    assert found["high word overlap"].tolist() == [False, True, False]
    assert (found["no negation"] == ~found["negation"]).all()


def test_a_pattern_that_no_row_has_is_left_out():
    corpus = of_classes(("a", "b", "c", "d"), 1)
    assert patterns(corpus, corpus.split("test")) == {}


def test_overlap_is_of_the_second_text():
    assert word_overlap("A dog runs in the park", "the dog, the DOG sleeps") == pytest.approx(2 / 3)
    assert word_overlap("a", "") == 0


OVERLAPS = [
    ("野马队赢了比赛。", "野马队输了比赛", 6 / 7),
    ("野马队赢了比赛", "上海", 0),
    ("Apple公司在北京", "Apple 公司", 1),
    ("トヨタ自動車", "トヨタ", 1),
    ("ที่นี่", "ที่นั่น", 1 / 3),
    ("हिन्दी भाषा", "हिन्दी की भाषा।", 2 / 3),
    ("हिन्दी", "हिन", 0),
    ("كِتَابٌ جَمِيلٌ", "كِتَابٌ", 1),
    ("Cafe\u0301 noir", "cafe\u0301", 1),
]


@pytest.mark.parametrize(("first", "second", "share"), OVERLAPS)
def test_overlap_is_of_words_or_of_characters_where_there_are_no_spaces(first, second, share):
    assert word_overlap(first, second) == pytest.approx(share)


def of_targets(targets: np.ndarray) -> Corpus:
    rows = Rows(np.zeros((len(targets), 1), np.int64), targets)
    splits = {"train": rows, "validation": rows, "test": rows}
    return Corpus(name="toy", texts=("a",), splits=splits, labels=("a", "b", "c"), kind="class")


def test_a_temperature_changes_probabilities_and_neither_classes_nor_the_order_of_answers():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 400)
    logits = (6 * np.eye(3)[np.where(rng.random(400) < 0.6, target, 0)] + rng.normal(size=(400, 3))).astype(np.float32)
    corpus, task = of_targets(target), TASKS["class"]
    fitted = task.calibrate(logits, corpus, 0.0)
    assert fitted.temperature[0] > 1.5
    answers = {}
    for calibration in (None, fitted):
        space = OutputSpace(labels=corpus.labels, score_range=None, calibration=calibration)
        assert task.is_complete(space)
        answers[calibration is None] = task.answers(space, [("a",), ("b",)], lambda texts, rows: logits[:2])
    for plain, calibrated in zip(answers[True], answers[False], strict=True):
        assert plain["label"] == calibrated["label"]
        first, second = (each["probabilities"] for each in (plain, calibrated))
        assert sorted(first, key=first.get) == sorted(second, key=second.get)
        assert max(second.values()) < max(first.values())
    np.testing.assert_array_equal(  # as before there was a temperature
        [list(answer["probabilities"].values()) for answer in answers[True]], softmax(logits[:2]).astype(float)
    )
    tables = task.calibration_tables(task.scorer(corpus, "test"), [logits], [fitted])
    by = {(row["stage"], row["metric"]): row for row in tables["calibration"]}
    for metric in ("log_loss", "ece"):
        assert by["calibrated", metric]["value"] < by["uncalibrated", metric]["value"]
        assert by["calibrated", metric]["low"] < by["calibrated", metric]["value"] < by["calibrated", metric]["high"]
    assert sum(row["n"] for row in tables["reliability"] if row["stage"] == "calibrated") == 400
    without = task.calibration_tables(task.scorer(corpus, "test"), [logits], [None])
    assert {row["stage"] for row in without["calibration"]} == {"uncalibrated"}


@pytest.mark.parametrize("value", [[0.0], [-1.0], [1.0, 2.0]])
def test_a_stored_temperature_that_is_none_is_refused(value):
    calibration = Temperature(np.array(value))
    space = OutputSpace(labels=("a", "b"), score_range=None, calibration=calibration)
    assert not TASKS["class"].is_complete(space)
