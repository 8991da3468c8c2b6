"""Data from elsewhere, as the corpus of a run: labels by name, number or map, splits, ranges of scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import SpecError
from permafrost.probes.evaluation.corpus import EvaluationData, other_corpus, own_corpus, select_split
from permafrost.probes.evaluation.labels import LabelSpace, check_label_map, check_label_map_used, parse_label_map
from permafrost.probes.metrics.metrics import pearson, spearman

CLASSES = ("negative", "neutral", "positive")


def run_of(kind="class", labels=CLASSES, first_number=None, score_range=None, texts=1):
    """What reading data for a run asks of it."""
    return SimpleNamespace(
        kind=kind, labels=labels, first_number=first_number, score_range=score_range, texts_per_row=texts, path="run"
    )


def read(tmp_path, text, run, label_map=(), split="", name="data.csv", **settings):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    spec = CorpusSpec(path=str(path), target=run.kind, **settings)
    space = LabelSpace.of(run.kind, run.labels, run.first_number, parse_label_map(label_map))
    return other_corpus(EvaluationData(name=name, spec=spec), run, space, split)


def targets(corpus, split="test"):
    return [corpus.labels[code] for code in corpus.splits[split].targets]


def test_classes_are_matched_by_name_in_the_order_of_the_run_and_others_are_left_out_and_counted(tmp_path):
    rows = [f"text {number},{label}" for number, label in enumerate(["positive", "Positive", "negative", "odd", "odd"])]
    corpus = read(tmp_path, "\n".join(["text,label", *rows]), run_of(), most_skipped=0.0)
    assert corpus.labels == CLASSES
    assert targets(corpus) == ["positive", "negative"]
    assert [(row.origin.rpartition(":")[2], row.reason) for row in corpus.skipped] == [
        ("3", "label 'Positive', which the run does not have"),
        ("5", "label 'odd', which the run does not have"),
        ("6", "label 'odd', which the run does not have"),
    ]
    assert any(note.startswith("2 of 5 rows (40.00%) are left out, label 'odd'") for note in corpus.notes)


def test_a_map_names_labels_of_the_run_and_leaves_labels_out(tmp_path):
    text = "text,label\na,pos\nb,neg\nc,mixed\nd,neutral\n"
    corpus = read(tmp_path, text, run_of(), ["pos=positive", "neg=negative", "mixed="])
    assert targets(corpus) == ["positive", "negative", "neutral"]
    assert [row.reason for row in corpus.skipped] == ["label 'mixed'"]


@pytest.mark.parametrize(("pairs", "unused"), [(["a=positive"], ""), (["a=positive", "x=neutral"], "the label 'x'")])
def test_labels_of_a_map_that_no_row_has_are_named_and_a_map_of_such_labels_alone_is_refused(pairs, unused):
    given = parse_label_map(pairs)
    space = LabelSpace.of("class", CLASSES, None, given)
    with pytest.raises(SpecError, match="no row that is evaluated has the label"):
        check_label_map_used(given, [space])
    space.match("a")
    assert unused in check_label_map_used(given, [space])
    assert bool(check_label_map_used(given, [space])) == bool(unused)


@pytest.mark.parametrize(("first", "expected"), [(0, ["negative", "positive"]), (1, ["neutral"])])
def test_numbers_are_read_as_the_run_reads_them(tmp_path, first, expected):
    corpus = read(tmp_path, "text,label\na,0\nb,2\n", run_of(first_number=first))
    assert targets(corpus) == expected


def test_numbers_with_names_of_their_own_are_matched_by_these(tmp_path):
    (tmp_path / "classes.txt").write_text("positive\nnegative\n", "utf-8")
    corpus = read(tmp_path, "text,label\na,0\nb,1\nc,1\n", run_of(first_number=0))
    assert targets(corpus) == ["positive", "negative", "negative"]


def test_labels_that_do_not_meet_are_told_from_both_sides(tmp_path):
    with pytest.raises(CorpusError, match=r"none of its labels \('no', 'yes'\).*\('negative', 'neutral', 'positive'\)"):
        read(tmp_path, "text,label\na,yes\nb,no\n", run_of())


def test_a_map_to_a_label_that_no_run_has_is_refused():
    given = parse_label_map(["a=positive", "b=postive"])
    with pytest.raises(SpecError, match=r"no run has the label 'postive'\. Did you mean 'positive'"):
        check_label_map(given, [LabelSpace.of("class", CLASSES, None, given)])
    for wrong in ("positive", "=positive"):
        with pytest.raises(SpecError, match="expected THEIRS=OURS"):
            parse_label_map([wrong])


def test_label_sets_keep_the_rows_whose_labels_the_run_has_and_lose_labels_that_the_map_leaves_out(tmp_path):
    run = run_of("labels", ("late", "refund"))
    text = 'text,labels\na,"late,refund"\nb,\nc,"late,urgent"\nd,"refund,odd"\n'
    corpus = read(tmp_path, text, run, ["urgent="])
    assert corpus.splits["test"].targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert len(corpus.skipped) == 1


def test_types_of_entities_are_matched_by_name_and_may_count_as_none(tmp_path):
    run = run_of("tags", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"))
    text = (
        "Ann B-person\nLee I-person\nsings O\n\nOslo B-LOC\n\nIt O\nis O\nUN B-ORG\n\nCup B-MISC\nfor O\nBo B-person\n"
    )
    corpus = read(tmp_path, text, run, ["person=PER", "MISC="], name="data.conll")
    spans = corpus.splits["test"].spans
    assert [corpus.labels[code] for code in spans.codes] == ["B-PER", "I-PER", "O", "B-LOC", "O", "O", "B-PER"]
    assert [row.reason for row in corpus.skipped] == ["label 'ORG', which the run does not have"]


def test_scores_are_mapped_to_the_range_of_the_run_which_changes_no_correlation(tmp_path):
    text = "first,second,score\n" + "".join(f"a{n},b{n},{1 + n}\n" for n in range(5))
    corpus = read(tmp_path, text, run_of("score", (), None, (0.0, 10.0), 2))
    assert corpus.score_range == (0.0, 10.0)
    np.testing.assert_allclose(corpus.splits["test"].targets, [0, 0.25, 0.5, 0.75, 1])
    predicted, own = np.array([0.1, 0.3, 0.2, 0.8, 0.9]), np.arange(1.0, 6.0)
    for metric in (pearson, spearman):
        assert metric(predicted, corpus.splits["test"].targets) == pytest.approx(metric(predicted, own))
    assert any("scores from 1 to 5 are mapped to 0 to 10" in note for note in corpus.notes)


def test_data_without_splits_are_whole_and_others_have_test_else_validation_or_what_is_asked_for(tmp_path):
    rows = [f"text {number},{CLASSES[number % 3]}" for number in range(40)]
    assert len(read(tmp_path, "\n".join(["text,label", *rows]), run_of()).splits["test"]) == 40
    words = ["train"] * 20 + ["dev"] * 12 + ["test"] * 8
    split_rows = [f"{row},{word}" for row, word in zip(rows, words, strict=True)]
    for number, (end, asked, split) in enumerate(
        [(40, "", "test"), (32, "", "validation"), (20, "", "train"), (40, "train", "train"), (40, "all", "all")]
    ):
        text = "\n".join(["text,label,split", *split_rows[:end]])
        corpus = read(tmp_path, text, run_of(), split=asked, name=f"{number}.csv")
        assert list(corpus.splits) == [split]
        assert len(corpus.splits[split]) == {"test": 8, "validation": 12, "train": 20, "all": 40}[split]
        assert len(corpus.texts) == len(corpus.splits[split])
    with pytest.raises(SpecError, match=r"--split train: data\.csv has no splits"):
        read(tmp_path, "\n".join(["text,label", *rows]), run_of(), split="train")


def test_another_number_of_texts_and_another_kind_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="has 1 text a row, and run reads 2"):
        read(tmp_path, "text,label\na,positive\n", run_of(texts=2), columns=("text", "label"))


def test_a_split_of_the_own_corpus_is_that_of_training_with_its_texts_alone(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{CLASSES[n % 3]}\n" for n in range(60)), "utf-8")
    corpus = load_corpus(CorpusSpec(path=str(path), target="class"))
    own = own_corpus(corpus, run_of(), "")
    texts = [corpus.texts[text] for text in corpus.splits["test"].texts[:, 0]]
    assert [own.texts[text] for text in own.splits["test"].texts[:, 0]] == texts
    assert len(own.texts) == len(texts) < 60
    assert len(select_split(corpus, "all").splits["all"]) == 60
    with pytest.raises(CorpusError, match="other labels than when run was trained"):
        own_corpus(corpus, run_of(labels=("a", "b")), "")
