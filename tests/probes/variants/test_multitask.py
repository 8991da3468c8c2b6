"""Tasks that learn together, and blocks that learn for one: what cannot be is one line, what is trained adds up."""

import json
import math
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from safetensors.torch import load_file

from permafrost import api, stage_one
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.data.text import TextError
from permafrost.probes.config.load import load_recipe
from permafrost.probes.config.names import PROBE
from permafrost.probes.training.best_state import History
from permafrost.probes.variants.train_variant import _check_histories, best_seed
from permafrost.probes.variants.workspace import Workspace
from tests.support.bench import Bench, pairs, write
from tests.support.marks import slow_but_first

pytestmark = pytest.mark.usefixtures("quick")
RECIPE = """
[plan]
views = ["mean"]
stored_dtype = "float32"

[finetune]
cut = 1

[probe]
layers = [-1]
encoder = "none"
mixer = "last"
hidden = 8
dropout = 0.1

[tasks.topic]
corpus = {{ path = "{0}/topic.csv", columns = ["sentence", "label"], target = "class" }}

[tasks.tone]
corpus = {{ path = "{0}/tone.csv", columns = ["sentence", "label"], target = "class" }}

[multitask]
schedule = "joint"

[train]
batch_rows = 8
learning_rate = 0.01
rates = {{ backbone = 1e-3 }}
"""
VARIANT = """
[[variants]]
name = "{}"
set = {{ {} }}
"""


class Tasks:
    """A bench with a recipe of two small tasks."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        rows = pairs()
        write(bench.folder / "topic.csv", ["sentence", "label", "split"],
              [(row[0], "dog" if "dog" in row[0] else "none", row[3]) for row in rows])  # fmt: skip
        write(bench.folder / "tone.csv", ["sentence", "label", "split"],
              [(row[1], "long" if len(row[1]) > 18 else "short", row[3]) for row in rows if "a" in row[1]])  # fmt: skip
        write(bench.folder / "words.csv", ["text"], [row[:1] for row in rows])

    def recipe(self, *variants: tuple[str, str], name: str = "two") -> str:
        path = self.bench.folder / f"{name}.toml"
        path.write_text(RECIPE.format(self.bench.folder) + "".join(VARIANT.format(*one) for one in variants), "utf-8")
        return str(path)

    def command(self, *words: str, settings: str = "", variants: tuple[tuple[str, str], ...] = ()) -> tuple:
        verb, *rest = words
        made = self.bench.settings("train.epochs=2", *(one for one in settings.split(" | ") if one))
        return self.bench.command(verb, self.recipe(*variants), *rest, settings=made)

    def run(self, *settings: str, variants: tuple[tuple[str, str], ...] = ()):
        made = self.bench.settings("train.epochs=2", *settings)
        return api.run(self.recipe(*variants), made, self.bench.runs)


@pytest.fixture(scope="module")
def refused(tmp_path_factory, tiny):
    """A bench that every refusal leaves as it was."""
    return Tasks(Bench(tmp_path_factory.mktemp("refused"), tiny("bert")))


@pytest.fixture
def tasks(tmp_path, tiny):
    return Tasks(Bench(tmp_path, tiny("bert")))


WRONG = {
    "cut at the last layer": ("finetune.cut=3", "cut = 3, but '{backbone}' has 3 blocks: a cut lies from 0"),
    "cut far outside": ("finetune.cut=99", "cut = 99, but '{backbone}' has 3 blocks"),
    "cut below the embeddings": ("finetune.cut=-1", 'cut must be a layer from 0, "frozen" or "none", got -1'),
    "cut that is a word": ("finetune.cut=all", "finetune.cut must be"),
    "layers below the cut": (
        "probe.layers=1 | finetune.cut=2",
        "layers above the cut, 2: layer 1 is out of range: there are layers 3 to 3",
    ),
    "gradients of nothing shared": (
        "balancing.balancer=pcgrad | finetune.cut=frozen",
        "balancer 'pcgrad' compares the tasks' gradients by what they share, and nothing shared is trained",
    ),
    "gradients of what is frozen": (
        "balancing.balancer=gradnorm | train.freeze={backbone=0}",
        "balancer 'gradnorm' compares the tasks' gradients by what they share, and nothing shared is trained",
    ),
    "gradients of blocks that are frozen": (
        'balancing.balancer=gradnorm | train.freeze={"backbone.blocks"=0}',
        "balancer 'gradnorm' compares the tasks' gradients by what they share, and nothing shared is trained",
    ),
    "gradients of all blocks frozen by a longer name": (
        'balancing.balancer=pcgrad | train.freeze={"backbone.blocks.model"=0}',
        "balancer 'pcgrad' compares the tasks' gradients by what they share, and nothing shared is trained",
    ),
    "gradients of one task at a time": (
        "balancing.balancer=pcgrad | multitask.schedule=round_robin",
        "and so needs joint steps, one batch of every task in each",
    ),
    "another backbone": (
        "tasks.tone.plan.backbone=minilm",
        "the views of 'topic' and 'tone' cannot come from the same blocks: plan.backbone is '{backbone}' there and "
        "'minilm' here",
    ),
    "another template": (
        'tasks.tone.plan.template="so: {text}"',
        "the views of 'topic' and 'tone' cannot come from the same blocks: plan.template is '{text}' there and",
    ),
    "another start": ("tasks.tone.plan.init=random", "plan.init is 'pretrained' there and 'random' here"),
    "several views": (
        "plan.views=mean,cls",
        "finetune.cut = 1: a probe on fine-tuned blocks reads a single view and one range of layers, e.g. "
        "mean:5..6; probe.inputs or plan.views name mean, cls",
    ),
    "several views of one task": ('tasks.tone.plan.views=["mean","max"]', "reads a single view"),
    "latents of another plan": (
        'plans.loud.template="LOUD {text}" | probe.inputs=loud/mean',
        "finetune.cut fine-tunes the backbone of [plan], but probe.inputs names 'loud/mean' of another plan",
    ),
    "averaged seeds": ("train.average=true", "finetune.cut = 1: train.average would need one"),
    "pretraining": (
        "pretraining.task=autoencoder | pretraining.corpus.name= | pretraining.corpus.path={folder}/words.csv | "
        "pretraining.corpus.columns=text | "
        "pretraining.corpus.target=none | probe.encoder=linear",
        "finetune.cut = 1: [pretraining] reads cached latents, and these change as blocks learn; leave it out",
    ),
    "words that are changed": ("plan.rewording=lower", "plan.rewording"),
    "a task named as blocks are": (
        "tasks.backbone.corpus.name=samples-tones",
        "[tasks.backbone]: a task is named by letters, digits, - and _, and not backbone or shared",
    ),
    "seeds of a task": (
        "tasks.tone.train.seeds=[1]",
        "[tasks.tone]: train.seeds is of all tasks that are trained together; set it in [train]",
    ),
    "rate of a task": ("tasks.tone.train.learning_rate=0.1", "[tasks.tone]: train.learning_rate is of all tasks"),
    "no targets": (
        'tasks.tone.corpus={path="{folder}/words.csv",columns=["text"],target="none"}',
        "it has no targets to learn",
    ),
    "loss of another task": ("tasks.tone.train.loss=mse", "train.loss = 'mse' does not fit classification"),
    "weight of no task": (
        "balancing.balancer=fixed | balancing.weights={topic=1.0,tone=1.0,tune=1.0}",
        "weights: there is no task 'tune'. Did you mean 'tone'?",
    ),
    "weight that lacks": (
        "balancing.balancer=fixed | balancing.weights={topic=1.0}",
        "balancer 'fixed' needs the weight of every task; balancing.weights lacks 'tone'",
    ),
    "rate of nothing": (
        "train.rates={backbon=1e-4}",
        "train.rates names the component 'backbon'. Did you mean 'backbone'?",
    ),
    "nothing frozen": (
        'train.freeze={"tone.heat"=1}',
        "train.freeze names the component 'tone.heat', which has nothing to train. Did you mean 'tone.head'?",
    ),
    "task that is not there": (
        'multitask.tasks=["tune"]',
        "multitask.tasks names the task 'tune'. Did you mean 'tone'?",
    ),
    "loss that is no number": (
        "train.learning_rate=1e30 | train.rates={}",
        "the training loss became nan in step 2 of 10; lower train.learning_rate, train.rates",
    ),
}  # fmt: skip
NOTES = (
    r"stage one, |self-check: |[\w.]+\.csv: ([\d,]+ train|commas, header)|/.*: \d+ layers of width|"
    r"training [\w-]+, seed \d|.* holds an unfinished training"
)


def one_line(err: str) -> str:
    """The last line of stderr; all before it are the notes of a run that went well so far."""
    *before, last = err.splitlines()
    assert [line for line in before if not re.match(NOTES, line)] == []
    return last


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_learn_together_is_one_line_and_leaves_no_run(case, refused):
    setting, message = WRONG[case]
    known = {"{backbone}": str(refused.bench.backbone), "{folder}": str(refused.bench.folder)}
    for name, value in known.items():
        setting, message = setting.replace(name, value), message.replace(name, value)
    code, out, err = refused.command("run", settings=setting)
    assert (code, out) == (2, "")
    assert message in one_line(err)
    assert not refused.bench.runs.exists() or not list(refused.bench.runs.iterdir())


def test_a_loss_that_is_no_number_names_its_task(refused):
    _, _, err = refused.command("run", settings=WRONG["loss that is no number"][0])
    assert re.match(r"(SpecError: )?(topic|tone): the training loss became nan in step 2", one_line(err))


def test_cached_latents_alone_train_no_blocks(refused):
    code, out, err = refused.command("train")
    assert (code, out) == (2, "")
    assert "finetune.cut = 1 trains blocks of" in one_line(err)
    assert "cached latents alone have none: 'run' the recipe" in err


@pytest.mark.parametrize("name", [name for name in WRONG if name.startswith("weight")])
def test_weights_are_refused_before_stage_one(name, tasks):
    code, _, err = tasks.command("run", settings=WRONG[name][0])
    assert (code, "stage one" in err) == (2, False)
    assert not (tasks.bench.folder / "cache").exists()


@pytest.mark.parametrize("verb", ["ablate", "study"])
def test_what_is_for_one_task_is_refused_for_several_together(verb, refused):
    code, out, err = refused.command(verb)
    assert (code, out) == (2, "")
    assert "recipe 'two' trains 2 tasks together: 'run' it" in one_line(err)


def test_every_layer_alone_is_not_of_layers_that_learn(refused):
    code, out, err = refused.command("run", settings="multitask.schedule=separate")
    assert (code, out) == (2, "")
    assert "finetune.cut = 1: layers of fine-tuned blocks change during training" in one_line(err)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('"multitask.schedule" = "separate"', 'other: multitask.schedule = "separate" trains tasks separately'),
        ('"tasks.tone.corpus.path" = "{0}/topic.csv"', "variant 'other': the corpus of 'tone' is not that of the"),
    ],
)
def test_a_variant_that_does_not_compare_is_refused(settings, message, refused):
    variants = (("first", '"finetune.cut" = 1'), ("other", settings.format(refused.bench.folder)))
    code, out, err = refused.command("run", variants=variants)
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_a_variant_that_cannot_be_costs_a_run_no_other(tasks):
    variants = (
        ("good", '"finetune.cut" = 2'),
        ("deep", '"finetune.cut" = 7'),
        ("wild", '"train.rates" = { "topic.nose" = 1.0 }'),
    )
    code, _, err = tasks.command("run", variants=variants)
    assert code == 0
    assert "deep is left out: finetune.cut = 7" in err
    assert err.index("deep is left out") < err.index("training good")  # before hours of the others
    assert (err.count("deep is left out"), err.count("wild is left out")) == (1, 1)
    assert "wild is left out: train.rates names the component 'topic.nose'" in err
    (run,) = tasks.bench.runs.iterdir()
    assert set(pd.read_csv(run / "metrics.csv").query("split != split")["variant"]) == {"good"}
    name, alone = load_recipe(str(run / "tasks" / "topic" / "recipe.toml"))  # runs again, as the one task that it is
    assert (name, alone.tasks, alone.multitask.schedule, alone.finetune.cut) == ("recipe", {}, "separate", 2)


def test_texts_are_refused_before_stage_one_of_other_variants(tasks):
    long = '"finetune.cut" = "none", "plan.max_tokens" = 3, "plan.truncation" = "refuse"'
    recipe = load_recipe(tasks.recipe(("good", '"finetune.cut" = 1'), ("long", long)), tasks.bench.settings())[1]
    workspace = Workspace(stage_one.PROVIDER, NoProgress())
    with pytest.raises(TextError, match=r"texts exceed plan.max_tokens = 3"):
        workspace.prepare([task for one in recipe.variant_recipes().values() for task in one.task_recipes().values()])
    assert not workspace.stored
    code, _, err = tasks.command("run", variants=(("good", '"finetune.cut" = 1'), ("long", long)))
    assert code == 0
    assert re.search(r"long is left out: .* texts exceed plan\.max_tokens = 3", err)


def test_one_seed_is_the_best_for_all_tasks_by_the_mean_of_their_metrics():
    values = {"topic": (0.9, 0.5, 0.8), "tone": (0.1, 0.9, 0.7)}
    assert best_seed([[History(0, value, (), ()) for value in some] for some in values.values()]) == 2


def group_of(histories: dict[str, History]) -> SimpleNamespace:
    """The part of a trained group that is checked: one seed of each task."""
    config = SimpleNamespace(problem=SimpleNamespace(metric="f1", corpus=SimpleNamespace(selection_split="validation")))
    members = {task: [SimpleNamespace(history=history, config=config)] for task, history in histories.items()}
    return SimpleNamespace(members=members)


def test_the_task_whose_metric_was_never_finite_is_named():
    nan = math.nan
    fitted = {"topic": History(-1, -math.inf, (1.0, 1.0), (0.5, 0.6)), "tone": History(-1, -math.inf, (), (nan, nan))}
    with pytest.raises(SpecError, match="both: the metric of tone was never finite: its predictions are constant"):
        _check_histories("both", group_of(fitted))
    fitted["tone"] = History(-1, -math.inf, (), (0.5, nan))
    fitted["topic"] = History(-1, -math.inf, (), (nan, 0.5))
    with pytest.raises(SpecError, match=r'the metrics of topic and tone were not finite .* set it to "each"'):
        _check_histories("both", group_of(fitted))
    alone = {PROBE: History(-1, -math.inf, (), (nan, nan))}
    with pytest.raises(SpecError, match="own: its metric was never finite: its predictions of validation are constant"):
        _check_histories("own", group_of(alone))
    _check_histories("both", group_of({"topic": History(0, 0.5, (1.0,), (0.5,))}))


ALL = (
    ("both", '"multitask.keep" = "one"'),
    ("own-states", '"multitask.keep" = "each"'),
    ("tone-alone", '"multitask.tasks" = ["tone"]'),
    ("backbone-frozen", '"finetune.cut" = "frozen"'),
    ("tone-frozen", '"train.freeze" = { tone = 0 }, "multitask.keep" = "one"'),
    ("upper-frozen", '"train.freeze" = { backbone = 0 }, "multitask.keep" = "one"'),
    ("everything", '"finetune.cut" = "none", "multitask.keep" = "one"'),
)


@pytest.fixture(scope="module")
def together(tmp_path_factory, tiny):
    """A run of all kinds of variants, with fixed weights of both tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        patch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
        tasks = Tasks(Bench(tmp_path_factory.mktemp("together"), tiny("bert")))
        return tasks.run("balancing.balancer=fixed", "balancing.weights={topic=0.5,tone=2.0}", variants=ALL)


def metrics_of(done) -> pd.DataFrame:
    return pd.read_csv(done.path / "metrics.csv")


def test_a_variant_without_a_task_needs_no_weight_of_it_nor_are_its_components_missed(together):
    metrics = metrics_of(together).dropna(subset="split")
    assert set(metrics.loc[metrics["variant"] == "tone-alone", "task"]) == {"tone"}
    for variant, _ in ALL:
        if variant != "tone-alone":
            assert set(metrics.loc[metrics["variant"] == variant, "task"]) == {"topic", "tone"}
    training = pd.read_csv(together.path / "training.csv").set_index(["variant", "task"]).sort_index()
    assert set(training.loc[("both", "topic"), "weight"]) == {0.5}
    assert set(training.loc[("both", "tone"), "weight"]) == {2.0}
    assert set(training.loc[("tone-alone", "tone"), "weight"]) == {1.0}


def test_what_learns_what_runs_and_what_sharing_saves_adds_up(together, tiny):
    counts = metrics_of(together).query("split != split").pivot(index="variant", columns="metric", values="value")
    backbone = {name: part.numel() for name, part in load_file(tiny("bert") / "model.safetensors").items()}
    whole = sum(size for name, size in backbone.items() if "pooler" not in name)
    upper = sum(size for name, size in backbone.items() if re.search(r"layer\.[12]\.", name))
    head = 32 * 8 + 8 + 8 * 2 + 2
    result = {
        "both": upper + 2 * head, "own-states": upper + 2 * head, "tone-alone": upper + head,
        "backbone-frozen": 2 * head, "tone-frozen": upper + head, "upper-frozen": 2 * head,
        "everything": whole + 2 * head,
    }  # fmt: skip
    assert together.backbone_parameters == dict.fromkeys(result, whole)
    saved = {"both": upper, "tone-frozen": upper, "everything": whole}
    for variant, _ in ALL:
        heads = head if variant == "tone-alone" else 2 * head
        assert counts.loc[variant, "trained_parameters"] == result[variant], variant
        assert counts.loc[variant, "parameters"] == whole + heads, variant
        assert counts.loc[variant, "saved_parameters"] == saved.get(variant, 0), variant
    costs = json.loads((together.path / "record.json").read_text("utf-8"))["costs"]
    assert costs.keys() == result.keys()
    assert all(cost["seconds"] > 0 and cost["memory"] > 0 for cost in costs.values())


def test_the_losses_tell_each_tasks_own_metric_whatever_state_is_kept(together):
    training = pd.read_csv(together.path / "training.csv").set_index(["variant", "seed", "task", "epoch"])["value"]
    epochs = pd.read_csv(together.path / "epochs.csv")
    accuracy = epochs[epochs["metric"] == "accuracy"].set_index(["variant", "seed", "task", "epoch"])["value"]
    assert len(training) > 0
    assert training.to_dict() == {key: accuracy[key] for key in training.index}
    assert set(epochs["epoch"]) == {0, 1, 2}


def test_frozen_components_are_told_once_and_only_where_they_are(together):
    frozen = pd.read_csv(together.path / "frozen.csv")
    assert frozen[["variant", "epoch", "component"]].to_numpy().tolist() == [
        ["tone-frozen", 0, "tone"],
        ["upper-frozen", 0, "backbone"],
    ]


def test_comparisons_are_on_the_same_rows_against_the_task_alone(together):
    found = metrics_of(together).dropna(subset="against")
    tone = found[(found["task"] == "tone") & (found["variant"] == "both")]
    assert set(tone["against"]) == {"tone-alone"}
    assert set(found["split"]) == {"test"}
    assert not (found["variant"] == found["against"]).any()


def test_the_run_leaves_no_unfinished_training_and_each_task_as_a_run(together):
    assert [path.name for path in together.path.parent.iterdir()] == [together.path.name]
    for task in ("topic", "tone"):
        assert {"predictions.csv", "recipe.toml", "probe.safetensors"} <= {
            path.name for path in (together.path / "tasks" / task).iterdir()
        }


@pytest.mark.parametrize("balancer", slow_but_first(["gradnorm", "uncertainty", "pcgrad"]))
def test_balancers_that_learn_weigh_and_compare(balancer, tasks):
    done = tasks.run(f"balancing.balancer={balancer}")
    training = pd.read_csv(done.path / "training.csv")
    assert (training["weight"] != 1.0).any()
    conflicts = pd.read_csv(done.path / "conflicts.csv")
    assert conflicts["epoch"].tolist() == [1, 2]
    assert conflicts["cosine"].between(-1, 1).all()


@pytest.mark.parametrize("batches", slow_but_first(["temperature", "round_robin", "proportional"]))
def test_every_order_of_batches_trains_all_tasks(batches, tasks):
    done = tasks.run(f"multitask.schedule={batches}")
    training = pd.read_csv(done.path / "training.csv")
    assert set(training["task"]) == {"topic", "tone"}
    assert training["loss"].notna().any()
    assert done.texts_run > 0


def test_extract_runs_what_every_variant_reads(tasks):
    api.extract(tasks.recipe(*ALL[2:4]), tasks.bench.settings())
    assert tasks.run(variants=ALL[2:4]).texts_run == 0


def test_variants_may_have_tasks_that_the_recipe_leaves_out(tasks):
    variants = (("tone", '"finetune.cut" = 1'), ("both", '"multitask.tasks" = ["topic", "tone"]'))
    done = tasks.run('multitask.tasks=["tone"]', variants=variants)
    assert done.selected == "both"
    assert {row["task"] for row in done.metrics if row["variant"] == "both" and row["split"]} == {"topic", "tone"}


def test_a_variant_of_one_task_has_the_figures_of_a_recipe_of_that_task(tasks):
    variants = (("both", '"multitask.keep" = "each"'), ("tone-alone", '"multitask.tasks" = ["tone"]'))
    together = tasks.run("finetune.cut=frozen", variants=variants)
    head, rest = RECIPE.format(tasks.bench.folder).split("[tasks.topic]")
    path = tasks.bench.folder / "tone.toml"
    path.write_text(f"{head}[train]{rest.split('[train]')[1]}", "utf-8")
    corpus = (f"corpus.path={tasks.bench.folder / 'tone.csv'}", "corpus.columns=sentence,label", "corpus.target=class")
    settings = tasks.bench.settings("train.epochs=2", "finetune.cut=frozen", *corpus)
    alone = api.run(str(path), settings, tasks.bench.runs)
    figures, losses = [], []
    for done, variant in ((together, "tone-alone"), (alone, "probe")):
        rows = [row for row in done.metrics if row["seed"] == 0 and row["variant"] == variant]
        figures.append({(row["split"], row["metric"]): row["value"] for row in rows})
        training = pd.read_csv(done.path / "training.csv")
        losses.append(training.loc[training["variant"] == variant, "loss"].dropna().tolist()[-2:])
    assert figures[0] == figures[1]
    assert {split for split, _ in figures[0]} == {"validation", "test"}
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


ALONE = ["finetune.cut=1", "probe.layers=-1", "probe.mixer=last", "probe.encoder=none", "probe.hidden=0"]
WRONG_ALONE = {
    "run": (["finetune.cut=3"], "has 3 blocks: a cut lies from 0, which freezes the embeddings alone, to 2"),
    "train": ([], "cached latents alone have none: 'run' the recipe"),
    "ablate": ([], "finetune.cut = 1: layers of fine-tuned blocks change during training and cannot be compared"),
    "extract": (["finetune.cut=3"], "has 3 blocks"),
}


def test_layers_beside_are_refused_where_one_layer_is_read(refused):
    settings = refused.bench.of_topics(*ALONE, "finetune.frozen_layers=0")
    code, out, err = refused.bench.command("run", "classify", settings=settings)
    assert (code, out) == (2, "")
    assert 'finetune.frozen_layers has the probe read several layers, and probe.mixer = "last" reads one' in one_line(
        err
    )


def test_layers_of_blocks_that_learn_are_not_compared_task_by_task(tmp_path):
    with pytest.raises(
        SpecError, match=r"cannot be compared; set finetune.cut = \"frozen\", or set multitask.schedule"
    ):
        api.run("layers", ["finetune.cut=4"], tmp_path)


@pytest.mark.parametrize("verb", WRONG_ALONE)
def test_what_blocks_that_learn_for_one_task_cannot_is_one_line(verb, refused):
    more, message = WRONG_ALONE[verb]
    code, out, err = refused.bench.command(verb, "classify", settings=refused.bench.of_topics(*ALONE, *more))
    assert (code, out) == (2, "")
    assert message in one_line(err)


@pytest.mark.parametrize("cut", ["1", "none"])
def test_extract_runs_what_lies_below_the_blocks_and_nothing_where_they_begin_at_the_text(cut, tasks):
    settings = tasks.bench.of_topics(*ALONE, f"finetune.cut={cut}")
    code, out, _ = tasks.bench.command("extract", "classify", settings=settings)
    assert code == 0
    assert bool(list(tasks.bench.folder.rglob("*.h5"))) == (cut == "1")
    assert out.strip()
    done = api.run("classify", [*settings, "train.epochs=1"], tasks.bench.runs, only=["linear"])
    assert done.texts_run == 0


def test_a_study_may_search_the_cut(tasks):
    path = tasks.bench.folder / "search.toml"
    path.write_text(
        '[study]\ntrials = 3\nsampler = "GridSampler"\nseeds = [0]\n[study.space]\n"finetune.cut" = [0, 2, "none"]\n',
        "utf-8",
    )
    settings = tasks.bench.of_topics(*ALONE, "corpus.target=class", "train.epochs=1", "plan.views=mean")
    found, done = api.study(str(path), settings, runs=tasks.bench.runs)
    trials = pd.read_csv(found.folder / "trials.csv")
    assert trials["state"].tolist() == ["COMPLETE"] * 3
    assert found.params["finetune.cut"] in (0, 2, "none")
    assert (done.path / "backbone" / "model.safetensors").is_file()
