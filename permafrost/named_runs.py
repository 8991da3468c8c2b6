"""Runs with a name: whether the run of a name is done, so that the command need not run; nothing here loads torch.

A run is done if its folder holds the same recipe, the same texts and targets, and was written by the same versions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError
from permafrost.data.machine import package_version
from permafrost.data.progress import Progress
from permafrost.data.spec import Tree, differences, fingerprint, flatten_settings, plain
from permafrost.probes.config.names import RECIPE, RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.results.read_result import read_recipe
from permafrost.probes.results.run_folder import RunError, RunFolder

IfDone = Literal["skip", "again", "fail"]
"""What a command does if the run that it is to write is done."""

if TYPE_CHECKING:  # loads numpy
    from permafrost.data.corpora.corpus import Corpus

T = TypeVar("T")

VERSIONS = ("permafrost", "torch", "transformers")
"""Packages whose versions the figures of a run may depend on."""


def kind_of_run(recipe: Recipe) -> str:
    """Return what ``run`` writes for a recipe that trains: the value of ``experiment`` in the record."""
    if not recipe.tasks:
        return "run"
    return "layers" if recipe.multitask.schedule == "separate" else "multitask"


@dataclass(frozen=True)
class PlannedRun:
    """A run that a command is to write, if it is not done."""

    destination: Destination
    recipe: Recipe
    """The recipe as the run folder holds it."""

    kind: str
    """``experiment`` in the record."""

    if_done: IfDone = "skip"
    replaces: bool = False
    """Whether the run takes the place of one of another recipe, as the best of a study does, or refuses to."""

    read_corpus: Callable[[CorpusSpec], "Corpus"] | None = None
    """Function that reads a corpus; None reads it from its files."""

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
        recipe = read_recipe(folder)
        settings = [dict(flatten_settings(plain(each.relevant_settings()))) for each in (recipe, self.recipe)]
        kinds = [{"experiment": str(kind)} for kind in (folder.record.get("experiment"), self.kind)]
        differing = differences(*kinds) or differences(*settings)
        if differing and not self.replaces:
            raise InputError(
                f"{path} is of another recipe ({differing}); set another --name, or restore these settings. The run "
                "there is kept."
            )
        if differing or self.if_done == "again":
            return not differing
        if (changed := self._changes(folder.record)) and not self.replaces:
            raise InputError(
                f"{path} was made of other data or by other versions ({changed}); --if-done again makes it anew in "
                "its place, or set another --name. The run there is kept."
            )
        return not changed

    def _changes(self, record: Tree) -> str:
        """Return what differs in versions and data, as a phrase; empty if nothing does."""
        recorded = record.get("versions") or {}
        versions = [{f"{name} version": str(get(name)) for name in VERSIONS} for get in (recorded.get, package_version)]
        plugins = [_table(record.get("plugins")), origins_of(flatten_settings(plain(self.recipe)))]
        if differing := differences(*versions) or differences(*plugins):
            return differing
        there, here = dict[str, str](), dict[str, str]()
        for spec in self.recipe.corpora():
            from permafrost.data.readers.load import load_corpus  # loads pyarrow

            corpus, digests = (self.read_corpus or load_corpus)(spec), _table(record.get("data"))
            there[f"data of {corpus.name}"] = digests.get(fingerprint(spec), "absent")
            here[f"data of {corpus.name}"] = corpus.digest
        return differences(there, here)


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


def _table(value: Any) -> dict[str, str]:
    return value if isinstance(value, dict) else {}
