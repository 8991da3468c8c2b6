"""Study of a recipe: extraction, search, report of the search, and the best trial trained again with several seeds."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError, plain, to_toml
from permafrost.probes.config.load import load_recipe
from permafrost.probes.config.names import BEST, PROBE
from permafrost.probes.config.recipe import Recipe, Variant, with_variant
from permafrost.probes.experiments.checks import resolve_problems
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.outcomes import RunResult, StudyResult, StudyRun
from permafrost.probes.runs.write import RunWriter, write_tables
from permafrost.probes.search.session import searched
from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import MakeEvaluate, best_recipe, check_space
from permafrost.probes.tracking.tracking import Tracking
from permafrost.probes.variants.record import data_record, latent_stores
from permafrost.probes.variants.workspace import Workspace


def run_study(
    name: str,
    recipe: Recipe,
    study_name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None,
    trials: int | None,
    workers: int,
    progress: Progress,
    provider: LatentProvider,
    train_best: Callable[[Recipe], RunResult],
    again: bool = False,
) -> StudyRun:
    """Search a recipe's space, then train the best trial again; a killed training goes on from its checkpoint.

    Args:
        name: name of the recipe.
        provider: of the latents, for the search.
        train_best: runs the recipe of the best trial.

    The other arguments are those of :func:`permafrost.probes.search.session.searched`.

    Raises:
        StudyElsewhere: the study has enough trials, and another session writes its end.
    """
    check_space(recipe)
    folder = runs / f"study-{study_name}"
    tracking = Tracking(folder.name, "study", recipe, lambda: folder, progress)
    writer, workspace = RunWriter(runs, study_name, recipe, "study"), Workspace(provider, progress)
    problem = resolve_problems({name: recipe}, workspace)[PROBE]
    _check_choices(recipe, workspace)
    workspace.prepare([recipe])
    data = data_record([problem.corpus], latent_stores({name: recipe}, workspace), workspace.stored.values())

    with ExitStack() as stack:
        with tracking:
            settings = (recipe, study_name, runs, make_evaluate, storage, trials, workers, tracking.progress, again)
            search = stack.enter_context(searched(*settings))
            if not search.elsewhere:
                record = {"metric": problem.metric} | data | dict(search.settings)
                study = write_study(folder, search.trial_log, recipe, writer, record, progress)
                facts = {"trials": study.trials, "number": study.number, "value": study.value}
                tracking.progress.event("searched", run=str(folder), **facts)
        if search.elsewhere:
            raise search.elsewhere
        progress.note(f"best of {study.trials:,} trials: number {study.number}, {study.value:.4f}; training it again")
        _, best = load_recipe(str(study.recipe))
        return StudyRun(study, train_best(best))


def _check_choices(recipe: Recipe, workspace: Workspace) -> None:
    """Raise :class:`SpecError` if the task of the corpus has no such loss or head as the search space offers."""
    for key, dimension in recipe.study.ranges().items():
        for value in dimension.extremes():
            try:
                workspace.problem(with_variant(recipe, Variant("trial", {key: value})))
            except SpecError as error:
                raise SpecError(f"study.space: '{key}' cannot be {plain(value)!r}: {error}") from error


def write_study(
    folder: Path, trial_log: TrialLog, recipe: Recipe, writer: RunWriter, record: Mapping[str, Any], progress: Progress
) -> StudyResult:
    """Write the folder of a study: the trials of all sessions, and the best one as a recipe.

    Raises:
        SpecError: no trial is complete.
    """
    name = folder.name.removeprefix("study-")
    rows, best = trial_log.rows(), trial_log.best()
    importances = trial_log.importances()
    if not importances:
        progress.note("no importances: they take two searched settings and two complete trials that differ")
    tables = {
        "trials": pd.DataFrame(rows),
        "intermediate": pd.DataFrame(trial_log.intermediate(), columns=["trial", "step", "value"]),
        "importances": pd.DataFrame(list(importances.items()), columns=["parameter", "importance"]),
    }
    reasons = [row["reason"] for row in rows if row["reason"]]
    if best is None:
        write_tables(folder, tables, keep_empty=True)
        last = (reasons or ["all were pruned"])[-1]
        raise SpecError(f"no trial of study '{name}' could be completed; the last: {last}")
    finished = sum(row["state"] in ("COMPLETE", "PRUNED") for row in rows)
    summary = f"Best of study {name}: trial {best.number} of {finished}, {best.value:.4f} on validation."
    params = {key: plain(dimension.decode(best.params[key])) for key, dimension in recipe.study.ranges().items()}
    about = {
        "study": name,
        "sampler": recipe.study.sampler,
        "pruner": recipe.study.pruner,
        "seed": recipe.study.seed,
        "trials": finished,
        "refused": len(reasons),
        "retried": sum(row["retry_of"] is not None for row in rows),
        "best": {"number": best.number, "value": best.value, "params": params},
        "seconds": {"session": writer.seconds, "trials": sum(row["seconds"] or 0 for row in rows)},
    }
    best_toml = to_toml(best_recipe(recipe, summary, best.params))
    writer.rewrite(folder, dict(record) | about, tables, {BEST: best_toml})
    return StudyResult(
        study=name,
        folder=folder,
        trials=finished,
        refused=len(reasons),
        number=best.number,
        value=best.value,
        params=params,
        recipe=folder / BEST,
        seconds=writer.seconds,
    )
