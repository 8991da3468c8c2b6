"""What differs between runs: settings of their recipes, data, weights and versions; and names of runs made of it.

Settings that change no weight and no figure are left out. Reads the record and the recipe of a run alone.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from permafrost.data.errors import InputError
from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import Tree, fingerprint, flatten_settings, parse, plain, printable
from permafrost.probes.config.names import RECIPE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.grid import Grid, cell_text
from permafrost.probes.results.run_folder import RunFolder

Settings = Mapping[str, Mapping[str, str]]
"""Dotted key -> run -> value; a run without the key is absent."""

ABSENT = "–"

MOST_KEYS, LONGEST_VALUE, LONGEST_CELL = 4, 24, 60
"""Settings in the name of a run, and characters of a value there and in the table."""

TABLES = ("experiment", "plan", "finetune", "plans", "probe", "corpus", "train", "pretraining")
"""Tables of a recipe whose settings name a run first; then come all others."""

ONLY_OF = {"ablation": ("ablation", "layers"), "study": ("study",), "similarity": ("similarity",)}
"""Table of a recipe -> the experiments that read it, if not all do."""

VERSIONS = ("permafrost", "torch", "transformers")
"""Packages whose versions the figures of a run may depend on."""


def what_differs(runs: Mapping[str, RunFolder]) -> Settings:
    """Return the settings that are not the same in all runs, name of the run -> its folder."""
    recipes = {name: settings for name, run in runs.items() if (settings := _recipe_settings(run))}
    found = _differing(recipes, len(recipes)) | _differing({name: _recorded(run.record) for name, run in runs.items()})
    further = _data_digests(runs) | ({} if any(key.endswith("backbone") for key in found) else _weights(runs))
    return dict(sorted((found | further).items(), key=lambda item: _rank(item[0])))


def run_labels(differing: Settings, names: Sequence[str]) -> dict[str, str]:
    """Return name of a run -> what tells it from the others, ``backbone=minilm, views=mean``; empty if nothing differs.

    Besides the first ``MOST_KEYS`` settings, those are in it that tell further runs apart. Runs that have the same
    settings have their names too.
    """
    if not differing:
        return {}
    leaves = Counter(key.rpartition(".")[2] for key in differing)
    parts: dict[str, list[str]] = {name: [] for name in names}
    for count, (key, values) in enumerate(differing.items()):
        told_apart = {(*part, values.get(name, "")) for name, part in parts.items()}
        if count >= MOST_KEYS and len(told_apart) == len({tuple(part) for part in parts.values()}):
            continue
        leaf = key.rpartition(".")[2]
        shown = leaf if leaves[leaf] == 1 and key.count(".") == 1 else key
        short = _shortened(values.values(), LONGEST_VALUE)
        for name, value in values.items():
            parts[name].append(f"{shown}={short[value]}")
    labels = {name: ", ".join(part) for name, part in parts.items()}
    shared = Counter(labels.values())
    return {
        name: name if not label else label if shared[label] == 1 else f"{label} ({name})"
        for name, label in labels.items()
    }


def differences_grid(differing: Settings, names: Sequence[str]) -> Grid | None:
    """Return the table of what differs, a line for each setting and a column for each run; None if nothing differs."""
    if not differing:
        return None
    lines = []
    for key, values in differing.items():
        short = _shortened(values.values(), LONGEST_CELL)
        lines.append([cell_text(key, 80), *(short[values[name]] if name in values else ABSENT for name in names)])
    return Grid(
        caption="What differs between the runs: settings, data and versions. A dash: the run has no such setting.",
        heads=["setting", *(cell_text(name, 60) for name in names)],
        rows=lines,
        text_columns=len(names) + 1,
    )


def _differing(settings: Mapping[str, Mapping[str, str]], runs: int = 0) -> dict[str, dict[str, str]]:
    """Return the keys whose values differ, or that fewer than so many runs have; run -> key -> value."""
    keys = dict.fromkeys(key for of_run in settings.values() for key in of_run)
    found = {key: {name: of_run[key] for name, of_run in settings.items() if key in of_run} for key in keys}
    return {key: values for key, values in found.items() if len(values) < runs or len(set(values.values())) > 1}


def _rank(key: str) -> tuple[int, bool]:
    """Return the place of a setting in order: its table, and those of single tasks, plans and variants at the end."""
    table = key.partition(".")[0]
    return TABLES.index(table) if table in TABLES else len(TABLES), key.count(".") > 1


def _recipe_settings(run: RunFolder) -> dict[str, str]:
    """Return the settings of a run's recipe that its kind of run reads; empty if it has no recipe that can be read."""
    try:
        tree: Tree = read_toml(run.read(RECIPE).decode("utf-8"), RECIPE)
    except (InputError, UnicodeDecodeError):
        return {}
    with suppress(InputError):  # of another version
        tree = plain(parse(Recipe, tree, RECIPE).relevant_settings()) if tree else {}
    for table, kinds in ONLY_OF.items():
        if run.record.get("experiment") not in kinds:
            tree.pop(table, None)
    variants = tree.get("variants")
    if isinstance(variants, list) and all(isinstance(variant, dict) for variant in variants):
        tree["variants"] = {str(variant.get("name")): variant.get("set", {}) for variant in variants}
    return {key: _as_text(value) for key, value in flatten_settings(tree)}


def _recorded(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a record says besides the recipe: what ran, what was evaluated, versions, and parts of others."""
    settings = {"experiment": str(record.get("experiment", ""))}
    evaluations = [about for about in _table(record.get("evaluations")).values() if isinstance(about, Mapping)]
    for key in ("run", "task", "data", "split"):
        if values := list(dict.fromkeys(str(about.get(key, "")) for about in evaluations)):
            settings[f"evaluated {key}"] = ", ".join(values)
    settings |= {part: str(code) for part, code in _table(record.get("plugins")).items()}
    versions = _table(record.get("versions"))
    return settings | {f"{name} version": str(versions[name]) for name in VERSIONS if name in versions}


def _data_digests(runs: Mapping[str, RunFolder]) -> dict[str, dict[str, str]]:
    """Return the digests of corpora whose settings are the same and whose content is not."""
    tables = {name: _table(run.record.get("data")) for name, run in runs.items()}
    found = {}
    for spec in dict.fromkeys(spec for table in tables.values() for spec in table):
        values = {name: str(table[spec])[:8] for name, table in tables.items() if spec in table}
        if len(set(values.values())) > 1:
            corpus = _table(runs[next(iter(values))].record.get("corpus")).get("name", "")
            found[f"data of {corpus}" if f"data of {corpus}" not in found else f"data of {spec}"] = values
    return found


def _weights(runs: Mapping[str, RunFolder]) -> dict[str, dict[str, str]]:
    """Return the digests of the weights of backbones if they are not the same in all runs."""
    found = {}
    for name, run in runs.items():
        plans = [
            plan for of_variant in _table(run.record.get("stores")).values() for plan in _table(of_variant).values()
        ]
        weights = {str(_table(_table(plan).get("identity")).get("weights", ""))[:8] for plan in plans} - {""}
        if weights:
            found[name] = ", ".join(sorted(weights))
    return {"weights of the backbone": found} if len(set(found.values())) > 1 else {}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _as_text(value: str) -> str:
    """Return a value of :func:`flatten_settings` as ``--set`` takes it: words without quotes, lists with commas."""
    content = json.loads(value)
    if isinstance(content, list):
        return ",".join(item if isinstance(item, str) else json.dumps(item) for item in content)
    return content if isinstance(content, str) else value


def _shortened(values: Iterable[str], longest: int) -> dict[str, str]:
    """Return value -> the value in at most about ``longest`` characters; different values stay different."""
    distinct = {value: printable(value) for value in values}
    by_name = {value: value.rstrip("/").rpartition("/")[2] or value for value in distinct}
    for candidate in (by_name, distinct):
        names = {
            value: text if len(text) <= longest else f"{text[: longest // 2]}…{text[-(longest // 2 - 1) :]}"
            for value, text in ((value, candidate[value] if len(distinct[value]) > longest else distinct[value])
                for value in distinct)
        }  # fmt: skip
        if len(set(names.values())) == len(distinct):
            return {value: text or '""' for value, text in names.items()}
    return {value: f"{text[: longest - 7]}… {fingerprint(value)[:6]}" for value, text in distinct.items()}
