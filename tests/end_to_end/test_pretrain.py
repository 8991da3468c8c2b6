"""Pretraining by command: what it leaves, what a second call says, and recipes whose backbone is their own model."""

import json
import shutil
from contextlib import ExitStack

import pandas as pd
import pytest

from permafrost import api
from permafrost.data import atomic
from permafrost.data.corpora.records import CorpusError
from permafrost.data.digests import DamageError
from permafrost.data.errors import InputError
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.progress import NoProgress
from permafrost.data.readers.plain_text import find_text
from permafrost.extract.pretraining.vocabulary import learn_tokenizer, read_vocabulary
from permafrost.probes.config.load import load_recipe, resolve_language_model
from permafrost.probes.metrics import bootstrap
from permafrost.probes.reports.compare import comparison
from tests.support.bench import Bench
from tests.support.damage import resealed, resigned
from tests.support.page_reader import Page
from tests.support.real import real_model

SMALL = ["corpus=samples-sentences", "lines=true", "vocabulary=", "vocabulary_size=300", "blocks=1", "width=16"]
SMALL += ["heads=2", "inner=16", "block_tokens=32", "batch_rows=64", "epochs=1", "compute_dtype=float32"]
RECIPES = ["mlm-nli", "gpt-small"]


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def small(bench: Bench, *more: str) -> list[str]:
    cache = f"extract.cache={bench.folder / 'cache'}"
    return [*(f"language.{change}" for change in (*SMALL, *more)), cache, "extract.device=cpu"]


def of_nli(bench: Bench, *more: str) -> list[str]:
    changes = ["corpus.name=samples-nli", "plan.max_tokens=32", "plan.compute_dtype=float32", "train.epochs=1", *more]
    return [*small(bench), *changes]


@pytest.fixture
def figureless(monkeypatch):
    """Pages are not drawn, and intervals of few samples."""
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    monkeypatch.setattr(bootstrap, "RESAMPLES", bootstrap.CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_pretrains_on_the_samples_and_leaves_a_model_and_a_run(name, bench):
    code, out, err = bench.command("pretrain", name, settings=small(bench))
    assert (code, "blocks of 32 tokens" in err) == (0, True)
    assert "perplexity" in out
    folder, run = bench.folder / "cache" / "models" / name, bench.runs / f"{name}-pretraining-1"
    assert f"run: {run}" in out
    assert {path.name for path in run.iterdir()} == {
        "recipe.toml", "record.json", "losses.csv", "metrics.csv", "figures", "report.html",
    }  # fmt: skip
    assert sorted(path.name for path in (run / "figures").iterdir()) == ["loss.png", "loss.svg"]
    losses, figures = pd.read_csv(run / "losses.csv"), pd.read_csv(run / "metrics.csv")
    assert losses["step"].tolist() == list(range(1, len(losses) + 1))
    measured = figures.set_index(["split", "metric"])["value"]
    record = json.loads((folder / "pretraining.json").read_text("utf-8"))
    assert measured["held-out", "loss"] == pytest.approx(record["loss"])
    assert measured["held-out", "perplexity"] == pytest.approx(record["perplexity"])
    assert set(figures["backbone"]) == {str(folder)}
    low, high = figures.set_index(["split", "metric"]).loc[("held-out", "loss"), ["low", "high"]]
    assert low < record["loss"] < high
    assert f"{low:.4f}"[:5] in out
    page = Page((run / "report.html").read_text("utf-8"))
    assert f"{low:.4f} to {high:.4f}" in page.text
    assert "held-out loss" in page.text
    assert load_recipe(str(run / "recipe.toml"))[1].language.folder == str(folder)


def test_a_second_call_says_that_the_model_is_there_and_does_nothing(bench, figureless):
    first = json.loads(bench.command("pretrain", "gpt-small", "--json", settings=small(bench))[1])
    code, out, err = bench.command("pretrain", "gpt-small", "--json", settings=small(bench))
    again = json.loads(out)
    assert code == 0
    assert f"is there already, perplexity {first['perplexity']:.2f} on held-out text: nothing to pretrain" in err
    assert (first.pop("run"), again.pop("run")) == (str(bench.runs / "gpt-small-pretraining-1"), None)
    assert again == first
    folder = bench.folder / "cache" / "models" / "gpt-small"
    record = json.loads((folder / "pretraining.json").read_text("utf-8"))
    record.pop("guessed")  # as one that was made before there were intervals
    resigned(folder, record)
    (folder.with_name("gpt-small.checkpoints") / "checkpoint-1").mkdir(parents=True)  # a kill came before their end
    assert bench.command("pretrain", "gpt-small", settings=small(bench))[0] == 0
    assert [path.name for path in folder.parent.iterdir()] == ["gpt-small"]
    assert first["steps"] == -(-first["blocks"] // 64)
    assert len(list(bench.runs.iterdir())) == 1
    assert bench.command("pretrain", "gpt-small", settings=small(bench))[1].endswith("it was there already\n")


def test_a_run_that_a_kill_left_out_is_written_by_the_next_call_and_once(bench, figureless):
    first = api.pretrain("gpt-small", small(bench), bench.runs)
    shutil.rmtree(first.path)
    again = api.pretrain("gpt-small", small(bench), bench.runs)
    told = [json.loads((one.path / "record.json").read_text("utf-8"))["pretraining"] for one in [again]]
    assert again.facts.items() <= told[0].items()
    resealed(again.path, {"pretraining": told[0] | {"seconds": 1.0}})
    (bench.runs / "broken-pretraining-1").mkdir()
    (bench.runs / "broken-pretraining-1" / "record.json").write_text("[", "utf-8")
    other = api.pretrain("gpt-small", small(bench), bench.runs)  # what is told of is a model that lay there before
    assert other.path == bench.runs / "gpt-small-pretraining-2"
    assert api.pretrain("gpt-small", small(bench), bench.runs).path is None


def test_the_unfinished_folder_of_a_killed_pretraining_goes_with_the_next(bench, figureless):
    models = bench.folder / "cache" / "models"
    left = models / f".{'0' * 32}.999999999-1@{atomic._host()}.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"large")
    api.pretrain("gpt-small", small(bench), bench.runs)
    assert [path.name for path in models.iterdir()] == ["gpt-small"]


def test_a_second_pretraining_says_that_one_is_under_way_and_waits_for_it(bench, figureless):
    models, notes, first = bench.folder / "cache" / "models", list[str](), ExitStack()
    first.enter_context(atomic.file_lock(models / ".gpt-small.lock"))

    class Console(NoProgress):
        def note(self, text: str) -> None:
            notes.append(text)
            first.close()

    api.pretrain("gpt-small", small(bench), bench.runs, Console())
    assert notes[0] == f"a pretraining of {models / 'gpt-small'} is under way in another process; this one waits for it"
    assert [path.name for path in models.iterdir()] == ["gpt-small"]


def test_extract_pretrains_and_writes_no_run_which_the_next_command_does(bench, figureless, monkeypatch):
    monkeypatch.chdir(bench.folder)
    api.extract("mlm-nli", of_nli(bench))
    assert (bench.folder / "cache" / "models" / "mlm-nli").is_dir()
    assert not bench.runs.exists()
    assert api.pretrain("mlm-nli", of_nli(bench), bench.runs).path == bench.runs / "mlm-nli-pretraining-1"


def test_how_long_all_of_it_takes_is_said_before_the_pretraining(bench):
    code, _, err = bench.command("run", "mlm-nli", settings=of_nli(bench, "language.vocabulary_size=1"))
    assert code == 2  # as soon as the pretraining begins
    assert err.splitlines()[0].endswith(f"expected time: {load_recipe('mlm-nli')[1].duration}")


def test_other_settings_or_another_text_are_refused_by_what_differs(bench, figureless):
    api.pretrain("gpt-small", small(bench), bench.runs)
    text = bench.folder / "text.txt"
    text.write_text("A dog runs.\n" * 500)
    for changes, said in (
        (["learning_rate=1e-3"], "learning_rate = 0.0005 there, 0.001 here"),
        ([f"corpus={text}"], "another text"),
        (["seed=1", "epochs=2"], "epochs = 1 there, 2 here; seed = 0 there, 1 here"),
    ):
        with pytest.raises(
            InputError, match=rf"model of another pretraining \(.*{said}.*set language.folder to another"
        ):
            api.pretrain("gpt-small", small(bench, *changes), bench.runs)
    elsewhere = small(bench, "learning_rate=1e-3", f"folder={bench.folder / 'other'}")
    assert api.pretrain("gpt-small", elsewhere, bench.runs).model.folder == bench.folder / "other"


@pytest.mark.slow
def test_one_command_pretrains_a_backbone_and_trains_a_probe_on_it(bench, figureless):
    settings = of_nli(bench)
    done = api.run("mlm-nli", settings, bench.runs)
    folder = str(bench.folder / "cache" / "models" / "mlm-nli")
    assert sorted(path.name for path in bench.runs.iterdir()) == ["mlm-nli-1", "mlm-nli-pretraining-1"]
    assert {row["backbone"] for row in done.metrics} == {folder}
    assert load_recipe(str(done.path / "recipe.toml"))[1].plan.backbone == folder
    (answer,) = api.load(done.path).predict([("A man sleeps.", "He is awake.")])
    assert set(answer["probabilities"]) == {"entailment", "neutral", "contradiction"}
    again = api.run("mlm-nli", settings, bench.runs)
    assert (again.texts_run, again.metrics) == (0, done.metrics)
    cached = api.train("mlm-nli", settings, bench.runs)  # which has no blocks that could learn
    assert cached.metrics == [row for row in done.metrics if not row["variant"].startswith("trained")]
    assert cached.texts_run == 0
    assert len(list(bench.runs.glob("*pretraining*"))) == 1


def test_training_from_the_cache_pretrains_nothing(bench):
    with pytest.raises(InputError, match="extract"):
        api.train("mlm-nli", of_nli(bench), bench.runs)
    assert not (bench.folder / "cache" / "models").exists()


def test_a_backbone_called_language_is_the_recipes_own_wherever_it_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[language]\ncorpus = "t.txt"\n[plans.other]\nbackbone = "language"\n[[variants]]\nname = "one"\n'
        'set = { "plan.backbone" = "language" }\n[ablation]\nbackbones = ["minilm", "language"]\n'
    )
    name, recipe = load_recipe(str(path))
    found, own = resolve_language_model(name, recipe), "cache/models/mine"
    assert found.plan.backbone == "minilm"
    assert found.plans["other"]["backbone"] == own
    assert found.variants[0].set == {"plan.backbone": own}
    assert found.ablation.backbones == ("minilm", own)
    assert resolve_language_model(name, found) == found


def test_the_page_of_a_pretraining_is_drawn_again_and_is_not_compared(bench):
    done = api.pretrain("gpt-small", small(bench, "held_out=0"), bench.runs)
    page = done.path / "report.html"
    page.unlink()
    assert bench.command("report", str(done.path)) == (0, f"{page}\n", "")
    drawn = Page(page.read_text("utf-8")).text
    assert "gpt-small-pretraining-1" in drawn
    assert "held-out loss" not in drawn
    with pytest.raises(InputError, match="has nothing to compare: it measured nothing"):
        comparison([done.path, done.path])
    (done.path / "losses.csv").write_text("step,loss\n1,high\n")
    with pytest.raises(DamageError, match=r"losses\.csv is not as the run wrote it"):
        api.report(done.path)
    resealed(done.path)
    with pytest.raises(InputError, match="row 1, column 'loss': expected a number, got 'high'"):
        api.report(done.path)


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (["pretrain", "sts"], [], "recipe 'sts' has no table [language] with a corpus"),
        (["run", "gpt-small"], [], "pretrains a model and has no corpus to train a probe on: 'pretrain' it"),
        (["run", "sts"], ["plan.backbone=language"], "no language.corpus says of what text"),
        (["pretrain", "gpt-small"], ["language.corpus=nowhere"], "there is no such file or folder"),
        (["pretrain", "gpt-small"], ["language.corpus=samples-pairs"], "unknown kind of file '.csv'"),
        (["pretrain", "gpt-small"], ["language.corpus={0}"], "5 tokens in 1 documents to learn from do not fill one"),
        (["pretrain", "gpt-small"], ["language.vocabulary_size=0"], "must be more than 257, got 0"),
        (["pretrain", "gpt-small"], ["language.vocabulary=gtp2"], "unknown backbone 'gtp2'"),
        (["pretrain", "gpt-small"], ["language.learning_rate=1e30", "language.warmup=0"], "at step"),
        (["pretrain", "gpt-small"], ["language.folder={1}"], "is no result of a pretraining"),
        (["pretrain", "mlm-nli"], ["language.vocabulary=minilm"], "vocabulary_size = 300, but the ids of minilm"),
    ],
)
def test_what_cannot_be_pretrained_is_one_line_and_exit_code_2(words, changes, said, bench, figureless):
    (text := bench.folder / "short.txt").write_text("a b c d e\n")
    (other := bench.folder / "other").mkdir()
    given = [change.format(text, other) for change in changes]
    given += ["language.held_out=0"] if "{0}" in str(changes) else []
    code, out, err = bench.command(*words, settings=[*(small(bench) if "sts" not in words else []), *given])
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert said in last
    assert last.startswith(("SpecError: ", "CorpusError: ", "InputError: ", "DivergedError: "))


def test_a_learnt_vocabulary_spells_every_text_and_is_learnt_alike_again():
    texts = ["the dog runs over the grass", "the warm stove in winter"] * 20
    special = ("[CLS]", "[SEP]", "[MASK]", "[PAD]")
    first, again = (learn_tokenizer(texts, 280, special) for _ in range(2))
    assert first.to_str() == again.to_str()
    assert first.get_vocab_size() == 280
    unseen = "Ça – 日本 🙂\tdog"
    assert first.decode(first.encode(unseen).ids) == unseen
    assert first.encode("dog").tokens[0] == "[CLS]"
    assert first.encode("dog").tokens[-1] == "[SEP]"


def test_a_vocabulary_is_taken_from_a_backbone_by_name_or_from_a_folder():
    spec = LanguageSpec(vocabulary="minilm")
    found = read_vocabulary(spec)
    assert found.size == 30522
    assert found.tokenizer.get_vocab() == read_vocabulary(
        LanguageSpec(vocabulary=str(real_model("bert_vocab")))
    ).tokenizer.get_vocab()  # fmt: skip


def test_a_text_is_looked_for_under_the_folder_of_corpora_then_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpora" / "mine").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "here.txt").write_text("a")
    monkeypatch.setenv("PERMAFROST_DATA", str(tmp_path / "corpora"))
    assert find_text("mine") == tmp_path / "corpora" / "mine"
    assert str(find_text("here.txt")) == "here.txt"
    monkeypatch.delenv("PERMAFROST_DATA")
    assert str(find_text("mine")) == "mine"
    with pytest.raises(CorpusError, match="PERMAFROST_DATA is not set"):
        find_text("lm_corpus")
