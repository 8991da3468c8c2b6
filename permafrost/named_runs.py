"""Runs with a name: whether the run of a name is done, so that the command need not run; nothing here loads torch.

A run is done if its folder holds the same recipe, the same texts and targets, and was written by the same versions; an
evaluation, if it is of the same runs and rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError
from permafrost.data.machine import package_version
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.spec import Tree, differences, fingerprint, flatten_settings, plain
from permafrost.probes.config.load import Overrides, load_one_task, resolve_language_model
from permafrost.probes.config.names import RECIPE, RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.differences import VERSIONS
from permafrost.probes.results.outcomes import RunResult, StudyResult
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.results.read_result import read_recipe, read_result, read_study
from permafrost.probes.results.run_folder import RunError, RunFolder, checked_folder
from permafrost.probes.search.trials import check_study, largest_search, study_identity
from permafrost.user_data import Data, DataArguments, load_with_data

IfDone = Literal["skip", "again", "fail"]
"""What a command does if the run that it is to write is done."""

if TYPE_CHECKING:  # loads numpy
    from permafrost.data.corpora.corpus import Corpus

T = TypeVar("T")


def kind_of_run(recipe: Recipe) -> str:
    """Return what ``run`` writes for a recipe that trains: the value of ``experiment`` in the record."""
    if not recipe.tasks:
        return "run"
    return "layers" if recipe.multitask.schedule == "separate" else "multitask"


class NamedRun(ABC):
    """A run folder that a command is to write, if it is not done."""

    destination: Destination
    kind: str
    """``experiment`` in the record."""

    if_done: IfDone
    replaces: bool = False
    """Whether the run takes the place of one with other settings, as the best of a study does, or refuses to."""

    @abstractmethod
    def _settings(self, folder: RunFolder) -> tuple[Tree, Tree]:
        """Return the settings of the run in a folder of this kind, and those of this run."""

    @abstractmethod
    def _digests(self, folder: RunFolder) -> tuple[dict[str, str], dict[str, str]]:
        """Return what was read -> its digest, of the run in a folder and of this run."""

    def run(self, work: Callable[[Destination], T], read: Callable[[Path], T], progress: Progress) -> T:
        """Return the result of ``work``, or that of the run as it is read from its folder if it is done.

        Raises:
            InputError: the name is that of another run, or ``if_done`` is "fail" and the run is done.
        """
        if not self.destination.name:
            return work(self.destination)
        with self.destination.held():
            if not self.is_done():
                return work(self.destination)
            if self.if_done == "fail":
                raise InputError(f"{self.destination.folder} is done; use --if-done skip or again, or another --name.")
            if self.if_done == "again":
                return work(self.destination)
            progress.event("skipped", run=str(self.destination.folder))
            progress.note(f"{self.destination.folder} is done: the same recipe, data and versions")
            return read(self.destination.folder)

    def is_done(self) -> bool:
        """Return whether the run folder is there and is that of this run.

        Raises:
            InputError: it is that of another run, or ``if_done`` is not "again" and it was made of other data or by
                other versions.
            DamageError: a file differs from what the run wrote.
        """
        path = self.destination.folder
        if not _holds_record(path):
            return False
        folder = RunFolder(path, RunError)
        kinds = [{"experiment": str(kind)} for kind in (folder.record.get("experiment"), self.kind)]
        differing = differences(*kinds) or differences(
            *(dict(flatten_settings(tree)) for tree in self._settings(folder))
        )
        if differing and not self.replaces:
            raise InputError(
                f"{path} is another run ({differing}); set another --name, or restore these settings. The run there is "
                "kept."
            )
        if differing or self.if_done == "again":
            return not differing
        if (changed := self._changes(folder)) and not self.replaces:
            raise InputError(
                f"{path} was made of other data or by other versions ({changed}); --if-done again makes it anew in "
                "its place, or set another --name. The run there is kept."
            )
        return not changed

    def _changes(self, folder: RunFolder) -> str:
        """Return what differs in versions and data, as a phrase; empty if nothing does."""
        recorded = folder.record.get("versions") or {}
        versions = [{f"{name} version": str(get(name)) for name in VERSIONS} for get in (recorded.get, package_version)]
        return differences(*versions) or differences(*self._digests(folder))


@dataclass(frozen=True)
class PlannedRun(NamedRun):
    """A run of a recipe."""

    destination: Destination
    recipe: Recipe
    """The recipe as the run folder holds it."""

    kind: str
    if_done: IfDone = "skip"
    replaces: bool = False
    read_corpus: Callable[[CorpusSpec], "Corpus"] | None = None
    """Function that reads a corpus; None reads it from its files."""

    def _settings(self, folder: RunFolder) -> tuple[Tree, Tree]:
        there = read_recipe(folder)
        return plain(there.relevant_settings()), plain(self.recipe.relevant_settings())

    def _digests(self, folder: RunFolder) -> tuple[dict[str, str], dict[str, str]]:
        there = dict(_table(folder.record.get("plugins")))
        here = origins_of(flatten_settings(plain(self.recipe)))
        for spec in self.recipe.corpora():
            from permafrost.data.readers.load import load_corpus  # loads pyarrow

            corpus, digests = (self.read_corpus or load_corpus)(spec), _table(folder.record.get("data"))
            there[f"data of {corpus.name}"] = digests.get(fingerprint(spec), "absent")
            here[f"data of {corpus.name}"] = corpus.digest
        return there, here


@dataclass(frozen=True)
class PlannedEvaluation(NamedRun):
    """An evaluation of finished runs."""

    destination: Destination
    asked: Tree
    """What is evaluated on what, as the record has it under this name."""

    digests: dict[str, str]
    """Run, or rows of data, -> digest; as the record has it under ``data``."""

    if_done: IfDone = "skip"
    kind: str = "evaluation"

    def _settings(self, folder: RunFolder) -> tuple[Tree, Tree]:
        return _table(folder.record.get("asked")), self.asked

    def _digests(self, folder: RunFolder) -> tuple[dict[str, str], dict[str, str]]:
        return _table(folder.record.get("data")), self.digests


def find_study(
    recipe: str,
    overrides: Overrides = (),
    name: str = "",
    trials: int | None = None,
    storage: str | None = None,
    runs: Path = Path("runs"),
    variant: str = "",
    data: Data = None,
    columns: Sequence[str] = (),
    target: str = "",
) -> tuple[Path, tuple[StudyResult, RunResult] | None]:
    """Return the folder of a study, and its result if nothing is left to train; arguments as of ``api.study``."""
    arguments = DataArguments(data, columns, target)
    recipe_name, spec = load_with_data(load_one_task, recipe, overrides, arguments, NoProgress())
    spec, study_name = spec.select_variant(variant), name or recipe_name
    check_study(spec, study_name, trials, 1, storage)
    folder = checked_folder(runs) / f"study-{study_name}"
    spec = resolve_language_model(recipe_name, spec)
    return folder, _finished_study(folder, spec, trials, f"{name}-best" if name else f"{study_name}-best-*")


def _finished_study(
    folder: Path, recipe: Recipe, trials: int | None, best_run: str
) -> tuple[StudyResult, RunResult] | None:
    """Return the result of a study and of the run of its best trial; None if a command would train something.

    Args:
        folder: folder of the study.
        recipe: the recipe to search.
        trials: number of finished trials that are wanted; None takes that of the recipe.
        best_run: pattern of the name of the run of the best trial.

    Raises:
        DamageError: a file differs from what the study wrote.
    """
    runs = sorted(folder.parent.glob(f"{best_run}/{RECORD}"), key=lambda path: path.stat().st_mtime)
    if not (folder / RECORD).is_file() or not runs:
        return None
    study = read_study(folder)
    same = study_identity(read_recipe(RunFolder(folder, RunError))) == study_identity(recipe)
    wanted = min(trials or recipe.study.trials, largest_search(recipe.study))
    enough = study.trials + study.refused >= wanted
    return (study, read_result(runs[-1].parent)) if same and enough else None


def _holds_record(path: Path) -> bool:
    """Return whether a folder holds a run; one that is empty, or whose record was removed, counts as none.

    Raises:
        InputError: something else is there.
    """
    if not path.exists() or (path / RECORD).is_file():
        return path.exists()
    if not path.is_dir() or (any(path.iterdir()) and not (path / RECIPE).is_file()):
        raise InputError(f"{path} is there and is no run: set another --name, or move it away.")
    return False


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
