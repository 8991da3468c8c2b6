"""permafrost: frozen language models, latents cached by layer, small probes trained on them.

The command line, and a small Python interface of the same verbs::

    import pipeline
    done = pipeline.run("sts", ["plan.backbone=minilm"])
    pipeline.load(done.path).predict([("A dog runs.", "A dog is running.")])

This is where the two stages meet: it hands the latents that ``extract`` wrote to the probes that learn from them.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from data import options
from data.cache_commands import cache_app
from data.corpus import Corpus, CorpusError
from data.errors import InputError
from data.exit_codes import run_to_exit
from data.plan import CapturePlan, ExtractSpec
from data.progress import Progress, Silent
from data.screen import Screen
from data.text import Text
from probes import on_screen
from probes.look_commands import look_app
from probes.predictor import Backbones, Predictor, Predictors

if TYPE_CHECKING:
    from torch.nn import Module

    from data.language import LanguageSpec
    from data.language_model import LanguageModel
    from extract.extraction import Extractor
    from extract.loading import Backbone
    from probes.ablation import Ablated
    from probes.conduct import StageOne
    from probes.inputs import Stored
    from probes.language_run import LanguageRun
    from probes.recipe import Recipe
    from probes.run_recipe import Done
    from probes.runs import LoadedRun
    from probes.session import Studied
    from probes.similarity import Compared
    from probes.trials import Evaluate
    from probes.upper import Below, UpperSpec

Overrides = Iterable[str]


def extract(
    recipe: str, overrides: Overrides = (), progress: Progress | None = None
) -> tuple[list[Corpus], list["Stored"]]:
    """Stage one alone: run what is missing of every plan in a recipe; the corpora, and where their latents are."""
    from probes.conduct import Conductor
    from probes.recipe import load_training

    loaded = _own_backbone(*load_training(recipe, overrides), None, progress or Silent())
    conductor = Conductor(_run_missing, progress or Silent())
    recipes = [one for variant in loaded.expanded().values() for one in (variant.posed() or {"": variant}).values()]
    corpora = {id(corpus): corpus for corpus in (conductor.corpus(one.corpus) for one in recipes)}
    conductor.prepare(recipes)
    return list(corpora.values()), list(conductor.stored.values())


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done | Compared":
    """Extract what is missing, train every variant, evaluate, and write a run folder.

    A recipe that compares sentences trains nothing: its cosines are measured, as by :func:`similarity`.

    Args:
        recipe: the name of a shipped recipe, or the path of your own.
        overrides: ``a.b=value`` settings, as after ``--set``.
        only: the variants to train; empty trains all.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    from probes.recipe import load_recipe

    name, loaded = load_recipe(recipe, overrides)
    _say_expected(loaded, only, progress or Silent())
    if loaded.similarity.texts:
        return _compare(name, loaded.only(only), Path(runs), progress or Silent())
    loaded = _own_backbone(name, loaded.only(only), Path(runs), progress or Silent())
    return _experiment(name, loaded, Path(runs), progress or Silent(), only, _run_missing)


def pretrain(
    recipe: str, overrides: Overrides = (), runs: Path | str = "runs", progress: Progress | None = None
) -> "LanguageRun":
    """Pretrain the language model of a recipe's table ``[language]``; one that is there already stays as it is.

    It leaves a model folder, which a recipe can name as ``plan.backbone``, and a run folder that says how it went.

    Raises:
        InputError: no such table, no text, another model in the folder, a vocabulary that does not fit, a loss that is
            no number.
        MachineError: the machine failed; the message says what is safe.
    """
    from probes.language_run import run_pretraining
    from probes.recipe import load_recipe

    _needs_folder(Path(runs))
    return run_pretraining(*load_recipe(recipe, overrides), Path(runs), progress or Silent(), _pretrained)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done":
    """Like :func:`run`, from cached latents alone: no backbone is found, read or loaded."""
    from probes.cached import find_cached
    from probes.language_run import with_folder
    from probes.recipe import load_training

    name, loaded = load_training(recipe, overrides)
    _say_expected(loaded, only, progress or Silent())
    return _experiment(name, with_folder(name, loaded), Path(runs), progress or Silent(), only, find_cached)


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> "Ablated":
    """Train a recipe's probe, or a variant's, on subsets of its layers, and write a run folder."""
    from probes.ablation import run_ablation
    from probes.recipe import load_training

    name, loaded = load_training(recipe, overrides, one_task=True)
    loaded = _own_backbone(name, loaded.as_one(variant), Path(runs), progress or Silent())
    return run_ablation(name, loaded, Path(runs), progress or Silent(), _run_missing)


def study(
    recipe: str,
    overrides: Overrides = (),
    name: str = "",
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> tuple["Studied", "Done"]:
    """Search a recipe's space, then train the best trial again with several seeds; returns both.

    Args:
        name: of the study; one that is there already goes on. Empty takes the recipe's.
        trials: finished trials the study is to hold in the end; None takes the recipe's.
        storage: SQLAlchemy's address of a database; None keeps a journal file in the study's folder.
    """
    from probes.recipe import load_training
    from probes.run_study import run_study

    progress, runs = progress or Silent(), Path(runs)
    of, loaded = load_training(recipe, overrides, one_task=True)
    loaded = _own_backbone(of, loaded.as_one(variant), runs, progress)
    return run_study(of, loaded, name or of, runs, make_evaluate, storage, trials, workers, progress, _run_missing)


def make_evaluate(recipe: "Recipe", folder: Path) -> "Evaluate":
    """What a worker of a study does with a trial; latents are shared in ``folder``."""
    from probes.conduct import Conductor
    from probes.shared_inputs import SharedInputs

    return Conductor(_run_missing, Silent(), SharedInputs(folder)).evaluate


def report(path: Path | str) -> Path:
    """Draw the figures and the page of a run, an ablation or a study again, from its tables; returns the page."""
    from probes.report import write_report

    return write_report(Path(path))


def load(path: Path | str, task: str = "") -> Predictor | Predictors:
    """A finished run, ready to predict: all of its tasks, or the one that is named."""
    from probes.runs import load_tasks

    backbones = Backbones(_extractor)
    tasks = {name: Predictor(run, backbones) for name, run in load_tasks(Path(path), task).items()}
    return Predictors(tasks) if len(tasks) > 1 else next(iter(tasks.values()))


def similarity(
    texts: Sequence[str] | None = None,
    backbones: Sequence[str] = (),
    pooling: str = "",
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
) -> "Compared":
    """Cosines of every pair of sentences in float32, for each backbone, and a run folder with tables, figures, a page.

    Args:
        texts: at least two; None takes those of the recipe ``similarity``, as what is empty does of the others.
        backbones: sentence encoders; one that cannot be had is left out where others remain.
        pooling: ``mean`` over all tokens, special ones too, or ``cls``, the first token; of the last layer.

    Raises:
        InputError: fewer than two sentences, an empty one, no backbone that can be had.
    """
    from probes.cosines import asked
    from probes.recipe import load_recipe

    name, loaded = load_recipe("similarity", overrides)
    loaded = replace(loaded, similarity=asked(loaded.similarity, texts, backbones, pooling))
    return _compare(name, loaded, Path(runs), progress or Silent())


def _experiment(
    name: str, recipe: "Recipe", runs: Path, progress: Progress, only: Sequence[str], stage_one: "StageOne"
) -> "Done":
    from probes.layers import run_layers
    from probes.run_recipe import run_recipe
    from probes.run_together import run_together

    _needs_folder(runs)
    several = run_layers if recipe.together.batches == "apart" else run_together
    run = several if recipe.tasks else run_recipe
    return run(name, recipe.only(only), runs, progress, stage_one)


def _say_expected(recipe: "Recipe", only: Sequence[str], progress: Progress) -> None:
    if recipe.takes and not only:  # of some of the variants nobody knows
        progress.note(f"expected time: {recipe.takes}")


def _own_backbone(name: str, recipe: "Recipe", runs: Path | None, progress: Progress) -> "Recipe":
    from probes.language_run import with_own_backbone

    if runs:
        _needs_folder(runs)
    return with_own_backbone(name, recipe, runs, progress, _pretrained)


def _compare(name: str, recipe: "Recipe", runs: Path, progress: Progress) -> "Compared":
    from probes.similarity import compare_sentences

    _needs_folder(runs)
    return compare_sentences(name, recipe, runs, progress, _run_missing)


def _needs_folder(runs: Path) -> None:
    if runs.exists() and not runs.is_dir():  # said now, not after the training
        raise InputError(f"{runs}: a folder is needed here; set --runs to another.")


def _pretrained(spec: "LanguageSpec", texts: Sequence[str], folder: Path, progress: Progress) -> "LanguageModel":
    from extract.pretrain import pretrain as pretrain_model

    return pretrain_model(spec, texts, folder, progress)


def _extractor(of: "LoadedRun", name: str, loaded: "Backbone | None") -> "Extractor":
    from extract.extraction import Extractor, same_extractor

    plan, spec = of.captured(name), of.recipe.extract
    if of.upper:
        return Extractor(plan, spec, loaded)
    return same_extractor(plan, spec, of.identities[name], str(of.path), loaded)


class _Backbones:
    """Stage one and the blocks of backbones, as :class:`probes.upper.Backbones` asks for them."""

    def __call__(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> "Stored":
        from extract.extraction import extract as extract_texts
        from probes.inputs import Stored

        done = extract_texts(plan, corpus.texts, spec, progress)
        return Stored(done.store, done.columns, done.texts_run, done.truncated, done.seconds)

    def trunk(self, plan: CapturePlan, spec: "UpperSpec", layers: tuple[int, ...] | str) -> "Module":
        from extract.trunk import Trunk

        assert spec.cut != "frozen"
        return Trunk(plan, spec.cut, layers, spec.dropout, spec.attention_dropout, spec.cached_beside())

    def check(self, plan: CapturePlan, spec: "UpperSpec", layers: tuple[int, ...] | str) -> None:
        from extract.upper import check_cut

        assert spec.cut != "frozen"
        check_cut(plan, spec.cut, layers)

    def ids(self, plan: CapturePlan, texts: Sequence[Text]) -> "Below":
        from extract.ids import read_ids

        return read_ids(plan, texts)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        from extract.identity import digests

        return digests(plan, spec)


_run_missing = _Backbones()

# ---------------------------------------------------------------------------------------------- the command line

app = typer.Typer(
    name="permafrost",
    help="Run a frozen language model over a corpus once, keep its activations by layer, train probes on them.",
    epilog="Start with: pipeline.py run quickstart. Then: pipeline.py recipes, pipeline.py config sts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(look_app)
app.add_typer(cache_app, name="cache")


@app.command("run")
def run_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Extract what is missing, train every variant, evaluate, report.

    Stop it at any time: the same command goes on, with long trainings from their last checkpoint.
    """
    on_screen.show_run(run(recipe, options.changes(set_, max_bytes, strict), runs, Screen(), only or ()), as_json)


@app.command("pretrain")
def pretrain_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Make a small language model from scratch, as [language] says.

    Stop it at any time: the same command goes on. What it leaves is a model folder, for plan.backbone.
    """
    on_screen.show_pretrained(pretrain(recipe, options.changes(set_), runs, Screen()), as_json)


@app.command("train")
def train_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    runs: options.RunsOption = Path("runs"),
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Like run, from cached latents alone. No backbone is needed."""
    on_screen.show_done(train(recipe, options.changes(set_, strict=strict), runs, Screen(), only or ()), as_json)


@app.command("ablate")
def ablate_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    variant: options.VariantOption = "",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train on some of the layers: one alone, all but one, and so on.

    Figures have intervals and a test against the last layer alone; [ablation] says what is trained, controls included.
    """
    on_screen.show_ablated(ablate(recipe, options.changes(set_, max_bytes, strict), runs, Screen(), variant), as_json)


@app.command("study")
def study_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    name: options.StudyName = "",
    trials: options.TrialsOption = None,
    workers: options.WorkersOption = 1,
    storage: options.StorageOption = None,
    variant: options.VariantOption = "",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Search the recipe's [study.space] with Optuna.

    Stop it at any time: the same name goes on. It ends with the best trial trained again, over several seeds.
    """
    overrides = options.changes(set_, max_bytes, strict)
    found, best = study(recipe, overrides, name, trials, workers, storage, runs, Screen(), variant)
    on_screen.show_studied(found, best, as_json)


@app.command("similarity")
def similarity_command(
    texts: options.Sentences = None,
    backbone: options.BackboneOption = None,
    pooling: options.PoolingOption = "",
    file: options.SentencesFile = None,
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    as_json: options.JsonOption = False,
) -> None:
    """Cosines of sentences by sentence encoders, in float32, with heatmaps and maps in three dimensions."""
    from probes.cosines import read_sentences

    if texts and file:
        raise CorpusError("give either sentences or --file FILE to compare.")
    given = read_sentences(file) if file else texts or None
    done = similarity(given, backbone or (), pooling, options.changes(set_, max_bytes), runs, Screen())
    on_screen.show_compared(done, as_json)


@app.command("extract")
def extract_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Stage one alone: run what is missing and store its latents. Safe to stop and to repeat."""
    on_screen.show_extracted(*extract(recipe, options.changes(set_, max_bytes, strict), Screen()), as_json)


@app.command("predict")
def predict_command(
    run_folder: options.RunFolder,
    texts: options.Texts = None,
    file: options.TextsFile = None,
    task: options.TaskOption = "",
    out: options.OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Answer new texts with a finished run.

    A file is read by the columns of the run's corpus, or the usual names: sentence1 and sentence2, premise and
    hypothesis, question and context, sentence, text. If it has the run's target too, that is checked and stands beside
    the answer as target.

    Tasks that learnt together all answer, but for those whose columns the file has not; --task names one.

    A .csv of --out has the columns of the file first, then a column probability_LABEL for each class; of entities, a
    line each, with the number of its item, and one empty line for an item without any; of several tasks, columns
    TASK_label and so on. A .jsonl has one object an item.
    """
    from probes.answer_lines import check_out, joined, write_answers
    from probes.asked import each_from_file, each_from_words

    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    if out:
        check_out(out, file)
    screen, tasks = Screen(), load(run_folder, task).tasks
    runs = {name: one.run for name, one in tasks.items()}
    asked = each_from_file(runs, file) if file else each_from_words(runs, texts or [])
    if left := [name for name in tasks if name not in asked]:
        screen.note(f"left out, for want of what they read: {', '.join(left)}")
    said = {
        name: tasks[name].predict([one.texts for one in items], screen, [one.place for one in items])
        for name, items in asked.items()
    }
    items, answers = joined(asked, said)
    if out:
        write_answers(out, items, answers)
    on_screen.show_predictions(items, answers, out, as_json)


def main() -> NoReturn:
    """The command line; ends the process with the exit code that fits."""
    # Read when torch loads. Threads that spin while they wait make training 20 times slower beside a busy neighbour.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_to_exit(lambda: app(standalone_mode=False))


if __name__ == "__main__":
    main()
