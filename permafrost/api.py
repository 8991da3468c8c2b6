"""The Python interface: the verbs of the command line as functions.

Reading and refusing a recipe needs no torch; each verb imports what it runs once its recipe is known to be right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress, Silent
from permafrost.probes.prediction.predictor import Backbones, Predictor, Predictors
from permafrost.stages import PROVIDER, make_extractor, pretrain_backbone

if TYPE_CHECKING:
    from permafrost.probes.config.recipe import Recipe
    from permafrost.probes.experiments.ablation import Ablated
    from permafrost.probes.experiments.language_model import LanguageRun
    from permafrost.probes.experiments.run import Done
    from permafrost.probes.experiments.similarity import Compared
    from permafrost.probes.inputs.stage_one import Stored
    from permafrost.probes.search.session import Studied
    from permafrost.probes.search.trials import Evaluate
    from permafrost.probes.variants.workspace import StageOne


Overrides = Iterable[str]


def extract(
    recipe: str, overrides: Overrides = (), progress: Progress | None = None
) -> tuple[list[Corpus], list["Stored"]]:
    """Stage one alone: run what is missing of every plan in a recipe; the corpora, and where their latents are."""
    from permafrost.probes.config.recipe import load_training
    from permafrost.probes.variants.workspace import Conductor

    loaded = _own_backbone(*load_training(recipe, overrides), None, progress or Silent())
    conductor = Conductor(PROVIDER, progress or Silent())
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
    from permafrost.probes.config.recipe import load_recipe

    name, loaded = load_recipe(recipe, overrides)
    _say_expected(loaded, only, progress or Silent())
    if loaded.similarity.texts:
        return _compare(name, loaded.only(only), Path(runs), progress or Silent())
    loaded = _own_backbone(name, loaded.only(only), Path(runs), progress or Silent())
    return _experiment(name, loaded, Path(runs), progress or Silent(), only, PROVIDER)


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
    from permafrost.probes.config.recipe import load_recipe
    from permafrost.probes.experiments.language_model import run_pretraining

    _needs_folder(Path(runs))
    return run_pretraining(*load_recipe(recipe, overrides), Path(runs), progress or Silent(), pretrain_backbone)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done":
    """Like :func:`run`, from cached latents alone: no backbone is found, read or loaded."""
    from permafrost.probes.config.recipe import load_training
    from permafrost.probes.experiments.language_model import with_folder
    from permafrost.probes.inputs.stage_one import find_cached

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
    from permafrost.probes.config.recipe import load_training
    from permafrost.probes.experiments.ablation import run_ablation

    name, loaded = load_training(recipe, overrides, one_task=True)
    loaded = _own_backbone(name, loaded.as_one(variant), Path(runs), progress or Silent())
    return run_ablation(name, loaded, Path(runs), progress or Silent(), PROVIDER)


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
    from permafrost.probes.config.recipe import load_training
    from permafrost.probes.experiments.study import run_study

    progress, runs = progress or Silent(), Path(runs)
    of, loaded = load_training(recipe, overrides, one_task=True)
    loaded = _own_backbone(of, loaded.as_one(variant), runs, progress)
    return run_study(of, loaded, name or of, runs, make_evaluate, storage, trials, workers, progress, PROVIDER)


def make_evaluate(recipe: "Recipe", folder: Path) -> "Evaluate":
    """What a worker of a study does with a trial; latents are shared in ``folder``."""
    from permafrost.probes.inputs.shared_memory import SharedInputs
    from permafrost.probes.variants.workspace import Conductor

    return Conductor(PROVIDER, Silent(), SharedInputs(folder)).evaluate


def report(path: Path | str) -> Path:
    """Draw the figures and the page of a run, an ablation or a study again, from its tables; returns the page."""
    from permafrost.probes.reports.report import write_report

    return write_report(Path(path))


def load(path: Path | str, task: str = "") -> Predictor | Predictors:
    """A finished run, ready to predict: all of its tasks, or the one that is named."""
    from permafrost.probes.runs.load import load_tasks

    backbones = Backbones(make_extractor)
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
    from permafrost.probes.config.recipe import load_recipe
    from permafrost.probes.config.similarity import asked

    name, loaded = load_recipe("similarity", overrides)
    loaded = replace(loaded, similarity=asked(loaded.similarity, texts, backbones, pooling))
    return _compare(name, loaded, Path(runs), progress or Silent())


def _experiment(
    name: str, recipe: "Recipe", runs: Path, progress: Progress, only: Sequence[str], stage_one: "StageOne"
) -> "Done":
    from permafrost.probes.experiments.layers import run_layers
    from permafrost.probes.experiments.run import run_recipe
    from permafrost.probes.experiments.run_multitask import run_together

    _needs_folder(runs)
    several = run_layers if recipe.together.batches == "apart" else run_together
    run = several if recipe.tasks else run_recipe
    return run(name, recipe.only(only), runs, progress, stage_one)


def _say_expected(recipe: "Recipe", only: Sequence[str], progress: Progress) -> None:
    if recipe.takes and not only:  # of some of the variants nobody knows
        progress.note(f"expected time: {recipe.takes}")


def _own_backbone(name: str, recipe: "Recipe", runs: Path | None, progress: Progress) -> "Recipe":
    from permafrost.probes.experiments.language_model import with_own_backbone

    if runs:
        _needs_folder(runs)
    return with_own_backbone(name, recipe, runs, progress, pretrain_backbone)


def _compare(name: str, recipe: "Recipe", runs: Path, progress: Progress) -> "Compared":
    from permafrost.probes.experiments.similarity import compare_sentences

    _needs_folder(runs)
    return compare_sentences(name, recipe, runs, progress, PROVIDER)


def _needs_folder(runs: Path) -> None:
    if runs.exists() and not runs.is_dir():  # said now, not after the training
        raise InputError(f"{runs}: a folder is needed here; set --runs to another.")
