"""Figures of groups are those of scikit-learn and seqeval, and groups are what their names say."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from seqeval.metrics import classification_report
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.text import Segments
from permafrost.probes.tasks.registry import row_labels, scorer_of
from permafrost.probes.tasks.sentences import patterns, word_overlap
from permafrost.probes.tasks.span import question_word
from permafrost.probes.variants.tables import BREAKDOWN_COLUMNS, breakdown_table

ROWS = 60
LABELS = ("yes", "no", "maybe", "never said nor true")


@dataclass
class Predicted:
    """The part of a trained variant that tables of predictions read."""

    predicted: list[np.ndarray]
    variant: str = "predicted"

    def outputs(self, split: str) -> list[np.ndarray]:
        return self.predicted


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)


def of_classes(texts: tuple[str, ...], sides: int, seed: int = 0) -> Corpus:
    rng = np.random.default_rng(seed)
    rows = Rows(np.arange(len(texts)).reshape(-1, sides), rng.integers(0, 3, len(texts) // sides))
    return Corpus(
        name="toy", texts=texts, splits={"train": rows, "validation": rows, "test": rows}, labels=LABELS, kind="class"
    )


def values(table: pd.DataFrame, kind: str, split: str = "test") -> dict[tuple[str, str], float]:
    rows = table[(table["kind"] == kind) & (table["split"] == split)]
    return {(row["group"], row["metric"]): row["value"] for _, row in rows.iterrows()}


def test_classes_are_scored_as_scikit_learn_scores_them():
    corpus = of_classes(tuple(f"text {n}" for n in range(ROWS)), 1)
    target = corpus.split("test").targets
    said = np.random.default_rng(1).normal(size=(2, ROWS, 4)).astype(np.float32) + 2 * np.eye(4)[target]
    said[..., 3] = -9
    table = breakdown_table(Predicted(list(said)), corpus)
    assert list(table) == BREAKDOWN_COLUMNS
    assert set(table["split"]) == {"validation", "test"}
    found = values(table, "class")
    reference = np.mean(
        [precision_recall_fscore_support(target, one.argmax(1), labels=[0, 1, 2])[:3] for one in said], axis=0
    )
    for row, metric in enumerate(("precision", "recall", "f1")):
        for code in range(3):
            assert found[LABELS[code], metric] == pytest.approx(reference[row, code])
    assert len(found) == 9
    counts = table[(table["split"] == "test") & (table["metric"] == "recall")].set_index("group")["n"]
    assert [counts[label] for label in LABELS[:3]] == np.bincount(target).tolist()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).mean() > 0.9


def test_a_class_that_is_never_said_has_no_precision():
    corpus = of_classes(tuple(f"text {n}" for n in range(ROWS)), 1)
    found = values(breakdown_table(Predicted([np.eye(4)[np.zeros(ROWS, int)]]), corpus), "class")
    assert (found["no", "precision"], found["no", "recall"], found["no", "f1"]) == (0, 0, 0)
    assert found["yes", "recall"] == 1


TAGS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


def of_tags(rng: np.random.Generator) -> Corpus:
    """Sentences of one to eight words with tags that follow each other as they may."""
    lengths = rng.integers(1, 9, 30)
    codes: list[int] = []
    for length in lengths:
        for place in range(length):
            before = codes[-1] if place else 0
            allowed = [0, 1, 2, *{1: [3], 3: [3], 2: [4], 4: [4]}.get(before, [])]
            codes.append(int(rng.choice(allowed)))
    texts = tuple(" ".join("abcdefgh"[:length]) + f" {n}" for n, length in enumerate(lengths))
    spans = np.concatenate([[(2 * place, 2 * place + 1) for place in range(length)] for length in lengths])
    marks = Spans(spans, np.array(codes), np.concatenate([[0], np.cumsum(lengths)]))
    rows = Rows(np.arange(30)[:, None], np.zeros(30), marks)
    return Corpus(
        name="toy", texts=texts, splits={"train": rows, "held-out": rows, "validation": rows}, labels=TAGS, kind="tags"
    )


def test_entities_are_scored_as_seqeval_scores_them():
    rng = np.random.default_rng(0)
    corpus = of_tags(rng)
    marks = corpus.split("validation").spans
    said = [rng.normal(size=(len(marks.codes), 5)) + 2.5 * np.eye(5)[marks.codes] for _ in range(2)]
    found = values(breakdown_table(Predicted(said), corpus), "entity type", "validation")
    answers = [scorer_of(corpus, "validation").decode(one) for one in said]
    cut = [
        [[TAGS[code] for code in part] for part in np.split(codes, marks.offsets[1:-1])]
        for codes in (marks.codes, *answers)
    ]
    reports = [classification_report(cut[0], one, output_dict=True, zero_division=0) for one in cut[1:]]
    for kind in ("LOC", "PER"):
        for metric, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert found[kind, metric] == pytest.approx(np.mean([report[kind][name] for report in reports]))
            assert 0 < found[kind, metric] < 1
    table = breakdown_table(Predicted(said), corpus)
    assert set(table["split"]) == {"held-out", "validation"}
    assert table.groupby("group")["n"].first().to_dict() == {k: reports[0][k]["support"] for k in ("LOC", "PER")}


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


def test_patterns_are_scored_on_their_own_rows():
    texts = tuple(f"{'no' if n % 3 == 0 else 'a'} thing {n}" for n in range(ROWS))
    corpus = of_classes(texts, 1)
    target = corpus.split("test").targets
    said = np.random.default_rng(1).normal(size=(ROWS, 4)) + np.eye(4)[target]
    table = breakdown_table(Predicted([said]), corpus)
    found, right = values(table, "pattern"), said.argmax(1) == target
    there = np.arange(ROWS) % 3 == 0
    assert found["negation", "accuracy"] == pytest.approx(accuracy_score(target[there], said.argmax(1)[there]))
    assert found["no negation", "accuracy"] == pytest.approx(right[~there].mean())
    assert found["negation", "share_of_mistakes"] == pytest.approx((~right & there).sum() / (~right).sum())
    assert found["negation", "share_of_rows"] == pytest.approx(1 / 3)
    n = table[(table["kind"] == "pattern") & (table["group"] == "negation")]["n"]
    assert set(n) == {20}


ASKED = {
    "What is it?": "what", "In which year?": "which", "By whom was it sold?": "who", "Whose is it?": "who",
    "How many are there?": "how many/how much", "how  much": "how many/how much", "How is it?": "how",
    "Name the capital.": "other", "Somewhat": "other", "The cat sat when?": "when",
    "谁赢了比赛？": "other", "请问what是": "what", "कौन जीता?": "other",
}  # fmt: skip


def test_a_question_asks_by_its_first_question_word():
    assert {question: question_word(question) for question in ASKED} == ASKED


def test_questions_are_scored_by_what_asks():
    asked = [("What is red?", "the apple", 1), ("What is big?", "the sea", 0), ("Who ate?", "Bo", 1), ("Go on", "x", 0)]
    context = "the apple, the sea, Bo and x"
    texts = tuple(Segments(question, context) for question, _, _ in asked)
    spans = np.array([(context.index(gold), context.index(gold) + len(gold)) for _, gold, _ in asked])
    said = np.array([(*span, 0) if right else (0, 9, 0) for span, (_, _, right) in zip(spans, asked, strict=True)])
    rows = Rows(np.arange(4)[:, None], np.zeros(4), Spans(spans, np.zeros(4, np.int64), np.arange(5)))
    corpus = Corpus(name="toy", texts=texts, splits={"train": rows, "test": rows}, kind="answers")
    table = breakdown_table(Predicted([said.astype(np.float32)]), corpus)
    found = values(table, "question word")
    assert found["what", "exact_match"] == 0.5
    assert (found["who", "f1"], found["other", "f1"]) == (1, 0)
    rows_of_what, rows_of_who = (table[table["group"] == word].iloc[0] for word in ("what", "who"))
    assert (rows_of_what["n"], rows_of_who["n"]) == (2, 1)
    assert pd.isna(rows_of_who["low"])  # of one question there is no interval
    assert table["group"].iloc[0] == "what"


def test_a_row_is_called_by_its_class_its_entities_or_its_question_word():
    corpus = of_tags(np.random.default_rng(3))
    rows = corpus.split("validation")
    for row, name in enumerate(row_labels(corpus, rows)):
        own = rows.spans.codes[slice(*rows.spans.offsets[row : row + 2])]
        types = sorted({corpus.labels[code][2:] for code in own} - {""})
        assert name == ("several types" if len(types) > 1 else types[0] if types else "no entity")
    asked = (Segments("In which year?", "1990"), Segments("How many?", "Two."))
    marks = Spans(np.array([[0, 4], [0, 3]]), np.zeros(2, np.int64), np.arange(3))
    questions = Rows(np.array([[1], [0]]), np.zeros(2), marks)
    assert row_labels(Corpus(name="toy", texts=asked, splits={}, kind="answers"), questions) == [
        "how many/how much",
        "which",
    ]
    classes = of_classes(("a", "b", "c"), 1)
    named = [LABELS[code] for code in classes.split("test").targets]
    assert row_labels(classes, classes.split("test")) == named


def test_scores_have_no_groups():
    rows = Rows(np.arange(4).reshape(2, 2), np.array([0.1, 0.9]))
    corpus = Corpus(
        name="toy",
        texts=("a", "b", "c", "d"),
        splits={"train": rows, "test": rows},
        labels=(),
        score_range=(0.0, 1.0),
        kind="score",
    )
    assert breakdown_table(Predicted([np.array([0.1, 0.8])]), corpus).empty
