"""Training and measuring a recipe's probe on subsets of its columns; each distinct subset is trained once."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.progress import EventsOnly
from permafrost.probes.config.ablation import Subset, format_layers, subsets
from permafrost.probes.config.columns import Column, single_layer, view_name
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.bootstrap import BootstrapSamples, paired_difference
from permafrost.probes.models.probe import stack
from permafrost.probes.objectives.heads import mean_prediction, predictions
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.variants.members import TrainedMember, stackable_groups
from permafrost.probes.variants.train_group import train_group
from permafrost.probes.variants.train_variant import checkpoint_of, member_configs
from permafrost.probes.variants.workspace import Workspace

Positions = tuple[int, ...]
"""A subset of columns, as ascending indices into all columns of the recipe."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SubsetResult:
    """One subset of columns, trained with every seed."""

    parameters: int
    """Number of trained parameters per seed."""

    value: float
    """Selection metric on validation: the mean over seeds, or of their mean prediction; -inf if it is undefined."""

    decoded: dict[str, list[NDArray[Any]]]
    """Split -> decoded predictions of each seed, or of their mean prediction alone."""


class SubsetTrainer:
    """A recipe's probe on subsets of its columns, with every seed: training, and rows of metrics."""

    def __init__(
        self, task: str, recipe: Recipe, workspace: Workspace, control: str = "", problem: Problem | None = None
    ) -> None:
        """Create a trainer that has trained nothing yet; the latents are in the workspace.

        Args:
            task: name of the task in the rows, and of the trainings.
            control: as :attr:`MetricRow.control`.
            problem: what to train instead of the recipe's own problem.
        """
        self.task, self.recipe, self.workspace, self.control = task, recipe, workspace, control
        self.problem = problem or workspace.problem(recipe)
        label = ", ".join(filter(None, (task, control, recipe.plan.backbone)))
        ((_, members),) = member_configs(label, recipe, workspace, recipe.train.seeds).items()
        self._members = [replace(member, problem=self.problem) for member in members]
        self.columns: tuple[Column, ...] = members[0].inputs.columns
        self.results: dict[Positions, SubsetResult] = {}
        self._resampled: dict[tuple[Positions, str, str], BootstrapSamples | None] = {}

    @property
    def last_layer(self) -> Subset:
        """The last layer alone."""
        return subsets("single", self.columns)[-1]

    def train(self, wanted: Iterable[Subset], label: str) -> None:
        """Train the subsets that are not trained yet.

        Args:
            label: of the progress bar.
        """
        missing: dict[Positions, Subset] = {}
        for subset in wanted:
            if subset.layer_positions not in self.results:
                missing.setdefault(subset.layer_positions, subset)
        configs = [
            replace(member, layers=positions, columns=self._named(subset))
            for positions, subset in missing.items()
            for member in self._members
        ]
        trained: dict[Positions, list[TrainedMember]] = {}
        progress = self.workspace.progress
        events = EventsOnly(progress.event)
        with progress.bar(label, len(configs)) as advance:
            for group in stackable_groups(configs):
                checkpoint = checkpoint_of({PROBE: group}, self.recipe, self.workspace)
                trained_group = train_group({PROBE: group}, self.recipe, events, label, checkpoint=checkpoint)
                for member in trained_group.members[PROBE]:
                    seeds = trained.setdefault(member.config.layers, [])
                    seeds.append(member)
                    if len(seeds) == len(self._members):
                        self.results[member.config.layers] = self._result(trained.pop(member.config.layers))
                    advance(1)

    def select_greedily(self, max_layers: int) -> list[Subset]:
        """Select layers one by one: the best on validation, then the one that improves on it most, and so on."""
        candidates = {int(single.name): single.layer_positions for single in subsets("single", self.columns)}
        selected: set[int] = set()
        steps: list[Subset] = []
        while candidates and len(steps) < max_layers:
            extended = {
                layer: Subset("greedy", str(layer), tuple(sorted(selected | set(positions))))
                for layer, positions in candidates.items()
            }
            self.train(extended.values(), f"greedy selection, step {len(steps) + 1}")
            best = max(extended, key=lambda layer: self.results[extended[layer].layer_positions].value)
            selected |= set(candidates.pop(best))
            steps.append(extended[best])
        return steps

    def rows(
        self, subset: Subset, reference: "SubsetTrainer | None" = None, splits: Sequence[str] = ()
    ) -> Iterator[MetricRow]:
        """Yield the rows of a trained subset: every metric that is defined, on validation without interval; its
        difference from the last layer of the reference; and the number of trained parameters.

        Args:
            reference: trainer on the trained backbone and the true targets; None leaves out the differences.
            splits: where it is measured; default, on the split that selects and on the scored split.
        """
        corpus, positions = self.problem.corpus, subset.layer_positions
        for split in splits or dict.fromkeys((corpus.selection_split, corpus.test_split)):
            for metric in self.problem.metrics:
                if resampled := self._measure(positions, split, metric):
                    where = self._where(subset) | {"split": split, "metric": metric, "seed": None}
                    yield MetricRow(**where, **asdict(resampled.estimate()))
                    if reference:
                        yield from self._difference(where, resampled, reference)
        if self.control or not splits:
            count = float(self.results[positions].parameters)
            yield MetricRow(**self._where(subset), metric="trained_parameters", value=count)

    def _difference(
        self, where: dict[str, Any], resampled: BootstrapSamples, reference: "SubsetTrainer"
    ) -> Iterator[MetricRow]:
        """Yield the row of the paired difference of a metric from that of the reference's last layer, if another."""
        last = reference.last_layer
        name = subset_name(last, reference.columns)
        if reference is self and where["subset"] == name:
            return
        other = reference._measure(last.layer_positions, where["split"], where["metric"])
        if other and (difference := paired_difference(other, resampled)):
            yield MetricRow(**where, against=name, **asdict(difference))

    def _named(self, subset: Subset) -> dict[str, str]:
        """Return the columns of metrics.csv that name the training of a subset."""
        where = self._where(subset)
        named = {"variant": where["variant"], "backbone": where["backbone"], "subset": where["subset"]}
        named |= {"control": self.control} if self.control else {}
        return named | ({} if self.task == PROBE else {"task": self.task})

    def _where(self, subset: Subset) -> dict[str, Any]:
        columns = [self.columns[position] for position in subset.layer_positions]
        backbones = dict.fromkeys(self.recipe.capture_plan(column.plan).backbone for column in columns)
        return {
            "variant": PROBE,
            "backbone": "+".join(backbones),
            "corpus": self.problem.corpus.name,
            "view": view_name(columns),
            "layer": single_layer(columns),
            "subset": subset_name(subset, self.columns),
            "control": self.control,
            "task": self.problem.task.name if self.task == PROBE else self.task,
        }

    def _measure(self, positions: Positions, split: str, metric: str) -> BootstrapSamples | None:
        key = (positions, split, metric)
        if key not in self._resampled:
            decoded, scorer = self.results[positions].decoded[split], self.problem.scorer(split)
            if split in (self.problem.corpus.test_split, "train"):
                self._resampled[key] = scorer.resampled(metric, decoded)
            else:
                value = float(np.mean([scorer.value(metric, each) for each in decoded]))
                without_interval = BootstrapSamples(value, np.empty(0), scorer.size)
                self._resampled[key] = without_interval if np.isfinite(value) else None
        return self._resampled[key]

    def _result(self, seeds: Sequence[TrainedMember]) -> SubsetResult:
        decoded, problem = self._decode(seeds), self.problem
        if any(seed.history.best_epoch < 0 for seed in seeds):
            value = -math.inf
        elif self.recipe.train.average:
            split = problem.corpus.selection_split
            value = problem.scorer(split).value(problem.metric, decoded[split][0])
        else:
            value = float(np.mean([seed.history.best_value for seed in seeds]))
        return SubsetResult(parameters=seeds[0].parameters, value=value, decoded=decoded)

    @torch.inference_mode()
    def _decode(self, seeds: Sequence[TrainedMember]) -> dict[str, list[NDArray[Any]]]:
        """Return split -> decoded predictions of each seed, or of their mean; equal splits are predicted once."""
        average, inputs, corpus = self.recipe.train.average, seeds[0].config.inputs, self.problem.corpus
        stacked = stack([seed.probe for seed in seeds]).eval() if average and len(seeds) > 1 else seeds[0].probe
        predicted: dict[str, list[NDArray[np.float32]]] = {}
        for split, rows in corpus.splits.items():
            same = next((other for other in predicted if corpus.splits[other] is rows), None)
            if same:
                predicted[split] = predicted[same]
            elif average:
                predicted[split] = [mean_prediction(stacked, inputs, rows)]
            else:
                predicted[split] = [predictions(seed.probe, inputs, rows)[0] for seed in seeds]
        task, selection = self.problem.task, corpus.selection_split
        calibrations = [task.calibrate(output, corpus, float(output.max())) for output in predicted[selection]]
        return {
            split: [
                self.problem.scorer(split).decode(output, calibration)
                for output, calibration in zip(outputs, calibrations, strict=True)
            ]
            for split, outputs in predicted.items()
        }


def subset_name(subset: Subset, columns: Sequence[Column]) -> str:
    """Return the name of a subset in the tables.

    ``all``, ``view cls``, ``without layer 3`` for the layer that is left out, or its kind and the layers that are read,
    ``prefix 0-2``.
    """
    if subset.kind in ("all", "view", "without"):
        return {"all": "all", "view": f"view {subset.name}", "without": f"without layer {subset.name}"}[subset.kind]
    return f"{subset.kind} {format_layers([columns[position].layer for position in subset.layer_positions])}"
