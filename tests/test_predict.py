"""What a finished run answers: scores, labels, and the same ones however it is asked."""

import json

import numpy as np
import pandas as pd
import pytest
from bench import Bench, pairs, write

import pipeline
from data.errors import PermafrostError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A bench on which ``run pairs`` is done, with two seeds, and what it said."""
    bench = Bench(tmp_path_factory.mktemp("finished"), tiny("bert"))
    return bench, pipeline.run("pairs", bench.of_pairs("train.seeds=0,1"), bench.runs)


@pytest.fixture(scope="module")
def finished_classes(tmp_path_factory, tiny):
    bench = Bench(tmp_path_factory.mktemp("classes"), tiny("gpt2"))
    return bench, pipeline.run("classify", bench.of_topics(), bench.runs)


def test_predicted_scores_are_symmetric_within_the_unit_and_exactly_one_for_identical_texts(finished):
    _, done = finished
    predictor = pipeline.load(done.path)
    rows = [(row[0], row[1]) for row in pairs(seed=5)]
    forth = predictor.predict(rows)
    back = predictor.predict([(second, first) for first, second in rows])
    scores = [answer["score"] for answer in forth]
    assert [answer["score"] for answer in back] == scores
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 40
    assert [one["score"] for one in predictor.predict([(text, text) for text, _ in rows])] == [1.0] * len(rows)
    assert predictor.predict([]) == []


def test_predictions_on_the_test_rows_are_those_of_the_run(finished):
    bench, done = finished
    table = pd.read_csv(done.path / "predictions.csv")
    code, out, _ = bench.command("predict", str(done.path), "--file", str(done.path / "predictions.csv"), "--json")
    assert code == 0
    said = [answer["score"] for answer in json.loads(out)["predictions"]]
    best = min((0, 1), key=lambda seed: np.abs(table["score"][table["seed"] == seed] - said[:15]).max())
    kept = table["score"][table["seed"] == best]
    np.testing.assert_allclose(said[:15], kept, atol=1e-3)  # latents in float16, other texts in the batch


def test_predict_reads_texts_and_files_of_every_kind_alike(finished):
    bench, done = finished
    rows = [("a dog", "the dog"), ("a dog, old", "the stove .")]
    write(bench.folder / "asked.csv", ["first", "second"], rows)
    lines = [json.dumps({"premise": first, "hypothesis": second}) for first, second in rows]
    (bench.folder / "asked.jsonl").write_text("\n".join(lines), "utf-8")
    answers = [
        bench.command("predict", str(done.path), *words, "--json")
        for words in (
            rows[0] + rows[1],
            ("--file", f"{bench.folder}/asked.csv"),
            ("--file", f"{bench.folder}/asked.jsonl"),
        )
    ]
    assert answers[0][0] == 0
    assert len(json.loads(answers[0][1])["predictions"]) == 2
    assert answers[0] == answers[1] == answers[2]


def test_predict_prints_a_table_without_json(finished):
    bench, done = finished
    code, out, _ = bench.command("predict", str(done.path), "the dog", "the dog")
    assert code == 0
    assert out.split() == ["first", "second", "score", "the", "dog", "the", "dog", "1.0000"]


def test_a_run_of_classes_answers_with_a_label_and_probabilities(finished_classes):
    bench, done = finished_classes
    code, out, _ = bench.command("predict", str(done.path), "the dog runs", "an old stove", "--json")
    assert code == 0
    answers = json.loads(out)["predictions"]
    assert len(answers) == 2
    for answer in answers:
        assert set(answer) == {"label", "probabilities"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)


def test_the_reference_for_classes_is_the_majority(finished_classes):
    _, done = finished_classes
    said = {row["metric"]: row["value"] for row in done.metrics if row["variant"] == "raw" and row["split"] == "test"}
    gold = [row[2] > 0.4 for row in pairs() if row[3] == "test"]
    train = [row[2] > 0.4 for row in pairs() if row[3] == "train"]
    majority = np.mean(train) > 0.5
    assert said["accuracy"] == pytest.approx(np.mean([one == majority for one in gold]))
    assert list(pd.read_csv(done.path / "predictions.csv")) == [
        "sentence", "target", "label", "probability_other", "probability_same", "seed"
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["record", "about", "variant", "weights"])
def test_a_run_folder_that_was_tampered_with_is_refused(damage, finished, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(finished[1].path, tmp_path / "run")
    about = {
        "format": 1,
        "variant": "linear",
        "columns": [["mean", 0]],
        "sides": 2,
        "labels": [],
        "score_range": [0, 1],
    }
    if damage == "record":
        (folder / "record.json").write_text("{}")
    else:
        tensors = load_file(folder / "probe.safetensors")
        changed = {"about": [], "variant": about | {"variant": "none"}, "weights": about}[damage]
        save_file(tensors, folder / "probe.safetensors", {"about": json.dumps(changed)})
    with pytest.raises(PermafrostError, match=r"cannot be read|description"):
        pipeline.load(folder)
