"""The Python interface: the commands of the command line as functions.

Reading and refusing a recipe needs no torch, so each function imports what loads torch only after its recipe has been
checked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.progress import NoProgress, Progress
from permafrost.probes.config.load import (
    check_frozen,
    check_language_model,
    check_trainable,
    load_one_task,
    load_recipe,
    load_training,
    resolve_language_model,
)
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.similarity import with_arguments
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult
from permafrost.probes.results.run_folder import ReportError, RunError, RunFolder, checked_folder
from permafrost.probes.search.trials import check_study
from permafrost.user_data import Data, DataArguments, load_with_data

if TYPE_CHECKING:  # these load torch or numpy
    from permafrost.data.corpora.corpus import Corpus
    from permafrost.data.store.store import PlanLatents
    from permafrost.finished_run import FinishedRun
    from permafrost.probes.experiments.language_model import PretrainingResult

Overrides = Iterable[str]
"""``a.b=value`` settings, as after ``--set``."""


def extract(
    recipe: str,
    overrides: Overrides = (),
    progress: Progress | None = None,
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> tuple[list["Corpus"], list["PlanLatents"]]:
    """Run stage one alone: extract the latents of every capture plan in a recipe that are not cached yet.

    Returns:
        the corpora of the recipe, and the latents of each plan.
    """
    progress = progress or NoProgress()
    recipe_name, spec = load_with_data(load_training, recipe, overrides, DataArguments(data, columns, target))
    check_trainable(recipe_name, spec)
    from permafrost.probes.variants.latent_workspace import LatentWorkspace
    from permafrost.stage_one import PROVIDER, with_pretrained_backbone

    spec = with_pretrained_backbone(recipe_name, spec, None, progress)
    workspace = LatentWorkspace(PROVIDER, progress)
    task_recipes = [task for variant in spec.variant_recipes().values() for task in variant.task_recipes().values()]
    corpora = {id(corpus): corpus for corpus in (workspace.corpus(task.corpus) for task in task_recipes)}
    workspace.prepare(task_recipes)
    return list(corpora.values()), list(workspace.stored.values())


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> RunResult | SimilarityResult:
    """Extract latents that are not cached yet, train every variant, evaluate, and write a run folder.

    A recipe with ``similarity.texts`` trains nothing: its sentences are compared, as by :func:`similarity`.

    Args:
        recipe: the name of a recipe that ships, or the path of your own.
        overrides: ``a.b=value`` settings, as after ``--set``.
        runs: the folder in which the run folder is written.
        progress: receives notices and bars; None is silent.
        only: the variants to train; empty trains all.
        data: takes the place of the recipe's corpus: a file, a folder, the name of a corpus, the id of a hub data set,
            a pandas or ``datasets`` table, or a list of texts, tuples or dicts.
        columns: as ``corpus.columns``; empty finds them.
        target: as ``corpus.target``; empty finds it.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    progress = progress or NoProgress()
    recipe_name, spec = load_with_data(load_recipe, recipe, overrides, DataArguments(data, columns, target), progress)
    spec = _select_variants(spec, only, progress)
    if spec.similarity.texts:
        return _compare(recipe_name, spec, runs, progress)
    check_trainable(recipe_name, spec)
    runs = checked_folder(runs)
    from permafrost.stage_one import with_pretrained_backbone
    from permafrost.stages import train_probes

    return train_probes(recipe_name, with_pretrained_backbone(recipe_name, spec, runs, progress), runs, progress)


def pretrain(
    recipe: str, overrides: Overrides = (), runs: Path | str = "runs", progress: Progress | None = None
) -> "PretrainingResult":
    """Pretrain the language model that a recipe's table ``[language]`` describes, unless its folder holds it already.

    Writes a model folder, which a recipe can name as ``plan.backbone``, and a run folder with losses and metrics.

    Raises:
        InputError: the table or the text is missing, the folder holds another model, the vocabulary does not fit, or
            the loss is not finite.
        MachineError: the machine failed; the message says what is safe.
    """
    recipe_name, spec = load_recipe(recipe, overrides)
    check_language_model(recipe_name, spec)
    runs = checked_folder(runs)
    from permafrost.extract.pretraining.pretrain import pretrain as pretrain_model
    from permafrost.probes.experiments.language_model import run_pretraining

    return run_pretraining(recipe_name, spec, runs, progress or NoProgress(), pretrain_model)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> RunResult:
    """Train and evaluate like :func:`run`, from cached latents alone: no backbone is located or loaded."""
    progress = progress or NoProgress()
    recipe_name, spec = load_with_data(load_training, recipe, overrides, DataArguments(data, columns, target), progress)
    spec = _select_variants(spec, only, progress)
    runs = checked_folder(runs)
    from permafrost.probes.inputs.providers import CacheProvider
    from permafrost.stages import train_probes

    return train_probes(recipe_name, resolve_language_model(recipe_name, spec), runs, progress, CacheProvider())


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> RunResult:
    """Train the probe of a recipe, or of one of its variants, on subsets of its layers, and write a run folder."""
    progress = progress or NoProgress()
    arguments = DataArguments(data, columns, target)
    recipe_name, spec = load_with_data(load_one_task, recipe, overrides, arguments, progress)
    spec = spec.select_variant(variant)
    check_trainable(recipe_name, spec)
    check_frozen(spec)
    runs = checked_folder(runs)
    from permafrost.probes.experiments.ablation import run_ablation
    from permafrost.stage_one import PROVIDER, with_pretrained_backbone

    spec = with_pretrained_backbone(recipe_name, spec, runs, progress)
    return run_ablation(recipe_name, spec, runs, progress, PROVIDER)


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
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> tuple[StudyResult, RunResult]:
    """Search the space of a recipe, then train the best trial again with several seeds.

    Args:
        name: name of the study; a study of this name is continued. Empty: the name of the recipe.
        trials: number of finished trials in total, earlier ones included. None: the recipe's.
        workers: number of processes that train trials.
        storage: SQLAlchemy URL of a database. None: a journal file in the folder of the study.
        variant: the variant whose settings are searched; empty: the recipe's own.

    Returns:
        the result of the study, and that of the run of its best trial.
    """
    progress = progress or NoProgress()
    arguments = DataArguments(data, columns, target)
    recipe_name, spec = load_with_data(load_one_task, recipe, overrides, arguments, progress)
    spec, name = spec.select_variant(variant), name or recipe_name
    check_trainable(recipe_name, spec)
    check_study(spec, name, trials, workers, storage)
    runs = checked_folder(runs)
    from permafrost.probes.experiments.study import run_study
    from permafrost.stage_one import PROVIDER, with_pretrained_backbone
    from permafrost.stages import make_evaluate

    spec = with_pretrained_backbone(recipe_name, spec, runs, progress)
    return run_study(recipe_name, spec, name, runs, make_evaluate, storage, trials, workers, progress, PROVIDER)


def report(path: Path | str) -> Path:
    """Draw the figures and the page of a finished run again from its tables; return the path of the page."""
    RunFolder(Path(path), ReportError)
    from permafrost.probes.reports.report import write_report  # loads matplotlib and pandas

    return write_report(Path(path))


def load(path: Path | str, task: str = "", backbone: str = "") -> "FinishedRun":
    """Load a finished run that can predict and be evaluated: all of its tasks, or the task that is named.

    Args:
        backbone: place of the run's backbone, a folder, a short name or a hub id, if it is not where it was; its
            weights and tokenizer must be those that the run was trained on.
    """
    RunFolder(Path(path), RunError)
    from permafrost.finished_run import FinishedRun

    return FinishedRun(Path(path), task, backbone)


def similarity(
    texts: Sequence[str] | None = None,
    backbones: Sequence[str] = (),
    pooling: str = "",
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
) -> SimilarityResult:
    """Compute the cosine of every pair of sentences in float32, for each backbone, and write a run folder.

    Args:
        texts: two or more sentences. None: those of the recipe ``similarity``.
        backbones: sentence encoders. One that cannot be located is left out if others remain. Empty: the recipe's.
        pooling: of the last layer: ``mean`` over all tokens, special tokens included, or ``cls``, the first token.
            Empty: the recipe's.

    Raises:
        InputError: there are fewer than two sentences, one is empty, or no backbone can be located.
    """
    recipe_name, spec = load_recipe("similarity", overrides)
    spec = replace(spec, similarity=with_arguments(spec.similarity, texts, backbones, pooling))
    return _compare(recipe_name, spec, runs, progress or NoProgress())


def _compare(name: str, recipe: Recipe, runs: Path | str, progress: Progress) -> SimilarityResult:
    runs = checked_folder(runs)
    from permafrost.probes.experiments.similarity import compare_sentences
    from permafrost.stage_one import PROVIDER

    return compare_sentences(name, recipe, runs, progress, PROVIDER)


def _select_variants(recipe: Recipe, only: Sequence[str], progress: Progress) -> Recipe:
    if recipe.duration and not only:  # it is the time of all variants
        progress.note(f"expected time: {recipe.duration}")
    return recipe.select_variants(only)
