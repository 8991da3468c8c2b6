"""The Python interface: the commands of the command line as functions.

Reading and refusing a recipe needs no torch, so each function imports what loads torch only after its recipe has been
checked.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.progress import Progress, ProgressOption
from permafrost.display.choose import display_of
from permafrost.encoders import compare, pretrain, similarity
from permafrost.named_runs import IfDone, PlannedRun, kind_of_run
from permafrost.probes.config.load import (
    Overrides,
    check_frozen,
    check_trainable,
    load_one_task,
    load_recipe,
    load_training,
    resolve_language_model,
)
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyRun
from permafrost.probes.results.read_result import read_result
from permafrost.probes.results.run_folder import ReportError, RunError, RunFolder, checked_folder
from permafrost.probes.search.trials import check_study
from permafrost.probes.tracking.registry import check_trackers
from permafrost.user_data import Data, DataArguments, load_with_data

if TYPE_CHECKING:  # these load torch or numpy
    from permafrost.data.corpora.corpus import Corpus
    from permafrost.data.store.store import PlanLatents
    from permafrost.data.streams.texts import TextStream
    from permafrost.extract.distributed.distribution import Distribution
    from permafrost.finished_run import FinishedRun

__all__ = ["ablate", "extract", "load", "pretrain", "report", "run", "similarity", "study", "train"]


def extract(
    recipe: str,
    overrides: Overrides = (),
    progress: ProgressOption = None,
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
    shard: "str | tuple[int, int] | Distribution | None" = None,
) -> tuple[list["Corpus | TextStream"], list["PlanLatents"]]:
    """Run stage one alone: extract the latents of every capture plan in a recipe that are not cached yet.

    Args:
        shard: the part of one worker of several, ``(i, n)`` or ``"i/n"`` with i from 0, ``"auto"``, which takes it from
            the environment of torchrun or SLURM, or a distribution of your own; None runs all.

    Returns:
        the corpora of the recipe, and the latents of each plan. Of a corpus with more than ``extract.block_texts``
        texts a stream of them, which reads the files anew: it is never held in memory.
    """
    progress = display_of(progress)
    if isinstance(shard, str | tuple):
        from permafrost.extract.distributed.shards import ShardOfPacks, parse_shard

        shard = ShardOfPacks(parse_shard(shard))
    recipe_name, spec = load_with_data(load_training, recipe, overrides, DataArguments(data, columns, target))
    check_trainable(recipe_name, spec)
    from permafrost.stage_one import extract_recipe

    return extract_recipe(recipe_name, spec, progress, shard)


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: ProgressOption = None,
    only: Sequence[str] = (),
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
    name: str = "",
    if_done: IfDone = "skip",
) -> RunResult | SimilarityResult:
    """Extract latents that are not cached yet, train every variant, evaluate, and write a run folder.

    A recipe with ``similarity.texts`` trains nothing: its sentences are compared, as by :func:`similarity`.

    Args:
        recipe: the name of a recipe that ships, or the path of your own.
        overrides: ``a.b=value`` settings, as after ``--set``.
        runs: the folder in which the run folder is written.
        progress: True shows notices and bars, False does not, None does in a notebook only, or as
            :func:`permafrost.show_progress` says; or a display of your own.
        only: the variants to train; empty trains all.
        data: takes the place of the recipe's corpus: a file, a folder, the name of a corpus, the id of a hub data set,
            a pandas or ``datasets`` table, or a list of texts, tuples or dicts.
        columns: as ``corpus.columns``; empty finds them.
        target: as ``corpus.target``; empty finds it.
        name: name of the run folder; empty takes that of the recipe and a number.
        if_done: what a finished run of this name, recipe, data and versions is: returned at once ("skip"), replaced by
            a new one ("again"), or an error ("fail").

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong, or ``name`` is that of another run.
        MachineError: the machine failed; the message says what is safe.
    """
    progress = display_of(progress)
    recipe_name, spec = load_with_data(load_recipe, recipe, overrides, DataArguments(data, columns, target), progress)
    spec = _select_variants(spec, only, progress)
    if spec.similarity.texts:
        return compare(recipe_name, spec, runs, progress, name, if_done)
    check_trainable(recipe_name, spec)
    runs = checked_folder(runs)

    def work(destination: Destination) -> RunResult:
        check_trackers(spec)
        from permafrost.stage_one import with_pretrained_backbone
        from permafrost.stages import train_probes

        with_backbone = with_pretrained_backbone(recipe_name, spec, runs, progress)
        return train_probes(recipe_name, with_backbone, destination, progress)

    planned = PlannedRun(Destination(runs, name), resolve_language_model(recipe_name, spec), kind_of_run(spec), if_done)
    return planned.run(work, read_result, progress)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: ProgressOption = None,
    only: Sequence[str] = (),
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
    name: str = "",
    if_done: IfDone = "skip",
) -> RunResult:
    """Train and evaluate like :func:`run`, from cached latents alone: no backbone is located or loaded."""
    progress = display_of(progress)
    recipe_name, spec = load_with_data(load_training, recipe, overrides, DataArguments(data, columns, target), progress)
    spec = _select_variants(spec, only, progress)
    spec = resolve_language_model(recipe_name, spec)

    def work(destination: Destination) -> RunResult:
        check_trackers(spec)
        from permafrost.probes.inputs.providers import CacheProvider
        from permafrost.stages import train_probes

        return train_probes(recipe_name, spec, destination, progress, CacheProvider())

    planned = PlannedRun(Destination(checked_folder(runs), name), spec, kind_of_run(spec), if_done)
    return planned.run(work, read_result, progress)


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: ProgressOption = None,
    variant: str = "",
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
    name: str = "",
    if_done: IfDone = "skip",
) -> RunResult:
    """Train the probe of a recipe, or of one of its variants, on subsets of its layers, and write a run folder."""
    progress = display_of(progress)
    arguments = DataArguments(data, columns, target)
    recipe_name, spec = load_with_data(load_one_task, recipe, overrides, arguments, progress)
    spec = spec.select_variant(variant)
    check_trainable(recipe_name, spec)
    check_frozen(spec)
    runs, spec = checked_folder(runs), replace(spec, variants=())

    def work(destination: Destination) -> RunResult:
        check_trackers(spec)
        from permafrost.probes.experiments.ablation import run_ablation
        from permafrost.stage_one import PROVIDER, with_pretrained_backbone

        with_backbone = with_pretrained_backbone(recipe_name, spec, destination.runs, progress)
        return run_ablation(recipe_name, with_backbone, destination, progress, PROVIDER)

    planned = PlannedRun(Destination(runs, name), resolve_language_model(recipe_name, spec), "ablation", if_done)
    return planned.run(work, read_result, progress)


def study(
    recipe: str,
    overrides: Overrides = (),
    name: str = "",
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    runs: Path | str = "runs",
    progress: ProgressOption = None,
    variant: str = "",
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
    if_done: IfDone = "skip",
) -> StudyRun:
    """Search the space of a recipe, then train the best trial again with several seeds.

    Args:
        name: name of the study; a study of this name is continued, and the run of its best trial is ``<name>-best``.
            Empty: the name of the recipe; each run of its best trial has a number.
        trials: number of finished trials in total, earlier ones included. None: the recipe's.
        workers: number of processes that train trials.
        storage: SQLAlchemy URL of a database; several hosts may run a study in a PostgreSQL database at once. None: a
            journal file in the folder of the study.
        variant: the variant whose settings are searched; empty: the recipe's own.
        if_done: as of :func:`run`, for the run of the best trial; and for the results of the study if another host has
            written them.

    Returns:
        the result of the study, and that of the run of its best trial.

    Raises:
        StudyElsewhere: the study is complete, and another host writes its results, or wrote them.
    """
    progress = display_of(progress)
    arguments = DataArguments(data, columns, target)
    recipe_name, spec = load_with_data(load_one_task, recipe, overrides, arguments, progress)
    destination = Destination(checked_folder(runs), name and f"{name}-best")
    spec, name = spec.select_variant(variant), name or recipe_name
    check_trainable(recipe_name, spec)
    check_study(spec, name, trials, workers, storage)
    check_trackers(spec)
    from permafrost.probes.experiments.run import run_recipe
    from permafrost.probes.experiments.study import run_study
    from permafrost.stage_one import PROVIDER, with_pretrained_backbone
    from permafrost.stages import make_evaluate

    runs = destination.runs
    spec = with_pretrained_backbone(recipe_name, spec, runs, progress)

    def train_best(best: Recipe) -> RunResult:
        planned = PlannedRun(destination, best, "run", if_done, replaces=True)
        run_best = partial(run_recipe, f"{name}-best", best, progress=progress, provider=PROVIDER)
        return planned.run(run_best, read_result, progress)

    search = (recipe_name, spec, name, runs, make_evaluate, storage, trials, workers, progress)
    return run_study(*search, PROVIDER, train_best, if_done == "again")


def report(path: Path | str, *others: Path | str, out: Path | str = "compare.html") -> Path:
    """Draw the figures and the page of a finished run again from its tables, or compare several runs on one page.

    Args:
        others: further runs.
        out: where the page that compares several runs is written.

    Returns:
        the path of the page.
    """
    folders = [Path(path), *map(Path, others)]
    for folder in folders:
        RunFolder(folder, ReportError)
    if others:
        from permafrost.probes.reports import compare  # loads matplotlib and pandas

        return compare.write_comparison(compare.comparison(folders), Path(out), compare.settings_grid(folders))
    from permafrost.probes.reports.report import write_report

    return write_report(folders[0])


def load(path: Path | str, task: str = "", backbone: str = "", device: str = "") -> "FinishedRun":
    """Load a finished run that can predict and be evaluated: all of its tasks, or the task that is named.

    Args:
        backbone: place of the run's backbone, a folder, a short name or a hub id, if it is not where it was; its
            weights and tokenizer must be those that the run was trained on.
        device: where it predicts, as the setting ``device``; empty takes that of the run, or "auto" if this machine
            has no such device.
    """
    RunFolder(Path(path), RunError)
    from permafrost.finished_run import FinishedRun

    return FinishedRun(Path(path), task, backbone, device)


def _select_variants(recipe: Recipe, only: Sequence[str], progress: Progress) -> Recipe:
    if recipe.duration and not only:  # it is the time of all variants
        progress.note(f"expected time: {recipe.duration}")
    return recipe.select_variants(only)
