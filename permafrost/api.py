"""The Python interface: the verbs of the command line as functions.

A recipe is read and refused without torch; each verb imports :mod:`permafrost.stages` once its recipe is known to be right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress, Silent
from permafrost.probes.config.load import check_trains, load_recipe, load_training, with_folder
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.similarity import with_arguments
from permafrost.probes.results.outcomes import AblationResult, RunResult, SimilarityResult, StudyResult

if TYPE_CHECKING:
    from permafrost.probes.experiments.language_model import PretrainingResult
    from permafrost.probes.inputs.providers import PlanLatents
    from permafrost.probes.prediction.predictor import Predictor, Predictors

Overrides = Iterable[str]
"""``a.b=value`` settings, as after ``--set``."""


def extract(
    recipe: str, overrides: Overrides = (), progress: Progress | None = None
) -> tuple[list[Corpus], list["PlanLatents"]]:
    """Stage one alone: run what is missing of every plan in a recipe; the corpora, and where their latents are."""
    name, loaded = load_training(recipe, overrides)
    check_trains(name, loaded)
    progress = progress or Silent()
    from permafrost import stages

    return stages.extract(stages.with_pretrained_backbone(name, loaded, None, progress), progress)


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> RunResult | SimilarityResult:
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
    name, loaded = load_recipe(recipe, overrides)
    runs, progress = Path(runs), progress or Silent()
    _announce(loaded, only, progress)
    loaded = loaded.only(only)
    if not loaded.similarity.texts:
        check_trains(name, loaded)
    _check_folder(runs)
    from permafrost import stages

    if loaded.similarity.texts:
        return stages.compare(name, loaded, runs, progress)
    return stages.run(name, stages.with_pretrained_backbone(name, loaded, runs, progress), runs, progress, only)


def pretrain(
    recipe: str, overrides: Overrides = (), runs: Path | str = "runs", progress: Progress | None = None
) -> "PretrainingResult":
    """Pretrain the language model of a recipe's table ``[language]``; one that is there already stays as it is.

    It leaves a model folder, which a recipe can name as ``plan.backbone``, and a run folder that says how it went.

    Raises:
        InputError: no such table, no text, another model in the folder, a vocabulary that does not fit, a loss that is
            no number.
        MachineError: the machine failed; the message says what is safe.
    """
    name, loaded = load_recipe(recipe, overrides)
    _check_folder(Path(runs))
    from permafrost import stages

    return stages.pretrain(name, loaded, Path(runs), progress or Silent())


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> RunResult:
    """Like :func:`run`, from cached latents alone: no backbone is found, read or loaded."""
    name, loaded = load_training(recipe, overrides)
    progress = progress or Silent()
    _announce(loaded, only, progress)
    loaded = loaded.only(only)
    _check_folder(Path(runs))
    from permafrost import stages

    return stages.train(name, with_folder(name, loaded), Path(runs), progress, only)


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> AblationResult:
    """Train a recipe's probe, or a variant's, on subsets of its layers, and write a run folder."""
    name, loaded = load_training(recipe, overrides, one_task=True)
    loaded, runs, progress = loaded.select(variant), Path(runs), progress or Silent()
    check_trains(name, loaded)
    _check_folder(runs)
    from permafrost import stages

    return stages.ablate(name, stages.with_pretrained_backbone(name, loaded, runs, progress), runs, progress)


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
) -> tuple[StudyResult, RunResult]:
    """Search a recipe's space, then train the best trial again with several seeds; returns both.

    Args:
        name: of the study; one that is there already goes on. Empty takes the recipe's.
        trials: finished trials the study is to hold in the end; None takes the recipe's.
        storage: SQLAlchemy's address of a database; None keeps a journal file in the study's folder.
    """
    of, loaded = load_training(recipe, overrides, one_task=True)
    loaded, runs, progress = loaded.select(variant), Path(runs), progress or Silent()
    check_trains(of, loaded)
    _check_folder(runs)
    from permafrost import stages

    loaded = stages.with_pretrained_backbone(of, loaded, runs, progress)
    return stages.study(of, loaded, name or of, runs, storage, trials, workers, progress)


def report(path: Path | str) -> Path:
    """Draw the figures and the page of a run, an ablation or a study again, from its tables; returns the page."""
    from permafrost.probes.reports.report import write_report

    return write_report(Path(path))


def load(path: Path | str, task: str = "") -> "Predictor | Predictors":
    """A finished run, ready to predict: all of its tasks, or the one that is named."""
    from permafrost import stages

    return stages.load(Path(path), task)


def similarity(
    texts: Sequence[str] | None = None,
    backbones: Sequence[str] = (),
    pooling: str = "",
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
) -> SimilarityResult:
    """Cosines of every pair of sentences in float32, for each backbone, and a run folder with tables, figures, a page.

    Args:
        texts: at least two; None takes those of the recipe ``similarity``, as what is empty does of the others.
        backbones: sentence encoders; one that cannot be had is left out where others remain.
        pooling: ``mean`` over all tokens, special ones too, or ``cls``, the first token; of the last layer.

    Raises:
        InputError: fewer than two sentences, an empty one, no backbone that can be had.
    """
    name, loaded = load_recipe("similarity", overrides)
    loaded = replace(loaded, similarity=with_arguments(loaded.similarity, texts, backbones, pooling))
    _check_folder(Path(runs))
    from permafrost import stages

    return stages.compare(name, loaded, Path(runs), progress or Silent())


def _announce(recipe: Recipe, only: Sequence[str], progress: Progress) -> None:
    if recipe.duration and not only:  # of some of the variants nobody knows
        progress.note(f"expected time: {recipe.duration}")


def _check_folder(runs: Path) -> None:
    if runs.exists() and not runs.is_dir():  # said now, not after the training
        raise InputError(f"{runs}: a folder is needed here; set --runs to another.")
