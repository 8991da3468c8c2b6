"""Plan of a batch: its runs with their names, settings and recipes, all checked before anything runs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from permafrost.batches.spec import BatchSpec, assignments, toml_value
from permafrost.data.errors import InputError
from permafrost.data.spec import SpecError, fingerprint, nearest
from permafrost.named_runs import kind_of_run
from permafrost.probes.config.load import (
    Overrides,
    check_trainable,
    load_recipe,
    resolve_language_model,
    shipped_recipes,
)
from permafrost.probes.config.recipe import Recipe
from permafrost.user_data import DataArguments, load_with_data

LONGEST_VALUE, LONGEST_NAME = 40, 100
"""Characters of a value in the name of a run, and of the name."""


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One run of a batch."""

    name: str
    recipe: str
    overrides: tuple[str, ...]
    data: str | None
    columns: tuple[str, ...]
    target: str
    varied: dict[str, str] = field(default_factory=dict)
    """What tells it from the other runs: recipe, backbone, data, keys of the grid -> value."""


@dataclass(frozen=True, kw_only=True)
class LoadedItem:
    """A run of a batch with its resolved recipe."""

    item: BatchItem
    recipe_name: str
    recipe: Recipe

    @property
    def kind(self) -> str:
        """``experiment`` in the record of the run."""
        return "similarity" if self.recipe.similarity.texts else kind_of_run(self.recipe)


def plan_items(spec: BatchSpec, overrides: Overrides = ()) -> list[BatchItem]:
    """Return the runs of a batch: every combination of its lists, then its single runs.

    Args:
        overrides: further settings of all runs, as after ``--set``.

    Raises:
        SpecError: there is no such recipe, or two runs would have the same name.
    """
    for recipe in [*spec.recipes, *(run.recipe for run in spec.runs)]:
        if recipe not in shipped_recipes() and not (recipe.endswith(".toml") and Path(recipe).is_file()):
            missing = "there is no such file." if recipe.endswith(".toml") else nearest(recipe, shipped_recipes())
            raise SpecError(f"unknown recipe '{recipe}'. {missing}")
    items = [*_combinations(spec, tuple(overrides)), *_single_runs(spec, tuple(overrides))]
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            recipes = ", ".join(dict.fromkeys(item.recipe for item in items if item.name == name))
            raise SpecError(
                f"{count} runs of the batch would be called '{name}' (recipe {recipes}): leave the repetition out, or "
                "give each a table [[runs]] with a name."
            )
    return items


def _combinations(spec: BatchSpec, given: tuple[str, ...]) -> list[BatchItem]:
    axes = spec.axes
    items = []
    labels = [_labels(spec.recipes), _labels(spec.backbones), _labels(spec.data)]
    for recipe, backbone, data, *values in product(
        spec.recipes, spec.backbones or ("",), spec.data or ("",), *axes.values()
    ):
        settings = dict(zip(axes, values, strict=True))
        parts = [labels[0][recipe]]
        parts += [labels[1][backbone]] if len(spec.backbones) > 1 else []
        parts += [labels[2][data]] if len(spec.data) > 1 else []
        parts += [_setting_label(key, value) for key, value in settings.items() if len(axes[key]) > 1]
        varied = {"recipe": labels[0][recipe]}
        varied |= {"backbone": labels[1][backbone]} if spec.backbones else {}
        varied |= {"data": labels[2][data]} if spec.data else {}
        varied |= {key: _shown(value) for key, value in settings.items()}
        overrides = [*assignments(spec.set), *given, *assignments({"plan": {"backbone": backbone}} if backbone else {})]
        items.append(
            BatchItem(
                name=_run_name(parts),
                recipe=recipe,
                overrides=(*overrides, *assignments(settings)),
                data=data or None,
                columns=spec.columns if data else (),
                target=spec.target if data else "",
                varied=varied,
            )
        )
    return items


def _single_runs(spec: BatchSpec, given: tuple[str, ...]) -> list[BatchItem]:
    items = []
    for run in spec.runs:
        backbone = {"plan": {"backbone": run.backbone}} if run.backbone else {}
        label = _labels([run.recipe])[run.recipe]
        varied = {"recipe": label} | ({"backbone": _labels([run.backbone])[run.backbone]} if run.backbone else {})
        varied |= {"data": _labels([run.data])[run.data]} if run.data else {}
        items.append(
            BatchItem(
                name=run.name or _run_name([label]),
                recipe=run.recipe,
                overrides=(*assignments(spec.set), *given, *assignments(backbone), *assignments(run.set)),
                data=run.data or None,
                columns=spec.columns if run.data else (),
                target=spec.target if run.data else "",
                varied=varied | {key: _shown(value) for key, value in run.set.items()},
            )
        )
    return items


def load_item(item: BatchItem) -> LoadedItem:
    """Return a run with its resolved recipe.

    Raises:
        SpecError: the settings of the batch do not fit the recipe, which is sound without them.
        ImpossibleError: the recipe is impossible in itself, or its data cannot be read.
    """
    try:
        load_recipe(item.recipe)
    except InputError as error:
        raise ImpossibleError(error) from error
    arguments = DataArguments(item.data, item.columns, item.target)
    try:
        recipe_name, recipe = load_with_data(load_recipe, item.recipe, item.overrides, arguments)
    except SpecError as error:
        raise SpecError(f"run '{item.name}' of the batch: {error}") from error
    except InputError as error:
        raise ImpossibleError(error) from error
    try:
        if not recipe.similarity.texts:
            check_trainable(recipe_name, recipe)
        return LoadedItem(item=item, recipe_name=recipe_name, recipe=resolve_language_model(recipe_name, recipe))
    except InputError as error:
        raise ImpossibleError(error) from error


class ImpossibleError(Exception):
    """A run that cannot be; the batch goes on without it. Its argument is the error."""


def _labels(values: Sequence[str]) -> dict[str, str]:
    """Return short names of recipes, backbones or data; with their folder if two would have the same."""
    short = {value: Path(value).stem if Path(value).suffix else Path(value).name for value in values}
    counts = Counter(short.values())
    return {
        value: label if counts[label] == 1 else "-".join(Path(value).with_suffix("").parts[-2:])
        for value, label in short.items()
    }


def _setting_label(key: str, value: Any) -> str:
    """Return a setting as a part of a name: ``seed0``, ``learning_rate0.01``, ``mixer-softmax``."""
    leaf, shown = key.rpartition(".")[2], _shown(value)
    if not isinstance(value, list) and leaf.endswith("s") and not leaf.endswith("ss"):
        leaf = leaf.removesuffix("s")
    return f"{leaf}{'' if shown[:1].isdigit() else '-'}{shown[:LONGEST_VALUE]}"


def _shown(value: Any) -> str:
    """Return a value as a cell and a name show it."""
    if isinstance(value, list):
        return "+".join(map(_shown, value))
    return value if isinstance(value, str) else toml_value(value)


def _run_name(parts: Sequence[str]) -> str:
    name = re.sub(r"[^\w.+=-]+", "_", "-".join(parts)).lstrip("._-+=") or "run"
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{fingerprint(name)[:6]}"
