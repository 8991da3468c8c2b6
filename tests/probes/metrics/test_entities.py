"""Entities: the tags that are predicted can follow each other, and what is counted is what seqeval counts."""

import itertools

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.ragged import offsets_from_lengths
from permafrost.probes.metrics.entities import decode_tags, entity_counts, entity_types
from tests.support.synthetic import TAGS, drawn_tags
from tests.support.trainings import scorer_of


def allowed(tags: tuple[int, ...], labels=TAGS) -> bool:
    """Whether every I-X comes after B-X or I-X."""
    names = ["O", *(labels[tag] for tag in tags)]
    return all(
        not after.startswith("I-") or before in (f"B-{after[2:]}", after) for before, after in itertools.pairwise(names)
    )


def likelihood(logits: np.ndarray, tags: tuple[int, ...]) -> float:
    return sum(row[tag] - np.log(np.exp(row).sum()) for row, tag in zip(logits, tags, strict=True))


def best_sequence(logits: np.ndarray, labels=TAGS) -> tuple[int, ...]:
    """The likeliest of all sequences of tags."""
    every = itertools.product(range(len(labels)), repeat=len(logits))
    return max((tags for tags in every if allowed(tags, labels)), key=lambda tags: likelihood(logits, tags))


@pytest.mark.parametrize(
    "labels", [TAGS, ("O", "B-X", "I-X"), ("I-X", "O", "I-Y", "B-X"), ("O", "B-X-Y", "I-X-Y", "I-Y")]
)
@pytest.mark.parametrize("seed", range(5))
def test_the_tags_are_the_likeliest_of_all_sequences_that_can_be(seed, labels):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, 6)
    logits = 2 * rng.normal(size=(lengths.sum(), len(labels)))
    said = decode_tags(logits, offsets_from_lengths(lengths), labels)
    for low, high in itertools.pairwise(offsets_from_lengths(lengths)):
        assert tuple(said[low:high]) == best_sequence(logits[low:high], labels)


def test_no_tag_inside_an_entity_comes_after_anything_but_the_same_entity():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 200)
    logits = rng.normal(size=(lengths.sum(), len(TAGS)))
    logits[:, [2, 4]] += 2  # I-PER and I-LOC are likeliest by themselves
    said = decode_tags(logits, offsets_from_lengths(lengths), TAGS)
    assert all(allowed(tuple(said[low:high])) for low, high in itertools.pairwise(offsets_from_lengths(lengths)))
    assert not all(allowed(tuple(part.argmax(1))) for part in np.split(logits, offsets_from_lengths(lengths)[1:-1]))


def test_where_the_likeliest_tags_of_words_can_follow_each_other_they_are_taken():
    rng = np.random.default_rng(1)
    codes = [drawn_tags(rng, n) for n in (7, 1, 12)]
    flat = np.concatenate(codes)
    logits = rng.normal(size=(len(flat), len(TAGS)))
    logits[np.arange(len(flat)), flat] = logits.max(1) + 0.01
    assert decode_tags(logits, offsets_from_lengths(np.array([7, 1, 12])), TAGS).tolist() == flat.tolist()


def test_sentences_together_are_tagged_as_each_is_alone_and_an_empty_one_harms_none():
    rng = np.random.default_rng(2)
    lengths = np.array([3, 0, 11, 1, 0, 5, 5, 0])
    logits = rng.normal(size=(lengths.sum(), len(TAGS))).astype(np.float32)
    offsets = offsets_from_lengths(lengths)
    together = decode_tags(logits, offsets, TAGS)
    for low, high in itertools.pairwise(offsets):
        assert decode_tags(logits[low:high], np.array([0, high - low]), TAGS).tolist() == together[low:high].tolist()
    assert len(decode_tags(np.zeros((0, 5)), np.array([0, 0]), TAGS)) == 0


def test_a_tag_that_cannot_be_said_of_a_word_is_not_said_of_it():
    logits = np.full((3, len(TAGS)), -1e9, np.float32)  # words beyond the end of a cut text
    logits[:, 0] = 0
    logits[0] = [-3, 4, 0, 0, 0]
    assert decode_tags(logits, np.array([0, 3]), TAGS).tolist() == [1, 0, 0]


def sentences(seed: int, count: int = 25) -> tuple[Corpus, np.ndarray]:
    """Tagged sentences, and other valid tags that are often the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, count)
    true = [drawn_tags(rng, n) for n in lengths]
    said = [tags if rng.random() < 0.5 else drawn_tags(rng, len(tags)) for tags in true]
    marks = Spans(np.zeros((lengths.sum(), 2), np.int64), np.concatenate(true), offsets_from_lengths(lengths))
    rows = Rows(np.arange(count)[:, None], np.zeros(count, np.int64), marks)
    texts = tuple(map(str, range(count)))
    return Corpus(
        name="toy", texts=texts, splits={"train": rows, "test": rows}, labels=TAGS, kind="tags"
    ), np.concatenate(said)


def names(codes: np.ndarray, offsets: np.ndarray) -> list[list[str]]:
    return [[TAGS[code] for code in codes[low:high]] for low, high in itertools.pairwise(offsets)]


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_seqeval(seed):
    corpus, said = sentences(seed)
    scorer = scorer_of(corpus, "test")
    marks = scorer.rows.spans
    true, tags = names(marks.codes, marks.offsets), names(said, marks.offsets)
    references = {"precision": precision_score, "recall": recall_score, "f1": f1_score, "accuracy": accuracy_score}
    for metric, reference in references.items():
        assert scorer.value(metric, said) == pytest.approx(reference(true, tags)), metric
        measured = scorer.resampled(metric, [said]).estimate()
        assert measured.value == pytest.approx(reference(true, tags))
        assert measured.low < measured.value < measured.high
        assert measured.n == 25


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_of_each_type_are_those_of_seqeval(seed):
    corpus, said = sentences(seed)
    marks = corpus.split("test").spans
    report = classification_report(names(marks.codes, marks.offsets), names(said, marks.offsets), output_dict=True)
    counts = entity_counts(said, marks, TAGS).sum(0)
    assert entity_types(TAGS) == ["PER", "LOC"]
    for kind, (claimed, true, both) in zip(entity_types(TAGS), counts, strict=True):
        assert both / claimed == pytest.approx(report[kind]["precision"])
        assert both / true == pytest.approx(report[kind]["recall"])
        assert 2 * both / (claimed + true) == pytest.approx(report[kind]["f1-score"])
        assert true == report[kind]["support"]


def test_entities_are_counted_sentence_by_sentence_and_never_across_a_border():
    marks = Spans(np.zeros((4, 2), np.int64), np.array([1, 2, 1, 0]), np.array([0, 2, 2, 4]))
    counts = entity_counts(np.array([1, 0, 1, 0]), marks, TAGS)
    assert counts[:, 0].tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]  # said, true, both of PER; the second is empty
    assert counts[:, 1].tolist() == [[0, 0, 0]] * 3


def test_a_type_may_hold_a_hyphen_and_tags_may_name_none():
    assert entity_types(("O", "B-X-Y", "I-X-Y", "B-Z")) == ["X-Y", "Z"]
    marks = Spans(np.zeros((2, 2), np.int64), np.array([1, 2]), np.array([0, 2]))
    assert entity_counts(np.array([1, 2]), marks, ("O", "B-X-Y", "I-X-Y")).tolist() == [[[1, 1, 1]]]
    plain = Spans(np.zeros((2, 2), np.int64), np.array([0, 0]), np.array([0, 2]))
    assert entity_counts(np.array([0, 0]), plain, ("O",)).tolist() == [[[0, 0, 0]]]


def test_nothing_said_and_nothing_true_is_a_figure_of_nought():
    marks = Spans(np.zeros((3, 2), np.int64), np.zeros(3, np.int64), np.array([0, 1, 3]))
    rows = Rows(np.arange(2)[:, None], np.zeros(2, np.int64), marks)
    scorer = scorer_of(Corpus(name="toy", texts=("a", "b"), splits={"test": rows}, labels=TAGS, kind="tags"), "test")
    for metric in ("precision", "recall", "f1"):
        assert scorer.value(metric, np.zeros(3, np.int64)) == 0
        assert scorer.resampled(metric, [np.zeros(3, np.int64)]).value == 0
    assert scorer.value("accuracy", np.zeros(3, np.int64)) == 1
