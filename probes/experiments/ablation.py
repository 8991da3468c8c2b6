"""Ablation: the same probe on subsets of its layers, several seeds each, with controls beside them.

Every distinct subset is trained once, whatever kinds ask for it. Figures are means over seeds, or of what the seeds say
together where ``train.average`` says so, with a bootstrap 95 % interval over rows, and p-values of a paired test
against the last layer alone.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.spec import assign, parse, plain
from permafrost.probes.config.ablation import Subset, layer_names, picked, subsets
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.validation import check, check_fixed
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.metrics.bootstrap import Paired, Resampled, paired
from permafrost.probes.models.probe import stack
from permafrost.probes.results.outcomes import AblationResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.control import shuffled
from permafrost.probes.tasks.registry import loss_and_metric, mean_prediction, predictions, scorer_of, task_of
from permafrost.probes.variants.members import TrainedMember, train_each
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.workspace import Workspace

UNTRAINED = "untrained"


@dataclass(frozen=True)
class AblationRow:
    """One line of ``ablation.csv``."""

    kind: str
    """all, single, without, prefix, suffix, view, greedy or backbone."""

    name: str
    """The layer, view or backbone that it is about; for greedy, the layer that was taken."""

    layers: str
    control: str
    """Empty, ``untrained`` or ``random targets``."""

    split: str
    metric: str
    value: float
    """Mean over seeds, or of what they say together."""

    low: float | None
    high: float | None
    p: float | None
    """Two-sided, of the difference from the last layer of the trained backbone alone, on the same rows."""

    n: int
    parameters: int
    seed: int | None = None
    """Empty: every figure is of all seeds."""


@dataclass(frozen=True, eq=False)
class Said:
    """What the seeds of one subset say."""

    parameters: int
    value: float
    """The metric that chooses, the mean over seeds or of what they say together; -inf where a seed has none."""

    answers: Mapping[str, Sequence[NDArray[Any]]]
    """Split -> for each seed, or for all together, the answers of a :class:`Scorer`."""


class Trainings:
    """Subsets of one recipe's columns, each trained once with every seed."""

    def __init__(self, workspace: Workspace, recipe: Recipe, corpus: Corpus) -> None:
        self.recipe, self.corpus, self.progress = recipe, corpus, workspace.progress
        self.members = workspace.members("ablation", recipe)
        self.columns: tuple[Column, ...] = self.members[0].inputs.columns
        self.scorers: dict[str, Scorer] = {split: scorer_of(corpus, split) for split in corpus.splits}
        self._said: dict[tuple[int, ...], Said] = {}

    def train(self, wanted: Iterable[tuple[int, ...]], label: str) -> None:
        """Train the subsets that are not yet."""
        missing = [places for places in dict.fromkeys(wanted) if places not in self._said]
        todo = [(places, replace(member, layers=places)) for places in missing for member in self.members]
        trained: dict[tuple[int, ...], list[TrainedMember]] = {}
        with self.progress.bar(label, len(todo)) as advance:
            for place, one in train_each([member for _, member in todo], self.corpus):
                places = todo[place][0]
                trained.setdefault(places, []).append(one)
                if len(trained[places]) == len(self.members):
                    self._said[places] = self._heard(trained.pop(places))
                advance(1)

    def _heard(self, seeds: Sequence[TrainedMember]) -> Said:
        """What the seeds of a subset say, each for itself or all together."""
        average, inputs = self.recipe.train.average, seeds[0].inputs
        together = stack([one.probe for one in seeds]).eval() if average and len(seeds) > 1 else seeds[0].probe
        answers: dict[str, list[NDArray[Any]]] = {}
        with torch.inference_mode():
            for split, scorer in self.scorers.items():
                same = next((other for other in answers if self.scorers[other].rows is scorer.rows), None)
                if same:
                    answers[split] = answers[same]
                    continue
                if average:
                    said = [mean_prediction(together, inputs, scorer.rows)]
                else:
                    said = [predictions(one.probe, inputs, scorer.rows)[0] for one in seeds]
                answers[split] = [scorer.decode(one) for one in said]
        if any(one.history.best_epoch < 0 for one in seeds):
            value = -math.inf
        elif average:
            selection, (_, metric) = self.corpus.selection, loss_and_metric(self.recipe, task_of(self.corpus))
            value = self.scorers[selection].value(metric, answers[selection][0])
        else:
            value = float(np.mean([one.history.best_value for one in seeds]))
        return Said(seeds[0].parameters, value, answers)

    def __getitem__(self, places: tuple[int, ...]) -> Said:
        return self._said[places]

    @property
    def last(self) -> tuple[int, ...]:
        """The last layer alone."""
        return subsets("single", self.columns)[-1].layer_positions

    def greedy(self, most: int) -> list[Subset]:
        """Forward selection by the validation metric: the best layer, then the one that adds most to it, and so on."""
        left = {int(one.name): one.layer_positions for one in subsets("single", self.columns)}
        taken: set[int] = set()
        steps: list[Subset] = []
        while left and len(steps) < most:
            tried = {layer: tuple(sorted(taken | set(places))) for layer, places in left.items()}
            self.train(tried.values(), f"greedy selection, step {len(steps) + 1}")
            best = max(tried, key=lambda layer: self[tried[layer]].value)
            taken |= set(left.pop(best))
            steps.append(Subset("greedy", str(best), tried[best]))
        return steps


class Scores:
    """Figures of subsets, with their intervals and the test against the last layer alone."""

    def __init__(self, trainings: Trainings, control: str = "", reference: "Scores | None" = None) -> None:
        self.trainings, self.control, self.reference = trainings, control, reference or self
        self.corpus = trainings.corpus
        self.scored = self.corpus.scored
        self._resampled: dict[tuple[Any, ...], Resampled | None] = {}

    def rows(self, one: Subset, splits: Sequence[str] = ()) -> list[AblationRow]:
        """Every metric of a subset, on validation without an interval.

        Args:
            splits: where it is measured; empty is validation and the scored split.
        """
        said = self.trainings[one.layer_positions]
        named = layer_names([self.trainings.columns[place].layer for place in one.layer_positions])
        found = []
        for split in splits or dict.fromkeys((self.corpus.selection, self.scored)):
            for metric in task_of(self.corpus).metrics:
                figure = self._figure(one.layer_positions, split, metric)
                if figure is None:
                    continue
                measured = figure.measured()
                against = self._against(one, split, metric, figure)
                found.append(
                    AblationRow(
                        one.kind,
                        one.name,
                        named,
                        self.control,
                        split,
                        metric,
                        figure.value,
                        measured.low,
                        measured.high,
                        against.p if against else None,
                        figure.n,
                        said.parameters,
                    )
                )
        return found

    def _against(self, one: Subset, split: str, metric: str, figure: Resampled) -> Paired | None:
        """The test against the last layer of the trained backbone alone; None of that layer, and of other targets."""
        same = self.reference is self and one.layer_positions == self.trainings.last
        if same or self.control == RANDOM_TARGETS:
            return None
        reference = self.reference._figure(self.reference.trainings.last, split, metric)
        return paired(reference, figure) if reference else None

    def _figure(self, places: tuple[int, ...], split: str, metric: str) -> Resampled | None:
        key = (places, split, metric)
        if key not in self._resampled:
            said, scorer = self.trainings[places].answers[split], self.trainings.scorers[split]
            if split in (self.scored, "train"):
                self._resampled[key] = scorer.resampled(metric, said)
            else:
                self._resampled[key] = _plain(metric, said, scorer)
        return self._resampled[key]


def _plain(metric: str, said: Sequence[NDArray[Any]], scorer: Scorer) -> Resampled | None:
    """A figure without its interval."""
    value = float(np.mean([scorer.value(metric, one) for one in said]))
    return Resampled(value, np.empty(0), len(scorer.rows)) if np.isfinite(value) else None


def ablate(recipe: Recipe, workspace: Workspace, corpus: Corpus) -> list[AblationRow]:
    """Train and measure what ``recipe.ablation`` names.

    Raises:
        SpecError: a setting that does not fit the task.
    """
    spec = recipe.ablation
    trainings = Trainings(workspace, recipe, corpus)
    kinds = ["all", "single", *(kind for kind in spec.kinds if kind not in ("single", "greedy"))]
    wanted = [one for kind in kinds for one in subsets(kind, trainings.columns)]
    trainings.train([one.layer_positions for one in wanted], "subsets of layers")
    if "greedy" in spec.kinds:
        wanted += trainings.greedy(spec.greedy)
    scores = Scores(trainings)
    rows = [row for one in wanted for row in scores.rows(one)]
    if "random_targets" in spec.controls:
        rows += [row for one in wanted if one.kind in ("all", "single") for row in scores.rows(one, ["train"])]
    for control in spec.controls:
        rows += _control(control, recipe, workspace, scores)
    for backbone in spec.backbones:
        rows += _backbone(backbone, recipe, workspace, scores)
    return rows


def _control(control: str, recipe: Recipe, workspace: Workspace, trained: Scores) -> list[AblationRow]:
    """Each layer alone and all of them, from an untrained backbone or on shuffled targets."""
    corpus, splits = trained.corpus, list[str]()
    if control == "untrained":
        recipe, name = _changed(recipe, "plan.init", "random"), UNTRAINED
        workspace.prepare([recipe])
    else:
        corpus, name, splits = shuffled(corpus, recipe.train.seeds[0]), RANDOM_TARGETS, ["train"]
    trainings = Trainings(workspace, recipe, corpus)
    wanted = [*subsets("all", trainings.columns), *subsets("single", trainings.columns)]
    trainings.train([one.layer_positions for one in wanted], f"control: {name}")
    scores = Scores(trainings, name, trained)
    return [row for one in wanted for row in scores.rows(one, splits)]


def _backbone(name: str, recipe: Recipe, workspace: Workspace, trained: Scores) -> list[AblationRow]:
    recipe = _changed(recipe, "plan.backbone", name)
    workspace.prepare([recipe])
    trainings = Trainings(workspace, recipe, trained.corpus)
    everything = subsets("all", trainings.columns)[0]
    trainings.train([everything.layer_positions, trainings.last], f"backbone {name}")
    scores = Scores(trainings, reference=trained)
    last = picked(trainings.columns, lambda column: column.layer == trainings.columns[trainings.last[0]].layer)
    return [
        *scores.rows(Subset("backbone", name, everything.layer_positions)),
        *scores.rows(Subset("backbone", f"{name}, last layer", last)),
    ]


def _changed(recipe: Recipe, key: str, value: str) -> Recipe:
    tree = plain(recipe)
    assign(tree, key, value)
    return parse(Recipe, tree, f"ablation: {key} = {value}")


def run_ablation(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> AblationResult:
    """Ablate a recipe and leave a run folder ``ablate-<recipe>-<n>``."""
    started = time.perf_counter()
    recipe = replace(recipe, variants=())
    check_fixed(recipe)
    workspace = Workspace(provider, progress)
    corpus = workspace.corpus(recipe.corpus)
    metric = check(recipe, {name: recipe}, corpus)
    workspace.prepare([recipe])
    rows = ablate(recipe, workspace, corpus)
    texts_run = sum(one.texts_run for one in workspace.stored.values())
    record = make_record(corpus, [], {name: workspace.sources(recipe, recipe.corpus)}) | {
        "name": f"ablate-{name}",
        "summary": recipe.summary,
        "texts_run": texts_run,
        "metric": metric,
        "seeds": list(recipe.train.seeds),
        "seconds": {"all": time.perf_counter() - started},
    }
    table = pd.DataFrame([asdict(row) for row in rows])
    path = write_run(runs, f"ablate-{name}", RunContents(recipe=recipe, record=record, tables={"ablation": table}))
    seconds = time.perf_counter() - started
    return AblationResult(
        path=path,
        seconds=seconds,
        texts=corpus.sentences,
        texts_distinct=len(corpus.texts),
        texts_run=texts_run,
        metrics=[asdict(row) for row in rows],
    )
