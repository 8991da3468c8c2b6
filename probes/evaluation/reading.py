"""Reading of what is evaluated: the rows of every data set as every run reads them, before anything is extracted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.digests import file_digest
from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import Progress
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import fingerprint, plain
from permafrost.probes.config.names import PROBE, RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.evaluation.corpus import EvaluationData, check_split, other_corpus, own_corpus
from permafrost.probes.evaluation.evaluated import reading_recipe
from permafrost.probes.evaluation.evaluation import EvaluatedRun, EvaluationSettings
from permafrost.probes.evaluation.labels import LabelSpace, NoLabelMeetsError, check_label_map, check_label_map_used
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.variants.workspace import Workspace


class TrainingCorpora:
    """The corpora that runs were trained on, each read once."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._corpora = progress, dict[str, Corpus | InputError | MachineError]()

    def read(self, spec: CorpusSpec) -> Corpus:
        """Return a corpus; raise the error of reading it."""
        key = fingerprint(spec)
        if key not in self._corpora:
            try:
                self._corpora[key] = load_corpus(spec)
            except (InputError, MachineError) as error:
                self._corpora[key] = error
        if isinstance(found := self._corpora[key], Corpus):
            return found
        raise found

    def find(self, run: LoadedRun) -> Corpus | None:
        """Return the corpus of a run; None, and a note, if it cannot be read here or has changed."""
        try:
            corpus = self.read(run.recipe.corpus)
        except (InputError, MachineError) as error:
            without = "rows that it was trained on are not counted"
            if not run.task.compares_texts:
                without += ", and there is no untrained reference, which learns from them"
            self._progress.note(f"the corpus of {run.path} cannot be read, so {without}: {error}")
            return None
        return corpus if corpus.labels == run.labels and "train" in corpus.splits else None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadRows:
    """A task of a run, and the rows of one data set that it is evaluated on."""

    evaluated: EvaluatedRun
    data: EvaluationData
    recipe: Recipe
    """Recipe by which the texts are read."""

    workspace: Workspace
    """Holds the rows, and their latents once they are got."""

    @property
    def corpus(self) -> Corpus:
        """The rows."""
        return self.workspace.corpus(self.recipe.corpus)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadEvaluations:
    """All pairs of a run and data of one command, read and not measured."""

    pairs: Sequence[ReadRows]
    training: TrainingCorpora
    settings: EvaluationSettings

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values of what was asked: equal ones, with equal :attr:`digests`, have equal figures."""
        pairs = {
            _pair_name(each): {
                "task": "" if each.evaluated.task == PROBE else each.evaluated.task,
                "split": next(iter(each.corpus.splits)),
                "corpus": plain(each.data.spec),
            }
            for each in self.pairs
        }
        return {"evaluations": pairs, "label_map": dict(self.settings.label_map)}

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each run, and of the rows of each data set as each run reads them."""
        rows = {f"rows of {_pair_name(each)}": each.corpus.digest for each in self.pairs}
        return rows | {each.evaluated.name: file_digest(each.evaluated.run.path / RECORD) for each in self.pairs}


def _pair_name(each: ReadRows) -> str:
    task = "" if each.evaluated.task == PROBE else f" ({each.evaluated.task})"
    return f"{each.evaluated.name}{task} on {each.data.name}"


def read_evaluations(
    runs: Sequence[EvaluatedRun], settings: EvaluationSettings, progress: Progress, provider: LatentProvider
) -> ReadEvaluations:
    """Read the rows of all data for all runs.

    Raises:
        InputError: data cannot be read, are of another kind than a run, or have none of its labels.
    """
    check_split(settings.split)
    spaces = [LabelSpace.of(each.run.kind, each.run.labels, each.run.first_number, settings.label_map) for each in runs]
    check_label_map(settings.label_map, spaces)
    training, read, refused = TrainingCorpora(progress), list[ReadRows](), dict[tuple[str, str], InputError]()
    for each, space in zip(runs, spaces, strict=True):
        workspace = Workspace(provider, progress)
        for data in each.data:
            try:
                recipe = _load(each, data, space, settings, training, workspace)
            except NoLabelMeetsError as error:
                refused[each.name, data.name] = error
                continue
            read.append(ReadRows(evaluated=each, data=data, recipe=recipe, workspace=workspace))
    for (run_name, data_name), refusal in refused.items():  # another task of the run may have the labels
        if not any((each.evaluated.name, each.data.name) == (run_name, data_name) for each in read):
            raise refusal
        progress.note(f"a task of {run_name} is left out: {refusal}")
    if note := check_label_map_used(settings.label_map, spaces):
        progress.note(note)
    return ReadEvaluations(pairs=read, training=training, settings=settings)


def _load(
    each: EvaluatedRun,
    data: EvaluationData,
    space: LabelSpace,
    settings: EvaluationSettings,
    training: TrainingCorpora,
    workspace: Workspace,
) -> Recipe:
    """Read the rows of data for a run into its workspace; return the recipe by which the run reads their texts."""
    run = each.run
    if data.own:
        corpus = own_corpus(replace(training.read(data.spec), notes=()), run, settings.split)
    else:
        corpus = other_corpus(data, run, space, settings.split)
    recipe = reading_recipe(run, data.spec, settings.extract or run.recipe.extract)
    workspace.add_corpus(recipe.corpus, corpus)
    return recipe
