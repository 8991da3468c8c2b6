"""Label sets: thresholds come from validation, labels without training rows are never predicted, a set may be empty."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import HELD_OUT, CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.probes.config.names import PROBABILITY
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.metrics.calibration import Thresholds
from permafrost.probes.tasks.registry import TASKS
from permafrost.probes.variants.combine_seeds import combine_seeds
from tests.support.marks import slow_but_first
from tests.support.synthetic import inputs, labelled
from tests.support.trainings import member_config, problem_of, scorer_of, train_all

TASK = TASKS["labels"]
NAMES = ("late", "broken", "lost", "untaught")
SPEC = CorpusSpec(label_separator="|")


@dataclass
class Space:
    """What a trained probe predicts."""

    labels: tuple[str, ...] = NAMES
    first_number: int | None = None
    score_range: None = None
    calibration: Thresholds | None = None


def drawn(
    seed: int = 0, splits=("train", "validation", "test"), rows: int = 40
) -> tuple[Corpus, dict[str, np.ndarray]]:
    """A corpus and logits of each split that tell the labels by and by; no training row has the last label."""
    rng = np.random.default_rng(seed)
    shares, targets, logits = np.array([0.5, 0.3, 0.2, 0.3]), {}, {}
    for number, split in enumerate(splits):
        sets = (rng.random((rows, 4)) < shares).astype(np.float64)
        sets[:2] = 0
        sets[:, 3] *= split != "train"
        targets[split] = Rows(np.arange(number * rows, (number + 1) * rows)[:, None], sets)
        logits[split] = (2 * sets - 2 + rng.normal(size=sets.shape)).astype(np.float32)
    assert targets["train"].targets.any(0).tolist() == [True, True, True, False]
    texts = tuple(f"text {index}" for index in range(rows * len(splits)))
    return Corpus(name="toy", texts=texts, splits=targets, labels=NAMES, kind="labels"), logits


def mean_f1(probabilities: np.ndarray, target: np.ndarray, thresholds: np.ndarray) -> float:
    columns = zip(target.T, probabilities.T, thresholds, strict=True)
    return float(np.mean([f1_score(true, column >= threshold, zero_division=0) for true, column, threshold in columns]))


@pytest.mark.parametrize("seed", slow_but_first(range(3)))
def test_thresholds_are_the_best_of_validation_and_no_other_split_has_a_say(seed):
    corpus, logits = drawn(seed)
    calibration = TASK.calibrate(logits["validation"], corpus, 9.0)
    assert calibration.values.shape == (4,)
    probabilities, target = expit(logits["validation"])[:, :3], corpus.split("validation").targets[:, :3]
    best = mean_f1(probabilities, target, calibration.values[:3])
    assert best > mean_f1(probabilities, target, np.full(3, 0.5))
    for threshold in np.linspace(0, 1, 50):
        for label in range(3):
            other = calibration.values[:3].copy()
            other[label] = threshold
            assert mean_f1(probabilities, target, other) <= best + 1e-12
    test = corpus.split("test")
    swapped = replace(corpus, splits=corpus.splits | {"test": replace(test, targets=1 - test.targets)})
    assert np.array_equal(TASK.calibrate(logits["validation"], swapped, 9.0).values, calibration.values)


def test_thresholds_are_chosen_on_the_held_out_part_of_training_if_there_is_one():
    corpus, logits = drawn(splits=("train", HELD_OUT, "validation"))
    assert corpus.selection_split == HELD_OUT
    calibration = TASK.calibrate(logits[HELD_OUT], corpus, 9.0)
    rows = corpus.split("validation")
    other = replace(corpus, splits=corpus.splits | {"validation": replace(rows, targets=1 - rows.targets)})
    assert np.array_equal(TASK.calibrate(logits[HELD_OUT], other, 9.0).values, calibration.values)


def test_one_and_the_same_thresholds_decide_on_test_and_on_new_texts():
    corpus, logits = drawn()
    calibration = TASK.calibrate(logits["validation"], corpus, 9.0)
    chosen = expit(logits["test"]) >= calibration.values
    assert (chosen != (logits["test"] >= 0)).any()  # other labels than one half would give
    scorer = scorer_of(corpus, "test")
    assert np.array_equal(scorer.decode(logits["test"], calibration) >= 0, chosen)
    columns = TASK.prediction_columns(logits["test"], scorer, calibration)
    texts = [(corpus.texts[index],) for index in corpus.split("test").texts[:, 0]]

    def predict(distinct, rows):
        return np.array([logits["test"][int(distinct[index].split()[1]) - 80] for index in rows.texts[:, 0]])

    answers = TASK.answers(Space(calibration=calibration), texts, predict)
    for row, answer in enumerate(answers):
        assert answer["labels"] == [name for name, is_chosen in zip(NAMES, chosen[row], strict=True) if is_chosen]
        assert columns["labels"][row] == ", ".join(answer["labels"])
        for label, name in enumerate(NAMES):
            assert answer["probabilities"][name] == pytest.approx(expit(logits["test"][row, label]), rel=1e-5)
            assert columns[PROBABILITY + name][row] == pytest.approx(answer["probabilities"][name])


def test_a_label_that_no_training_row_has_is_never_predicted():
    corpus, logits = drawn()
    assert corpus.split("validation").targets[:, 3].any()
    for output in (logits["validation"], np.full_like(logits["validation"], 90.0)):
        calibration = TASK.calibrate(output, corpus, 9.0)
        decoded = scorer_of(corpus, "test").decode(np.full((40, 4), 90.0, np.float32), calibration)
        assert (decoded[:, 3] < 0).all()
        assert (decoded[:, :3] >= 0).all()
        sure = TASK.answers(Space(calibration=calibration), [("a",)], lambda *_: np.full((1, 4), 90.0, np.float32))
        assert sure[0]["labels"] == ["late", "broken", "lost"]


def test_an_empty_set_is_a_target_and_a_prediction_like_any_other():
    corpus, _ = drawn()
    scorer, silent = scorer_of(corpus, "test"), np.full((40, 4), -9.0, np.float32)
    decoded = scorer.decode(silent)
    assert (decoded < 0).all()
    empty = ~corpus.split("test").targets.any(1)
    assert empty.sum() >= 2
    assert scorer.value("subset_accuracy", decoded) == pytest.approx(empty.mean())
    assert scorer.value("micro_f1", decoded) == scorer.value("macro_f1", decoded) == 0
    columns = TASK.prediction_columns(silent, scorer, None)
    assert set(columns["labels"]) == {""}
    assert [target == "" for target in columns["target"]] == empty.tolist()
    (answer,) = TASK.answers(Space(), [("a",)], lambda *_: silent[:1])
    assert answer["labels"] == []
    assert TASK.parse_target(Space(), "", "labels", SPEC) == ""
    assert TASK.row_labels(corpus, corpus.split("test"))[0] == ""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_metrics_of_decoded_margins_are_those_of_scikit_learn(split, seed):
    corpus, logits = drawn(seed)
    scorer, target = scorer_of(corpus, split), corpus.split(split).targets
    margins = scorer.decode(logits[split], TASK.calibrate(logits["validation"], corpus, 9.0))
    average = np.mean([average_precision_score(*pair) for pair in zip(target.T, margins.T, strict=True)])
    assert scorer.value("mean_average_precision", margins) == pytest.approx(average)
    uncalibrated = scorer.value("mean_average_precision", scorer.decode(logits[split]))
    assert uncalibrated == pytest.approx(average)  # a threshold moves all rows of its label alike
    predicted = margins >= 0
    assert scorer.value("micro_f1", margins) == pytest.approx(f1_score(target, predicted, average="micro"))
    assert scorer.value("subset_accuracy", margins) == pytest.approx(accuracy_score(target, predicted))


def test_a_target_names_known_labels_joined_by_the_separator_of_the_corpus():
    assert TASK.parse_target(Space(), "lost | late", "labels", SPEC) == "lost, late"
    assert TASK.parse_target(Space(), '["late"]', "labels", SPEC) == "late"
    assert TASK.parse_target(Space(first_number=0), "0|2", "labels", SPEC) == "late, lost"
    with pytest.raises(CorpusError, match=r"unknown label 'lots' in column 'labels'\. Did you mean 'lost'"):
        TASK.parse_target(Space(), "late|lots", "labels", SPEC)


def test_a_stored_probe_is_complete_with_a_threshold_for_every_label():
    assert TASK.is_complete(Space(calibration=Thresholds(np.full(4, 0.5, np.float32))))
    assert not TASK.is_complete(Space(calibration=Thresholds(np.full(3, 0.5, np.float32))))
    assert not TASK.is_complete(Space())


@pytest.mark.parametrize("average", [False, True])
def test_trained_seeds_are_calibrated_each_or_together(average):
    found = inputs(texts=200)
    corpus = labelled(found)
    train = TrainSpec(epochs=5, batch_rows=8, learning_rate=0.02, seeds=(0, 1), average=average)
    recipe = Recipe(probe=ProbeSpec(encoder="none"), train=train)
    trained = combine_seeds(train_all([member_config(recipe, found, corpus, seed) for seed in (0, 1)]))
    outputs = trained.outputs("validation")
    assert len(trained.calibrations) == len(outputs) == (1 if average else 2)
    for output, calibration, decoded in zip(outputs, trained.calibrations, trained.decoded("validation"), strict=True):
        assert np.array_equal(calibration.values, TASK.calibrate(output, corpus, 9.0).values)
        assert np.array_equal(decoded, problem_of(corpus).scorer("validation").decode(output, calibration))
        assert not (decoded[:, 2] >= 0).any()  # no training row has the last label
    probe = trained.fitted_probe()
    assert TASK.is_complete(probe)
    assert probe.calibration is trained.calibrations[0 if average else trained.best_index]
