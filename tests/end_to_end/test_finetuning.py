"""Runs whose blocks learnt: they train as the whole model would, and answer from the folder that they leave."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from seqeval.metrics.sequence_labeling import get_entities

from permafrost import api
from permafrost.data.digests import digests_of_files
from permafrost.probes.config.names import PROBE
from tests.support.bench import Bench, pairs
from tests.support.damage import resealed
from tests.support.marks import slow_but_first
from tests.support.models.families import FAMILIES

OWN = '[probe]\nlayers = [-1]\nencoder = "none"\nmixer = "last"\n[train]\nbatch_rows = 8\n'
EXACT = ["plan.stored_dtype=float32", "train.epochs=2", "train.learning_rate=0.01", "train.rates={backbone=0.002}"]
TOKENS = ["plan.views=tokens", "probe.center=false"]
WINDOWS = ["plan.max_tokens=48", "plan.truncation=windows", "plan.stride=8"]
KINDS = ("score", "class", "tags", "answers")
CUTS = ("1", "0", "none")


def settings_of(bench: Bench, kind: str, *more: str) -> list[str]:
    """Overrides for a small corpus of a kind of target; later ones win."""
    if kind == "score":
        return bench.of_pairs("corpus.target=score", *EXACT, *more)
    if kind == "class":
        return bench.of_topics("corpus.target=class", *EXACT, *more)
    if kind == "tags":
        tagged = [
            "corpus.target=tags",
            f"corpus.path={tagged_file(bench.folder / 'own.conll')}",
            "train.learning_rate=0.05",
        ]
        tagged += ["train.epochs=10", "train.patience=10", "train.rates={backbone=0.0005}", "finetune.dropout=0"]
        return bench.settings(*TOKENS, *EXACT, *tagged, *more)
    few = ["corpus.name=samples-questions", "corpus.limits={train=16,validation=6,test=6}"]
    return bench.settings(*few, *TOKENS, *WINDOWS, *EXACT, *more)


def tagged_file(path: Path) -> Path:
    """Sentences in which a capitalised word is a person."""
    lines = []
    for place, (first, second, _, split) in enumerate(pairs()):
        names = [(first if place % 2 else second).split()[0].title(), second.split()[-1].title()]
        words = [*first.split(), names[0], *second.split()[:2], names[1]]
        lines += [f"# split = {split}", *(f"{word} {'B-PER' if word in names else 'O'}" for word in words), ""]
    path.write_text("\n".join(lines), "utf-8")
    return path


def ran(bench: Bench, kind: str, *more: str) -> Path:
    recipe = bench.folder / "own.toml"
    recipe.write_text(OWN, "utf-8")
    return api.run(str(recipe), settings_of(bench, kind, *more), bench.runs).path


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, tiny):
    """Cut, kind of target and family -> the folder of a run, made once."""
    made = {}

    def folder(cut: str, kind: str, family: str = "bert") -> Path:
        if (cut, kind, family) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
                patch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
                bench = Bench(tmp_path_factory.mktemp(f"{family}-{cut}-{kind}"), tiny(family))
                made[cut, kind, family] = ran(bench, kind, f"finetune.cut={cut}")
        return made[cut, kind, family]

    return folder


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", keep_default_na=False)


@pytest.mark.parametrize("cut", slow_but_first(CUTS))
def test_new_texts_are_scored_and_classed_as_the_run_did(cut, run_of):
    table = table_of(run_of(cut, "score"))
    said = api.load(run_of(cut, "score")).predict(list(zip(table["sentence1"], table["sentence2"], strict=True)))
    np.testing.assert_allclose([one["score"] for one in said], table["score"], atol=1e-4)
    assert table["score"].nunique() > 3
    table = table_of(run_of(cut, "class"))
    said = api.load(run_of(cut, "class")).predict(table["sentence"].tolist())
    assert [one["label"] for one in said] == table["label"].tolist()
    shares = [one["probabilities"]["same"] for one in said]
    np.testing.assert_allclose(shares, table["probability_same"], atol=1e-4)
    assert np.ptp(shares) > 0.001


def test_several_layers_and_the_final_norm_of_a_causal_backbone_are_read_as_in_the_run(tmp_path, tiny, quick):
    more = ["plan.views=last", "plan.final_norm=true", "probe.layers=all", "probe.mixer=concat", "train.seeds=0,1"]
    folder = ran(Bench(tmp_path, tiny("gpt2")), "class", "finetune.cut=1", *more)
    predictor, table = api.load(folder), table_of(folder)
    assert [column.layer for column in predictor.tasks[PROBE].columns] == [2, 3]
    said = [one["probabilities"]["same"] for one in predictor.predict(table["sentence"][table["seed"] == 0].tolist())]
    apart = [np.abs(said - table["probability_same"][table["seed"] == seed].to_numpy()).max() for seed in (0, 1)]
    assert min(apart) < 1e-4  # of two seeds the better one answers
    assert max(apart) > 1e-3


def test_layers_beside_the_blocks_are_read_as_in_the_run(tmp_path, tiny, quick):
    more = [
        "plan.views=mean",
        "finetune.cut=2",
        "finetune.frozen_layers=0..1",
        "probe.layers=all",
        "probe.mixer=concat",
    ]
    folder = ran(Bench(tmp_path, tiny("bert")), "class", *more)
    predictor, table = api.load(folder), table_of(folder)
    assert [column.layer for column in predictor.tasks[PROBE].columns] == [0, 1, 3]
    said = [one["probabilities"]["same"] for one in predictor.predict(table["sentence"].tolist())]
    np.testing.assert_allclose(said, table["probability_same"], atol=1e-4)


@pytest.mark.parametrize("cut", slow_but_first(CUTS))
def test_new_texts_are_tagged_as_the_run_did(cut, run_of):
    table = table_of(run_of(cut, "tags"))
    sentences = [rows for _, rows in table.groupby("sentence")]
    expected = []
    for rows in sentences:
        starts = np.cumsum([0, *(len(word) + 1 for word in rows["word"])])
        found = get_entities(rows["label"].tolist())
        expected.append([(label, starts[first], starts[last + 1] - 1) for label, first, last in found])
    said = api.load(run_of(cut, "tags")).predict([" ".join(rows["word"]) for rows in sentences])
    assert [[(one["label"], one["start"], one["end"]) for one in answer["entities"]] for answer in said] == expected
    assert sum(map(len, expected)) > 3


@pytest.mark.parametrize("cut", slow_but_first(CUTS))
def test_new_questions_are_answered_as_the_run_did_through_windows(cut, run_of):
    table = table_of(run_of(cut, "answers"))
    items = list(zip(table["question"], table["context"], strict=True))
    said = pd.DataFrame([one["answer"] for one in api.load(run_of(cut, "answers")).predict(items)])
    assert said["text"].tolist() == table["answer"].tolist()
    assert said[["start", "end"]].to_numpy().tolist() == table[["start", "end"]].to_numpy().tolist()
    np.testing.assert_allclose(said["score"], table["score"], atol=1e-4)


@pytest.mark.parametrize("cut", slow_but_first(CUTS))
@pytest.mark.parametrize("family", slow_but_first(["bert", "gpt2"]))
def test_the_saved_model_is_the_backbone_with_other_upper_blocks_alone(family, cut, run_of, tiny):
    from transformers import AutoModel

    before = AutoModel.from_pretrained(tiny(family)).state_dict()
    after = AutoModel.from_pretrained(run_of(cut, "class", family) / "backbone").state_dict()
    frozen, known = 0 if cut == "none" else int(cut), FAMILIES[family]
    names = [name for name in after if "pooler" not in name and not name.startswith(("ln_f", "pooler"))]
    blocks = {
        name: int(name.split(".")[known.blocks.count(".") + 1]) for name in names if name.startswith(known.blocks)
    }
    assert set(blocks.values()) == {0, 1, 2}
    for name in names:
        learns = blocks[name] >= frozen if name in blocks else cut == "none"
        if not learns:
            assert torch.equal(after[name], before[name]), name
        elif after[name].dim() > 1 and "token_type" not in name:
            assert not torch.equal(after[name], before[name]), name


def test_a_run_that_was_moved_answers_without_the_backbone_it_began_with(tmp_path, tiny, quick):
    (tmp_path / "here").mkdir()
    bench = Bench(tmp_path / "here", Path(shutil.copytree(tiny("bert"), tmp_path / "backbone")))
    folder = ran(bench, "class", "finetune.cut=1")
    texts = table_of(folder)["sentence"].tolist()
    said = api.load(folder).predict(texts)
    moved = Path(shutil.move(folder, tmp_path / "elsewhere" / "a run"))
    shutil.rmtree(tmp_path / "here")
    shutil.rmtree(tmp_path / "backbone")
    assert api.load(moved).predict(texts) == said


def with_digests(folder: Path) -> None:
    """Have the run say that the files of its blocks are as they are now."""
    with safe_open(folder / "probe.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    about["backbone"] = digests_of_files(folder / "backbone", (path.name for path in (folder / "backbone").iterdir()))
    save_file(load_file(folder / "probe.safetensors"), folder / "probe.safetensors", {"about": json.dumps(about)})
    resealed(folder)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path, **more: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | more), "utf-8")


def linked(path: Path) -> None:
    other = path.with_name(f"other-{path.name}")
    path.rename(other)
    path.symlink_to(other)


DAMAGES = {
    "no folder": (shutil.rmtree, "the folder 'backbone' that has them is not there"),
    "a file for a folder": (
        lambda path: (shutil.rmtree(path), path.write_text("")), "the folder 'backbone' that has them is not there"
    ),
    "a linked folder": (linked, "the folder 'backbone' that has them is a link"),
    "a linked file": (lambda path: linked(path / "model.safetensors"), r"backbone/model\.safetensors is a link"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), r"backbone/model\.safetensors is not there"),
    "weights cut short": (
        lambda path: cut_short(path / "model.safetensors"), r"backbone/model\.safetensors is not as the run wrote it"
    ),
    "no configuration": (lambda path: (path / "config.json").unlink(), r"backbone/config\.json is not there"),
    "another configuration": (
        lambda path: changed(path / "config.json", num_hidden_layers=2), r"config\.json is not as the run wrote it"
    ),
    "a file of somebody's": (
        lambda path: (path / "own.py").write_text("1"), r"backbone/'own\.py' was not written by the run"
    ),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), r"backbone/tokenizer\.json is not there"),
}  # fmt: skip
SIGNED = {
    "weights cut short": (lambda path: cut_short(path / "model.safetensors"), "cannot be loaded"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "holds no weights"),
    "an unknown kind": (lambda path: changed(path / "config.json", model_type="word2vec"), "of the kind 'word2vec'"),
    "more blocks than weights": (lambda path: changed(path / "config.json", num_hidden_layers=5), "lacks 32 weights"),
    "other sizes": (lambda path: changed(path / "config.json", intermediate_size=48), "cannot be loaded"),
    "no files": (
        lambda path: [file.unlink() for file in path.iterdir()],
        "does not name its fine-tuned blocks",
    ),
}


@pytest.mark.parametrize(("damages", "damage"), [(some, name) for some in (DAMAGES, SIGNED) for name in some])
def test_a_damaged_folder_of_blocks_is_one_clear_line(damages, damage, run_of, bench, tmp_path):
    folder = Path(shutil.copytree(run_of("1", "class"), tmp_path / "run"))
    damages[damage][0](folder / "backbone")
    if damages is SIGNED:
        with_digests(folder)
    code, out, err = bench.command("predict", str(folder), "the dog runs")
    assert (code, out, err.count("\n")) == (2 if damages is SIGNED else 3, "", 1)
    assert pd.Series([err]).str.contains(damages[damage][1]).all(), err
    assert str(folder) in err


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_among_the_blocks_are_never_read(run_of, bench, tmp_path):
    folder = Path(shutil.copytree(run_of("1", "class"), tmp_path / "run"))
    sprung = tmp_path / "sprung"
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / "backbone" / name).write_bytes(pickle.dumps(Planted(sprung)))
    words = ("predict", str(folder), "the dog runs", "--json")
    code, out, err = bench.command(*words)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "was not written by the run" in err
    with_digests(folder)
    assert bench.command(*words) == bench.command("predict", str(run_of("1", "class")), *words[2:])
    (folder / "backbone" / "model.safetensors").unlink()
    with_digests(folder)
    code, _, err = bench.command(*words)
    assert code == 2
    assert "holds pickled weights only" in err
    assert not sprung.exists()
    pickle.loads((folder / "backbone" / "model.pt").read_bytes())
    assert sprung.exists()  # it would have been seen


LOWER = {"bert": ["embeddings", "encoder.layer.0", "encoder.layer.1"], "gpt2": ["wte", "wpe", "h.0", "h.1"]}
"""What lies below the highest cut, ascending."""


@pytest.mark.parametrize(
    ("family", "cut", "kind"),
    slow_but_first([("gpt2", "1", "class"), ("bert", "1", "class"), ("bert", "0", "tags"), ("gpt2", "2", "score")]),
)
def test_blocks_above_a_cut_learn_what_the_whole_model_with_the_others_frozen_learns(
    family, cut, kind, tmp_path, tiny, quick
):
    bench = Bench(tmp_path, tiny(family))
    still = ["finetune.dropout=0", "probe.dropout=0", "train.epochs=3", "train.rates={backbone=0.002}"]
    still += [f"plan.final_norm={str(family == 'gpt2').lower()}"]
    below = LOWER[family][: len(FAMILIES[family].embeddings[:2]) + int(cut)]
    names = ", ".join(f'"backbone.blocks.model.{part}" = 0' for part in below)
    cached = ran(bench, kind, f"finetune.cut={cut}", *still)
    whole = ran(bench, kind, "finetune.cut=none", f"train.freeze={{{names}}}", *still)
    free = ran(bench, kind, "finetune.cut=none", *still)
    assert apart(cached, whole) < 1e-4
    assert apart(cached, free) > 1e-3
    assert pd.read_csv(cached / "training.csv")["loss"].nunique() == 3
    saved, before = (load_file(folder / "model.safetensors") for folder in (whole / "backbone", tiny(family)))
    lower = [name for name in saved if name.startswith(tuple(f"{part}." for part in below))]
    assert lower
    assert all(torch.equal(saved[name], before[name]) for name in lower)


def apart(one: Path, other: Path) -> float:
    """How far two runs are apart in losses, figures and what they say."""
    found = 0.0
    for name in ("training", "epochs", "predictions", "metrics"):
        tables = [pd.read_csv(folder / f"{name}.csv") for folder in (one, other)]
        assert len(tables[0]) == len(tables[1])
        numbers = [table.select_dtypes("number").fillna(0).to_numpy() for table in tables]
        found = max(found, float(np.abs(numbers[0] - numbers[1]).max(initial=0)))
        words = [table.get("label", pd.Series()).tolist() for table in tables]
        found = max(found, float(words[0] != words[1]))
    return found
