"""What cannot be done ends in one line that says why, the right exit code, and nothing half-written."""

import json
import re
import shutil
import signal
import time

import numpy as np
import pytest

from permafrost import api, inspection
from permafrost.cli.console import Console
from permafrost.cli.exit_codes import run_guarded
from permafrost.cli.main import app
from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.extract.backbones import load
from permafrost.probes.config.load import load_recipe
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.workspace import Workspace
from permafrost.user_data import DataArguments, load_with_data
from tests.support.bench import Bench, pairs, write
from tests.support.models.backbones import WORDS, byte_tokenizer, save_tokenizer

pytestmark = pytest.mark.usefixtures("quick")
NOTES = (
    r"stage one, |self-check: |[\w.]+\.csv: ([\d,]+ train|commas, header)|/.*: \d+ layers of width|"
    r"(weights|linear), seed \d: best epoch"
)


def one_line(err: str, notes: str = NOTES) -> str:
    """The last line of stderr; all before it are the notes of a run that went well so far."""
    *before, last = err.splitlines()
    assert [line for line in before if not re.match(notes, line)] == []
    return last


@pytest.fixture(scope="module")
def bench(tmp_path_factory, tiny):
    """A bench with files that are wrong in one way each, a run of pairs, and none of it changed by a refusal."""
    bench = Bench(tmp_path_factory.mktemp("refused"), tiny("bert"))
    few = [*pairs()[:1], *pairs()[-30:]]
    write(bench.folder / "constant.csv", ["first", "second", "score", "split"], [(*r[:2], 0.5, r[3]) for r in pairs()])
    write(bench.folder / "few.csv", ["first", "second", "score", "split"], few)
    write(bench.folder / "tiny.csv", ["first", "second", "score", "split"], pairs()[:9])
    write(bench.folder / "broken.csv", ["first", "second", "score"], [*(r[:3] for r in pairs()[:3]), ("a dog", 0.5)])
    (bench.folder / "empty").mkdir()
    shutil.copytree(bench.backbone, bench.folder / "pickled")
    (bench.folder / "pickled" / "model.safetensors").rename(bench.folder / "pickled" / "pytorch_model.bin")
    shutil.copytree(bench.backbone, bench.folder / "torn")
    (bench.folder / "torn" / "model.safetensors").write_bytes(b"not a tensor")
    for kind in ("vit", "wav2vec2"):
        shutil.copytree(bench.backbone, bench.folder / kind)
        (bench.folder / kind / "config.json").write_text(json.dumps({"model_type": kind}))
    shutil.copytree(bench.backbone, bench.folder / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    save_tokenizer(byte_tokenizer(), bench.folder / "bytes")
    (bench.folder / "adapter").mkdir()
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "bert-base"}
    (bench.folder / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        api.run("pairs", bench.of_pairs(), bench.folder / "done")
        api.run("classify", bench.of_topics(), bench.folder / "done")
    return bench


CORPORA = {
    "missing corpus": ("corpus.path={0}/absent.csv", "absent.csv: no such file"),
    "no corpus at all": ("corpus.path=", "there is no corpus: give your data, --data FILE"),
    "too few fields": ("corpus.path={0}/broken.csv", "broken.csv:5: expected 3 fields (first, second, score), found 2"),
    "unknown column": (
        "corpus.columns=first,secnd,score",
        "no column 'secnd'; set corpus.columns (--columns) to some of first, second, score, split, or to positions",
    ),
    "score outside its range": ("corpus.score_range=0,0.5", "is outside corpus.score_range = [0, 0.5]"),
    "cosines of one text": (
        "corpus.columns=first,score probe.head=cosine",
        "probe.head = 'cosine' needs two texts a row; corpus.columns names one: use 'regression'",
    ),
    "pretraining without an encoder": (
        "pretraining.task=classes pretraining.corpus.name= pretraining.corpus.path={0}/pairs.csv "
        "pretraining.corpus.columns=first,second,score pretraining.corpus.target=score",
        "pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp",
    ),
    "constant predictions": (
        "plan.views=cls plan.layers=0",
        "weights: its metric was never finite: its predictions of validation are constant",
    ),
    "constant targets": ("corpus.path={0}/constant.csv", "constant.csv: all its validation scores are the same"),
    "too few rows": ("corpus.path={0}/few.csv", "1 training rows are too few: this loss needs 2"),
    "no validation": ("corpus.path={0}/tiny.csv", "it has no rows of validation, only of train; give it more rows"),
}
SETTINGS = {
    "unknown key": ("plan.backbon=minilm", "unknown key 'backbon' in [plan]. Did you mean 'backbone'?"),
    "unknown view": ("plan.views=meen", "plan.views = 'meen': Did you mean 'mean'?"),
    "input that is not kept": (
        "probe.inputs=cls",
        "probe.inputs names 'cls', which plan.views does not keep. Known: mean.",
    ),
    "input of no plan": ("probe.inputs=mean,lod/mean", "probe.inputs names the plan 'lod'. There are none."),
    "input that is no name": ("probe.inputs=mean:1:2", "probe.inputs: 'mean:1:2' is not [PLAN/]VIEW[:LAYERS]"),
    "input named twice": ("probe.inputs=mean,mean:-1", "probe.inputs names layer 3 of mean twice"),
    "layer out of range": ("plan.layers=1,9", "layer 9 is out of range: there are layers 0 to 3"),
    "layers that fall": ("plan.layers=3..1", "the layers 3..1 go from 3 down to 1"),
    "layers that are none": ("plan.layers=some", "layers must be all, a list, or a range as 1..-1, got 'some'"),
    "probe layer out of range": (
        "probe.layers=-9",
        "the probe reads layers that the plan does not keep: layer -9 is out of range: there are layers 0 to 3",
    ),
    "probe layers that fall": ("probe.layers=-1..1", "the layers -1..1 go from 3 down to 1"),
    "code of an encoder that keeps the width": ("probe.code=0.5", "needs the encoder linear or mlp; none keeps the"),
    "unknown key of a further plan": (
        "plans.loud.templat=x",
        "[plans.loud]: unknown key 'templat'. Did you mean 'template'?",
    ),
    "impossible value of a further plan": ("plans.loud.max_tokens=0", "[plans.loud]: max_tokens must be at least 1"),
    "no equals sign": ("plan.backbone", "--set 'plan.backbone': expected KEY=VALUE"),
    "wrong type": ("train.epochs=some", "train.epochs must be whole number, got 'some'"),
    "loss of another task": ("train.loss=cross_entropy", "does not fit similarity; use one of: mse, log_variance"),
    "negative seed": ("train.seeds=0,-1", "seeds must name at least one, none negative and none twice, got [0, -1]"),
}
BACKBONES = {
    "backbone that is nowhere": ("plan.backbone=nobody/absent", "'nobody/absent' is not in the local hub cache"),
    "backbone of no such name": (
        "plan.backbone=gpt2-mediun",
        "unknown backbone 'gpt2-mediun', and no folder of that name",
    ),
    "folder that is no model": ("plan.backbone={0}/empty", "is no model folder: it has no config.json"),
    "pickled weights only": ("plan.backbone={0}/pickled", "holds pickled weights only (pytorch_model.bin)"),
    "torn weights": ("plan.backbone={0}/torn", "torn cannot be loaded"),
    "model of images": ("plan.backbone={0}/vit", "no part of it takes token ids, so it is no model of text"),
    "model of speech": ("plan.backbone={0}/wav2vec2", "no part of it takes token ids, so it is no model of text"),
    "no tokenizer": ("plan.backbone={0}/mute", "holds no tokenizer; set plan.tokenizer to a folder that does"),
    "tokenizer of another model": ("plan.tokenizer={0}/bytes", "it is of another model. Set plan.tokenizer to that"),
    "adapter alone": (
        "plan.backbone={0}/adapter",
        "set plan.backbone to its base, bert-base, and plan.adapter to this",
    ),
    "adapter without weights": ("plan.adapter={0}/adapter", "adapter holds no weights (adapter_model.safetensors)"),
    "no adapter": ("plan.adapter={0}/empty", "is no folder of an adapter: it has no adapter_config.json"),
    "no device": ("device=gpu", 'device must be "auto", "cpu", "cuda", "cuda:N" or "mps", got "gpu"'),
    "GPU that is not there": ("device=cuda:7", 'device = "cuda:7" is not on this machine, where torch'),
    "GPU for the extraction alone": ("extract.device=cuda:7", 'device = "cuda:7" is not on this machine, where torch'),
    "map of devices and one device of all": ("device=cpu extract.device_map=auto", "leave one of them out"),
    "map of devices and one device": ("extract.device=cpu extract.device_map=auto", "leave one of them out"),
    "file for a cache": ("extract.cache={0}/few.csv", "few.csv: a folder is needed here"),
    "more tokens than positions": ("plan.max_tokens=999", "plan.max_tokens = 999, but"),
    "no final norm": ("plan.final_norm=true", "has no norm after its last block"),
}
TABLE = CORPORA | SETTINGS | BACKBONES


@pytest.mark.parametrize("case", TABLE)
def test_what_run_cannot_do_is_one_line_and_leaves_no_run(case, bench):
    setting, message = TABLE[case]
    code, out, err = bench.command("run", "pairs", settings=bench.of_pairs(*setting.format(bench.folder).split()))
    assert (code, out) == (2, "")
    assert message in one_line(err)
    assert not bench.runs.exists() or not list(bench.runs.iterdir())


@pytest.mark.parametrize(
    ("variant", "setting", "message"),
    [
        ("weights", "probe.mixer=last", "there is nothing to train"),
        ("linear", "train.learning_rate=1e30", "the weights of probe."),
    ],
)
def test_a_variant_that_cannot_be_trained_costs_a_run_no_other(variant, setting, message, bench, quick):
    code, out, err = bench.command("run", "pairs", settings=bench.of_pairs(setting))
    assert code == 0
    assert f"{variant} is left out: {message}" in err
    assert f"{variant}  " not in out
    code, out, err = bench.command("run", "pairs", "--only", variant, settings=bench.of_pairs(setting))
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_a_restart_that_finds_no_backbone_keeps_the_checkpoints(bench):
    settings = bench.of_pairs("plan.backbone=nobody/absent")
    name, recipe = load_with_data(load_recipe, "pairs", settings, DataArguments())
    checkpoint = UnfinishedTrainings.of(bench.folder / "killed", name, recipe, NoProgress()).path / "x.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"hours of training")
    with pytest.raises(InputError, match="nobody/absent"):
        api.run("pairs", settings, bench.folder / "killed")
    assert checkpoint.exists()


def test_two_runs_with_the_same_settings_at_once_leave_each_other_alone(bench):
    settings = bench.of_pairs("train.epochs=1", "plan.views=mean")
    name, recipe = load_with_data(load_recipe, "pairs", settings, DataArguments())
    first = UnfinishedTrainings.of(bench.runs, name, recipe, NoProgress())
    with first.held() as held:
        assert held
        first.path.mkdir()
        (first.path / "theirs.safetensors").write_bytes(b"hours of training")
        code, _, err = bench.command("run", "pairs", settings=settings)
        assert code == 0
        assert f"an equal run is under way in another process, which holds {first.path}" in err
        assert [path.name for path in first.path.iterdir()] == ["theirs.safetensors"]
    first.remove()
    assert not first.path.parent.exists()


def test_a_run_holds_its_checkpoints_from_before_its_extraction(bench, monkeypatch):
    settings = bench.of_pairs("train.epochs=1", "plan.views=mean", "plan.layers=-1")
    name, recipe = load_with_data(load_recipe, "pairs", settings, DataArguments())
    held = []

    def prepare(workspace, recipes):
        with UnfinishedTrainings.of(bench.runs, name, recipe, NoProgress()).held() as free:
            held.append(not free)
        raise SpecError("stopped")

    monkeypatch.setattr(Workspace, "prepare", prepare)
    with pytest.raises(SpecError, match="stopped"):
        api.run("pairs", settings, bench.runs)
    assert held
    assert all(held)


WORDS_ONLY = {
    "unknown recipe": (["run", "quickstrat"], "unknown recipe 'quickstrat'. Did you mean 'quickstart'?"),
    "recipe file that is not there": (["run", "{0}/mine.toml"], "mine.toml cannot be read (No such file or directory)"),
    "config of no recipe": (["config", "stss"], "Did you mean 'sts'?"),
    "a folder that is no run": (["predict", "{0}/empty", "a dog", "the dog"], "empty is no finished run"),
    "a run that is not there": (["predict", "{0}/absent-1", "a dog", "the dog"], "absent-1 is no finished run"),
    "a file for a run": (["predict", "{0}/few.csv", "a dog", "the dog"], "few.csv is no finished run"),
    "odd number of texts": (["predict", "{0}/done/pairs-1", "a dog"], "give an even number of texts, got 1"),
    "nothing to predict": (["predict", "{0}/done/pairs-1"], "give either texts or --file FILE"),
    "empty text": (["predict", "{0}/done/pairs-1", "a dog", " "], "item 1: the second text is empty"),
    "file without the columns": (
        ["predict", "{0}/done/pairs-1", "--file", "{0}/topics1.csv"],
        "columns first, second or",
    ),
    "file that is not there": (
        ["predict", "{0}/done/classify-1", "--file", "{0}/absent.csv"],
        "absent.csv: no such file",
    ),
    "no such store": (["cache", "show", "feed", "--cache", "{0}/cache"], "'feed' is no store in"),
    "all stores at once": (["cache", "prune", "--whole", "--cache", "{0}/cache"], "name them"),
}


@pytest.mark.parametrize("case", WORDS_ONLY)
def test_a_command_that_cannot_be_is_one_line(case, bench):
    words, message = WORDS_ONLY[case]
    code, out, err = bench.command(*(word.format(bench.folder) for word in words))
    assert (code, out) == (2, "")
    assert message in one_line(err, notes="no note")


def test_truncation_that_was_refused_stops_before_anything_runs(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs("plan.truncation=refuse", "plan.max_tokens=6")
    code, _, err = bench.command("run", "pairs", settings=settings)
    assert code == 2
    assert "texts exceed plan.max_tokens = 6, the longest has 7 tokens" in one_line(err)
    assert not list(tmp_path.rglob("*.h5"))
    assert not bench.runs.exists()


@pytest.mark.parametrize("plan", [["plan.truncation=refuse"], []])
def test_truncation_is_refused_and_counted_on_a_warm_cache_too(plan, tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    api.extract("pairs", bench.of_pairs("plan.max_tokens=6"))
    for verb in ("run", "train"):
        code, _, err = bench.command(verb, "pairs", settings=bench.of_pairs("plan.max_tokens=6", *plan))
        assert code == (2 if plan else 0)
        assert ("texts exceed plan.max_tokens = 6" if plan else "texts cut to 6 tokens") in err


@pytest.mark.slow
def test_a_limit_of_tokens_that_is_not_the_users_is_lowered_with_one_note(tmp_path, tiny, capsys):
    bench = Bench(tmp_path, tiny("bert"))
    settings = [setting for setting in bench.of_pairs() if not setting.startswith("plan.max_tokens")]
    unread = ["finetune.cut=none", "probe.layers=-1", "probe.mixer=last", "probe.encoder=none", "train.epochs=1"]
    note = f'{tiny("bert")} reads 66 tokens, which plan.max_tokens = "256 or fewer" becomes'
    for verb, more in (("run", []), ("train", []), ("run", unread)):
        code, _, err = bench.command(verb, "pairs", settings=[*settings, *more])
        assert (code, err.count(note)) == (0, 1)
    compared = ("similarity", "a dog", "a stove", "--backbone", str(tiny("bert")), "--runs", str(tmp_path / "runs"))
    code, _, err = bench.command(*compared, settings=[f"extract.cache={tmp_path / 'cache'}"])
    assert (code, err.count(note)) == (0, 1)
    for cache in (tmp_path / "cache", None):
        inspection.latents(["a dog"], str(tiny("bert")), cache=cache, progress=Console())
        assert capsys.readouterr().err.count(note) == 1
    code, _, err = bench.command("run", "pairs", settings=[*settings, "plan.max_tokens=256"])
    assert code == 2
    assert "plan.max_tokens = 256, but" in one_line(err)


def test_train_without_latents_says_to_extract_first(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    code, _, err = bench.command("train", "pairs", settings=bench.of_pairs())
    assert code == 2
    assert "holds no latents of this plan; run 'extract' with the same recipe first" in one_line(err)
    api.extract("pairs", bench.of_pairs())
    code, _, err = bench.command("train", "pairs", settings=bench.of_pairs("plan.views=max"))
    assert code == 2
    assert "holds no view 'max', only mean; run 'extract' first" in one_line(err)


def test_a_run_refuses_a_backbone_whose_weights_have_changed(tmp_path, tiny):
    bench = Bench(tmp_path, shutil.copytree(tiny("bert"), tmp_path / "bert"))
    done = api.run("pairs", bench.of_pairs(), bench.runs)
    weights = bench.backbone / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, _, err = bench.command("predict", str(done.path), "a dog", "the dog")
    assert code == 2
    assert "has other weights than the one this run was trained on" in one_line(err)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["altered", "cut off"])
def test_a_damaged_shard_is_named_set_aside_and_run_again(damage, tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    settings, cache = bench.of_pairs(), ["--cache", str(tmp_path / "cache")]
    first = api.run("pairs", settings, bench.folder / "first")
    (shard,) = (tmp_path / "cache").rglob("*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content if damage == "altered" else content[: len(content) // 2])
    code, _, err = bench.command("run", "pairs", settings=settings)
    assert code == 3
    assert str(shard) in one_line(err)
    assert f"'permafrost cache repair {shard.parent}'" in err
    assert not bench.runs.exists()
    assert bench.command("cache", "verify", *cache)[0] == 3
    assert bench.command("cache", "repair", *cache)[0] == 0
    assert bench.command("cache", "verify", *cache)[0] == 0
    again = api.run("pairs", settings, bench.runs)
    assert again.texts_run == first.texts_run
    assert again.metrics == first.metrics


def test_a_backbone_that_does_not_fit_the_memory_is_one_line_of_a_failing_machine(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(load, "free_memory", lambda device: 1000)
    bench = Bench(tmp_path, tiny("bert"))
    code, out, err = bench.command("run", "pairs", settings=bench.of_pairs("plan.compute_dtype=float32"))
    assert (code, out) == (3, "")
    assert re.search(r"takes .* GB in float32, and the cpu has .* free: set plan.compute_dtype = ", one_line(err))


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_says_what_is_safe(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    too_small = "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"  # bytes in a file, fewer than the shard
    process = bench.process("run", "pairs", settings=bench.of_pairs(), before=too_small)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert re.search(r"a shard of [\d,]+ bytes could not be written \(.*\)\. What was committed is safe", one_line(err))
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert not list((tmp_path / "cache").rglob("*.h5"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_extract_keeps_what_is_committed_and_the_next_run_goes_on(number, code, tmp_path, tiny):
    bench, cache = Bench(tmp_path, tiny("bert")), tmp_path / "cache"
    rng = np.random.default_rng(0)
    texts = dict.fromkeys(" ".join(rng.choice(WORDS, 30)) for _ in range(4000))
    write(tmp_path / "many.csv", ["text"], [(text,) for text in texts])
    settings = bench.settings(
        f"corpus.path={tmp_path / 'many.csv'}",
        "corpus.columns=text",
        "corpus.target=none",
        "extract.shard_seconds=0.05",
    )
    process = bench.process("extract", "pairs", settings=settings)
    while not list(cache.rglob("*.h5")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "what was committed to the cache is kept; the same command goes on from there" in one_line(err)
    assert not list(cache.rglob("*.tmp"))
    kept = {path: path.read_bytes() for path in cache.rglob("*.h5")}
    _, (stored,) = api.extract("pairs", settings)
    assert 0 < stored.texts_run < len(texts)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(stored.store.read(list(texts), "mean", [0])[0]) == len(texts)


def test_a_file_in_the_place_of_the_runs_is_refused_and_kept(bench):
    settings = [word for one in bench.of_pairs() for word in ("--set", one)]
    code = run_guarded(
        lambda: app(["run", "pairs", "--runs", str(bench.folder / "few.csv"), *settings], standalone_mode=False)
    )
    assert code == 2
    assert (bench.folder / "few.csv").read_text("utf-8").startswith("first,second")


def test_an_unknown_option_is_refused_with_its_name(bench):
    code, _, err = bench.command("run", "quickstart", "--sett", "a=b")
    assert code == 2
    assert "--sett" in err
    assert "Traceback" not in err


def test_a_variant_whose_backbone_cannot_be_had_costs_a_run_no_other(bench, quick):
    (bench.folder / "own.toml").write_text(
        '[[variants]]\nname = "here"\n[[variants]]\nname = "nowhere"\nset = { "plan.backbone" = "qwen2-0.5b" }\n'
    )
    settings = bench.of_pairs("corpus.target=score")
    code, out, err = bench.command("run", str(bench.folder / "own.toml"), settings=settings)
    assert code == 0
    assert "nowhere is left out: 'qwen2-0.5b'" in err
    assert "here  " in out
