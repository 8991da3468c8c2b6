"""A batch from its plan to its summary; a batch that was stopped or killed goes on where it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permafrost.batches.extraction import extract_batch
from permafrost.batches.outcome import Outcome
from permafrost.batches.plan import BatchItem, ImpossibleError, LoadedItem, load_item, plan_items
from permafrost.batches.spec import BatchSpec, make_batch
from permafrost.batches.summary import summary_rows, write_summary
from permafrost.data.errors import PermafrostError
from permafrost.data.progress import Progress, ProgressOption
from permafrost.data.spec import SpecError
from permafrost.display.choose import display_of
from permafrost.named_runs import PlannedRun
from permafrost.probes.config.load import Overrides
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.run_folder import checked_folder
from permafrost.probes.tracking.registry import check_trackers
from permafrost.probes.variants.latent_workspace import LatentWorkspace
from permafrost.stage_one import PROVIDER


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """Result of a batch: its folder, how every run ended, and the table over all."""

    path: Path
    outcomes: Mapping[str, Outcome]
    """Name of each run -> how it ended."""

    varied: Sequence[str]
    """Columns of the summary that say what varies."""

    rows: list[dict[str, Any]]
    """Rows of ``summary.csv``: the selection metric of the chosen variant of each run and task."""

    texts_run: int
    """Number of texts that ran in the extraction of all runs."""

    @property
    def failed(self) -> dict[str, str]:
        """Name of each run that is not done -> error."""
        return {name: outcome.error for name, outcome in self.outcomes.items() if outcome.error}

    @property
    def exit_code(self) -> int:
        """0 if all runs are done; else 3 if the machine failed in one, or 2."""
        return max((outcome.exit_code for outcome in self.outcomes.values()), default=0)


def run_batch(
    words: Sequence[Path | str] | Path | str = (),
    folder: Path | str = "runs",
    workers: int = 1,
    progress: ProgressOption = None,
    overrides: Overrides = (),
    **keys: Any,
) -> BatchResult:
    """Run every run of a batch that is not done, and write ``summary.csv`` and ``report.html`` over all of them.

    The texts of all runs are extracted first, in one pass for each backbone and plan. Run folders are
    ``<folder>/<name of the batch>/<name of the run>``. A run that fails does not stop the others: see ``failed`` of the
    result.

    Args:
        words: the path of a batch file, or the names or paths of recipes.
        folder: the folder in which that of the batch is written.
        workers: number of processes that train.
        progress: as of :func:`permafrost.api.run`.
        overrides: further settings of all runs, as after ``--set``.
        keys: those of a batch file: ``name``, ``backbones``, ``data``, ``columns``, ``target``, ``set``, ``grid`` and
            ``runs``; they win over those of the file.

    Raises:
        SpecError: a recipe, a key or a name cannot be; nothing has run.
    """
    words = [words] if isinstance(words, Path | str) else words
    spec, progress = make_batch([str(word) for word in words], keys), display_of(progress)
    if workers < 1:
        raise SpecError(f"--workers must be 1 or more, got {workers}.")
    place = Destination(checked_folder(folder), spec.name or default_name(spec))
    items = plan_items(spec, overrides)
    batch = checked_folder(place.folder)
    outcomes = dict[str, Outcome]()
    loaded = [each for item in items if (each := _load(item, outcomes, progress))]
    workspace = LatentWorkspace(PROVIDER, progress)
    done = {each.item.name for each in loaded if _is_done(each, batch, outcomes, workspace, progress)}
    todo = [each for each in loaded if each.item.name not in done and _can_begin(each, outcomes, progress)]
    progress.note(f"batch {place.name}: {len(items):,} runs, {len(done):,} done, {len(todo):,} to do")
    texts_run = 0
    if todo:
        wanted = [each for each in loaded if each.item.name not in outcomes]
        texts_run = extract_batch(wanted, workspace, progress)

        def ended(item: BatchItem, outcome: Outcome) -> None:
            outcomes[item.name] = outcome
            _tell(item.name, outcome, progress)

        from permafrost.batches.execute import execute  # only now: a batch that is done needs no worker

        execute([each.item for each in todo], batch, workers, progress, ended)
    outcomes |= dict.fromkeys(done, Outcome())
    outcomes = {item.name: outcomes[item.name] for item in items}
    varied = list(dict.fromkeys(key for item in items for key in item.varied))
    rows = summary_rows(batch, items, outcomes)
    write_summary(batch, place.name, varied, rows, outcomes)
    return BatchResult(path=batch, outcomes=outcomes, varied=varied, rows=rows, texts_run=texts_run)


def default_name(spec: BatchSpec) -> str:
    """Return the name of a batch that has none: the names of its recipes."""
    names = dict.fromkeys(Path(recipe).stem for recipe in [*spec.recipes, *(run.recipe for run in spec.runs)])
    return f"batch-{'-'.join(names)}"[:100]


def _load(item: BatchItem, outcomes: dict[str, Outcome], progress: Progress) -> LoadedItem | None:
    try:
        return load_item(item)
    except ImpossibleError as impossible:
        outcomes[item.name] = Outcome.of(impossible.args[0])
        _tell(item.name, outcomes[item.name], progress)
        return None


def _is_done(
    loaded: LoadedItem, folder: Path, outcomes: dict[str, Outcome], workspace: LatentWorkspace, progress: Progress
) -> bool:
    """Return whether a run is done; one that cannot be, because another run has its folder, gets its outcome."""
    destination = Destination(folder, loaded.item.name)
    try:
        if not folder.exists():
            return False
        with destination.held():
            return PlannedRun(destination, loaded.recipe, loaded.kind, read_corpus=workspace.corpus).is_done()
    except PermafrostError as error:
        outcomes[loaded.item.name] = Outcome.of(error)
        _tell(loaded.item.name, outcomes[loaded.item.name], progress)
        return False


def _can_begin(loaded: LoadedItem, outcomes: dict[str, Outcome], progress: Progress) -> bool:
    """Return whether a run has not ended yet, and its trackers are installed; else it gets its outcome."""
    name = loaded.item.name
    if name not in outcomes:
        try:
            check_trackers(loaded.recipe)
        except PermafrostError as error:
            outcomes[name] = Outcome.of(error)
            _tell(name, outcomes[name], progress)
    return name not in outcomes


def _tell(name: str, outcome: Outcome, progress: Progress) -> None:
    if not outcome.error:
        progress.event("done", member=name)
        progress.note(f"{name}: done")
        return
    progress.event("failed", member=name, exit_code=outcome.exit_code, message=outcome.error)
    progress.note(f"{name} failed: {outcome.error}; the others go on")
    if outcome.trace:
        progress.note(outcome.trace)
