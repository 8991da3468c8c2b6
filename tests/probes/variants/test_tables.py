"""Figures of groups are those of scikit-learn and seqeval, and groups are what their names say."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from seqeval.metrics import classification_report
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.text import Segments
from permafrost.probes.tasks.registry import TASKS
from permafrost.probes.variants.tables import BREAKDOWN_COLUMNS, breakdown_table
from tests.support.trainings import problem_of, scorer_of

ROWS = 60
LABELS = ("yes", "no", "maybe", "never said nor true")


def groups_of(corpus: Corpus, predicted: list[np.ndarray]) -> pd.DataFrame:
    """The table of a trained task of which no more than the predictions of its seeds is known, alike on every split."""

    def decoded(split: str) -> list[np.ndarray]:
        return [scorer_of(corpus, split).decode(one) for one in predicted]

    return breakdown_table(SimpleNamespace(variant="predicted", problem=problem_of(corpus), decoded=decoded))


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
    table = groups_of(corpus, list(said))
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
    found = values(groups_of(corpus, [np.eye(4)[np.zeros(ROWS, int)]]), "class")
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
    found = values(groups_of(corpus, said), "entity type", "validation")
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
    table = groups_of(corpus, said)
    assert set(table["split"]) == {"held-out", "validation"}
    assert table.groupby("group")["n"].first().to_dict() == {k: reports[0][k]["support"] for k in ("LOC", "PER")}


def test_patterns_are_scored_on_their_own_rows():
    texts = tuple(f"{'no' if n % 3 == 0 else 'a'} thing {n}" for n in range(ROWS))
    corpus = of_classes(texts, 1)
    target = corpus.split("test").targets
    said = np.random.default_rng(1).normal(size=(ROWS, 4)) + np.eye(4)[target]
    table = groups_of(corpus, [said])
    found, right = values(table, "pattern"), said.argmax(1) == target
    there = np.arange(ROWS) % 3 == 0
    assert found["negation", "accuracy"] == pytest.approx(accuracy_score(target[there], said.argmax(1)[there]))
    assert found["no negation", "accuracy"] == pytest.approx(right[~there].mean())
    assert found["negation", "share_of_mistakes"] == pytest.approx((~right & there).sum() / (~right).sum())
    assert found["negation", "share_of_rows"] == pytest.approx(1 / 3)
    n = table[(table["kind"] == "pattern") & (table["group"] == "negation")]["n"]
    assert set(n) == {20}


def test_questions_are_scored_by_what_asks():
    asked = [("What is red?", "the apple", 1), ("What is big?", "the sea", 0), ("Who ate?", "Bo", 1), ("Go on", "x", 0)]
    context = "the apple, the sea, Bo and x"
    texts = tuple(Segments(question, context) for question, _, _ in asked)
    spans = np.array([(context.index(gold), context.index(gold) + len(gold)) for _, gold, _ in asked])
    said = np.array([(*span, 0) if right else (0, 9, 0) for span, (_, _, right) in zip(spans, asked, strict=True)])
    rows = Rows(np.arange(4)[:, None], np.zeros(4), Spans(spans, np.zeros(4, np.int64), np.arange(5)))
    corpus = Corpus(name="toy", texts=texts, splits={"train": rows, "test": rows}, kind="answers")
    table = groups_of(corpus, [said.astype(np.float32)])
    found = values(table, "question word")
    assert found["what", "exact_match"] == 0.5
    assert (found["who", "f1"], found["other", "f1"]) == (1, 0)
    rows_of_what, rows_of_who = (table[table["group"] == word].iloc[0] for word in ("what", "who"))
    assert (rows_of_what["n"], rows_of_who["n"]) == (2, 1)
    assert pd.isna(rows_of_who["low"])  # of one question there is no interval
    assert table["group"].iloc[0] == "what"


def test_a_row_is_called_by_its_class_its_labels_its_entities_or_its_question_word():
    corpus = of_tags(np.random.default_rng(3))
    rows = corpus.split("validation")
    for row, name in enumerate(TASKS["tags"].row_labels(corpus, rows)):
        own = rows.spans.codes[slice(*rows.spans.offsets[row : row + 2])]
        types = sorted({corpus.labels[code][2:] for code in own} - {""})
        assert name == ("several types" if len(types) > 1 else types[0] if types else "no entity")
    asked = (Segments("In which year?", "1990"), Segments("How many?", "Two."))
    marks = Spans(np.array([[0, 4], [0, 3]]), np.zeros(2, np.int64), np.arange(3))
    questions = Rows(np.array([[1], [0]]), np.zeros(2), marks)
    corpus = Corpus(name="toy", texts=asked, splits={}, kind="answers")
    assert TASKS["answers"].row_labels(corpus, questions) == ["how many/how much", "which"]
    classes = of_classes(("a", "b", "c"), 1)
    named = [LABELS[code] for code in classes.split("test").targets]
    assert TASKS["class"].row_labels(classes, classes.split("test")) == named
    sets = replace(classes, kind="labels")
    chosen = Rows(np.arange(3)[:, None], np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.float64))
    assert TASKS["labels"].row_labels(sets, chosen) == ["yes, maybe", "", "no"]


def test_labels_are_scored_as_scikit_learn_scores_them():
    rng = np.random.default_rng(2)
    target = (rng.random((ROWS, 4)) < [0.5, 0.3, 0.2, 0]).astype(np.float64)
    rows = Rows(np.arange(ROWS)[:, None], target)
    texts, splits = tuple(map(str, range(ROWS))), dict.fromkeys(("train", "validation", "test"), rows)
    corpus = Corpus(name="toy", texts=texts, splits=splits, labels=LABELS, kind="labels")
    logits = [2 * target - 1 + rng.normal(size=target.shape) for _ in range(2)]
    for seed in logits:
        seed[:, 3] = -9
    table = groups_of(corpus, [seed.astype(np.float32) for seed in logits])
    assert set(table["kind"]) == {"label"}
    found = values(table, "label")
    reference = np.mean(
        [precision_recall_fscore_support(target, seed >= 0, zero_division=0)[:3] for seed in logits], axis=0
    )
    for row, metric in enumerate(("precision", "recall", "f1")):
        for label in range(3):
            assert found[LABELS[label], metric] == pytest.approx(reference[row, label])
    assert len(found) == 9  # a label neither predicted nor true has no row
    counts = table[(table["split"] == "test") & (table["metric"] == "f1")].set_index("group")["n"]
    assert [counts[label] for label in LABELS[:3]] == target.sum(0)[:3].tolist()


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
    assert groups_of(corpus, [np.array([0.1, 0.8])]).empty
