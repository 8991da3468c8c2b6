"""What a finished run answers: scores, labels, and the same ones however it is asked."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from permafrost import api
from permafrost.data.digests import DamageError
from permafrost.data.errors import PermafrostError
from permafrost.probes.config.names import PROBE
from permafrost.probes.results.outcomes import RunResult
from tests.support.bench import Bench, pairs, write
from tests.support.damage import resealed
from tests.support.marks import slow_but_first


@pytest.fixture(scope="module")
def finished_classes(tmp_path_factory, tiny):
    bench = Bench(tmp_path_factory.mktemp("classes"), tiny("gpt2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        return bench, api.run("classify", bench.of_topics(), bench.runs)


def test_predicted_scores_are_symmetric_within_the_unit_and_exactly_one_for_identical_texts(finished):
    _, done = finished
    predictor = api.load(done.path)
    rows = [(row[0], row[1]) for row in pairs(seed=5)]
    forth = predictor.predict(rows)
    back = predictor.predict([(second, first) for first, second in rows])
    scores = [answer["score"] for answer in forth]
    assert [answer["score"] for answer in back] == scores
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 40
    assert [one["score"] for one in predictor.predict([(text, text) for text, _ in rows])] == [1.0] * len(rows)
    assert predictor.predict([]) == []


MEAN = ["train.seeds=0,1", "train.average=true"]
LOUD = ["plans.loud.template={text} !", "plan.layers=1..-1"]
WIDE = "plans.wide.backbone={wide}"
SCORED = {
    "one seed": [],
    "the best of two seeds": ["train.seeds=0,1"],
    "the mean of two seeds": MEAN,
    "two plans": [*LOUD, "probe.inputs=mean,loud/mean:-1"],
    "one plan between layers of another": [*LOUD, "probe.inputs=mean:2..3,loud/mean:-1,mean:1"],
    "another plan alone": [*LOUD, "probe.inputs=loud/mean"],
    "two plans, the mean of two seeds": [*LOUD, "probe.inputs=loud/mean,mean:-1", *MEAN],
    "a wider backbone": [WIDE, "probe.inputs=mean:-1,wide/mean:1..2"],
    "one embedding of backbones": [WIDE, "probe.inputs=mean:-1,wide/mean", "probe.mixer=unified"],
    "attention": ["probe.mixer=attention"],
    "pretrained": ["{other}"],
}
CLASSED = {
    "one seed": [],
    "the mean of two seeds": MEAN,
    "two plans": [*LOUD, "probe.inputs=loud/mean:-1,mean"],
    "one text": [],
}


def ran(bench: Bench, tiny, settings: list[str]) -> RunResult:
    """A run of one variant with an encoder, and its settings."""
    filled = [setting.replace("{wide}", str(tiny("gpt2", 48))) for setting in settings if setting != "{other}"]
    filled += bench.of_other_texts() if "{other}" in settings else []
    recipe = bench.folder / "own.toml"
    recipe.write_text('[probe]\ncode = 0.5\nencoder = "mlp"\n[train]\nlearning_rate = 0.01\n')
    return api.run(str(recipe), filled, bench.runs)


def of_the_best_seed(done: RunResult) -> pd.DataFrame:
    """The predictions of the seed whose weights are kept, or of all together."""
    table = pd.read_csv(done.path / "predictions.csv")
    metric = "accuracy" if "label" in table else "spearman"
    by_seed = {
        row["seed"]: row["value"] for row in done.metrics
        if row["metric"] == metric and row["split"] == "validation" and row["seed"] is not None
    }  # fmt: skip
    return table[table["seed"].isna() | (table["seed"] == max(by_seed, key=by_seed.get))]


@pytest.mark.parametrize("case", slow_but_first(SCORED))
def test_a_loaded_run_scores_its_test_rows_as_the_run_did(case, tmp_path, tiny, quick, trained_only):
    bench = Bench(tmp_path, tiny("bert"))
    done = ran(bench, tiny, bench.of_pairs("corpus.target=score", *SCORED[case]))
    table = of_the_best_seed(done)
    predictor = api.load(done.path)
    averaged = MEAN[-1] in SCORED[case]
    assert len(predictor.tasks[PROBE].probe.layout.members) == 1 + averaged
    assert table["seed"].isna().all() == averaged
    pairs_of = list(zip(table["sentence1"], table["sentence2"], strict=True))
    said = [answer["score"] for answer in predictor.predict(pairs_of)]
    np.testing.assert_allclose(said, table["score"], atol=1e-3)  # latents in float16, other texts in the batch
    assert len({round(score, 2) for score in said}) > 4
    backwards = predictor.predict(pairs_of[::-1])[::-1]
    np.testing.assert_allclose([answer["score"] for answer in backwards], said, atol=1e-3)


@pytest.mark.parametrize("case", slow_but_first(CLASSED))
def test_a_loaded_run_classifies_its_test_rows_as_the_run_did(case, tmp_path, tiny, quick):
    bench, sides = Bench(tmp_path, tiny("bert")), 1 if case == "one text" else 2
    done = ran(bench, tiny, bench.of_topics("corpus.target=class", *CLASSED[case], sides=sides))
    table = of_the_best_seed(done)
    texts = [table[name] for name in ("sentence1", "sentence2")[:sides]] if sides == 2 else [table["sentence"]]
    answers = api.load(done.path).predict(list(zip(*texts, strict=True)))
    for label in ("same", "other"):
        said = [answer["probabilities"][label] for answer in answers]
        np.testing.assert_allclose(said, table[f"probability_{label}"], atol=1e-3)
    assert [answer["label"] for answer in answers] == [
        max(("same", "other"), key=lambda label, row=row: row[f"probability_{label}"]) for _, row in table.iterrows()
    ]


@pytest.mark.parametrize("kind", ["score", "class"])
def test_neither_order_nor_repeats_nor_company_change_an_answer(kind, finished, finished_classes, monkeypatch):
    predictor = api.load({"score": finished, "class": finished_classes}[kind][1].path)
    items = [row[: 2 if kind == "score" else 1] for row in pairs(seed=6)]
    said = predictor.predict(items)
    assert predictor.predict(items[::-1] + items)[len(items) :] == said
    monkeypatch.setattr("permafrost.probes.prediction.predictor.SLICE_TEXTS", 1)
    for one, other in zip(predictor.predict(items), said, strict=True):
        assert [*flat(one)] == pytest.approx([*flat(other)], abs=1e-3)  # latents in float16


def flat(answer):
    """The numbers of an answer."""
    return answer["probabilities"].values() if "probabilities" in answer else answer.values()


def test_single_texts_are_scored_too(tmp_path, tiny, quick):
    bench = Bench(tmp_path, tiny("bert"))
    rows = [(row[0], 5 * row[2], row[3]) for row in pairs()]
    path = write(tmp_path / "scored.csv", ["text", "stars", "split"], rows)
    settings = [f"corpus.path={path}", "corpus.columns=text,stars", "corpus.target=score", "corpus.score_range=0,5"]
    done = ran(bench, tiny, bench.settings(*settings))
    table = pd.read_csv(done.path / "predictions.csv")
    said = [answer["score"] for answer in api.load(done.path).predict(table["sentence"].tolist())]
    np.testing.assert_allclose(said, table["score"], atol=5e-3)
    assert all(0 <= score <= 5 for score in said)


def test_the_command_line_answers_as_the_run_did(finished):
    bench, done = finished
    table = of_the_best_seed(done)
    write(bench.folder / "asked.csv", ["sentence1", "sentence2"], table[["sentence1", "sentence2"]].to_numpy().tolist())
    code, out, _ = bench.command("predict", str(done.path), "--file", f"{bench.folder}/asked.csv", "--json")
    assert code == 0
    said = [answer["score"] for answer in json.loads(out)["predictions"]]
    np.testing.assert_allclose(said, table["score"], atol=1e-3)


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


DAMAGES = {
    "record": (None, "cannot be read \\(KeyError"),
    "about": ([], r"is of another version of permafrost \(format unknown"),
    "format": ({"format": 1}, r"is of another version of permafrost \(format 1, this reads \d\)"),
    "no format": ({"format": None}, r"is of another version of permafrost \(format None, this"),
    "no description": ({}, r"is of another version of permafrost \(format unknown, this"),
    "no kind": ({"kind": None}, "a probe for None is unknown"),
    "variant": ({"variant": "none"}, "of the variant 'none', which its recipe does not have"),
    "layers": ({"columns": [["", "mean", 0]]}, "does not have the"),
    "members": ({"members": 2}, "does not have the"),
    "widths": ({"widths": [16] * 4}, "does not have the weights"),
    "a width that would fill memory": ({"widths": [10**7] * 4}, "does not have the weights"),
    "sides": ({"sides": 1}, "does not have the weights|does not fit its weights"),
    "unit": ({"score_range": [1]}, "must be two numbers that rise"),
    "a unit that is no number": ({"score_range": [0, float("nan")]}, "must be two numbers that rise"),
    "a unit of words": ({"score_range": ["0", "1"]}, "must be two numbers that rise"),
    "a unit that falls": ({"score_range": [5, 1]}, "must be two numbers that rise"),
    "view": ({"columns": [["", "mena", layer] for layer in range(4)]}, "is not what its description says"),
    "plan": ({"columns": [["loud", "mean", layer] for layer in range(4)]}, "is not what its description says"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_folder_that_was_tampered_with_is_refused(damage, finished, tmp_path):
    changes, message = DAMAGES[damage]
    folder = shutil.copytree(finished[1].path, tmp_path / "run")
    if changes is None:
        resealed(folder, {})
    else:
        with safe_open(folder / "probe.safetensors", "pt") as file:
            about = json.loads(file.metadata()["about"])
        changed = about | changes if changes else changes
        save_file(load_file(folder / "probe.safetensors"), folder / "probe.safetensors", {"about": json.dumps(changed)})
        with pytest.raises(DamageError, match=r"probe\.safetensors is not as the run wrote it"):
            api.load(folder)
        resealed(folder)
    with pytest.raises(PermafrostError, match=message):
        api.load(folder)
