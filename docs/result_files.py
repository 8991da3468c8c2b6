"""The files docs/results/*.json: reading, writing, and making them of a finished run or of what a command prints."""

import json
import platform
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from permafrost.data.spec import plain
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.config.names import RANDOM_TARGETS, UNTRAINED
from permafrost.probes.results.formatting import format_duration, format_size
from permafrost.probes.results.metric_row import SAVED_PARAMETERS, TRAINED_PARAMETERS
from permafrost.probes.results.run_folder import environment
from permafrost.probes.results.run_tables import Tables, read_tables

FOLDER = Path(__file__).parent / "results"
BY_HAND = ("title", "order", "section", "notes", "layout", "summary")
"""Keys that are written by hand and stay if a result is measured again."""

VERSIONS = ("python", "torch", "transformers")
KEPT = ("variant", "view", "subset", "layer", "control", "task", "split", "metric")
FIGURES = ("value", "low", "high")

Result = dict[str, Any]


def read(name: str) -> Result:
    """One result."""
    found: Result = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def read_all() -> dict[str, Result]:
    """Name -> result, in the order in which pages show them."""
    results = {path.stem: read(path.stem) for path in sorted(FOLDER.glob("*.json"))}
    return dict(sorted(results.items(), key=lambda item: item[1]["order"]))


def write(name: str, result: Mapping[str, Any]) -> None:
    """Write a result, one row a line; what was written by hand in an earlier file of this name stays."""
    path = FOLDER / f"{name}.json"
    before = read(name) if path.is_file() else {}
    whole: Result = {"title": name, "order": 1000, "section": "Other", "notes": []}
    whole |= {key: before[key] for key in BY_HAND if key in before} | dict(result)
    FOLDER.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(f" {_dump(key)}: {_lines(value)}" for key, value in whole.items()) + "\n}\n")


def of_run(folder: Path) -> Result:
    """Result of a finished run or ablation: command, date, commit, machine, versions and metrics."""
    record = json.loads((folder / "record.json").read_text("utf-8"))
    experiment, run = record["experiment"], read_tables(folder)
    rows = run.metrics.astype(object)
    recipe = re.sub(r"-\d+$", "", folder.resolve().name).removeprefix("ablate-")
    counted = {key: record[key] for key in ("texts", "texts_distinct", "texts_run", "selected") if key in record}
    counted["seconds"] = round(record["seconds"]["all"], 1)
    return {
        "command": " ".join(
            ["permafrost", "ablate" if experiment == "ablation" else "run", recipe, *_settings(recipe, folder)]
        ),
        "date": datetime.fromtimestamp((folder / "record.json").stat().st_mtime, UTC).date().isoformat(),
        "commit": (record["commit"] or "unknown")[:7],
        "machine": record["machine"],
        "versions": {name: record["versions"][name] for name in VERSIONS},
        **counted,
        "metrics": list(_metrics(rows.where(rows.notna(), None).to_dict("records"))),
        **_variants(run),
        **({"layout": "layers"} if experiment == "layers" else {}),
    }


def of_output(command: Sequence[str]) -> Result:
    """Output of a command as a result: what it prints, and where and when it ran.

    A first line that names the machine and versions (``MACHINE; NAME VERSION, ...``) becomes those.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{shlex.join(command)} ended with {done.returncode}: nothing is written.")
    lines, here = done.stdout.rstrip("\n").split("\n"), environment()
    machine, _, versions = lines[0].partition("; ")
    if versions.startswith("Python "):
        lines, known = lines[1:], dict(item.rsplit(" ", 1) for item in versions.split(", "))
        known["python"] = known.pop("Python")
    else:
        machine, known = f"{platform.machine()}, {here['machine'].partition(', ')[2]}", {}
    return {
        "command": shlex.join(command),
        "date": date.today().isoformat(),
        "commit": (here["commit"] or "unknown")[:7],
        "machine": machine,
        "versions": known or {name: here["versions"][name] for name in VERSIONS},
        "output": lines,
    }


def _metrics(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows that the screen shows: means over seeds, untrained references at their best layer."""
    summed = [row for row in rows if row["seed"] is None and not row["metric"].endswith("_p")]
    splits: dict[Any, set[str]] = {}
    for row in summed:
        splits.setdefault(row["task"], set()).add(row["split"])
    selection = "held-out" if any(row["split"] == "held-out" for row in summed) else "validation"
    first = {row["task"]: row["metric"] for row in reversed(summed)}
    best: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in summed:
        untrained = row["variant"].startswith(UNTRAINED) and row["layer"] is not None
        if untrained and row["split"] == selection and row["metric"] == first[row["task"]]:
            reference = row["variant"], row["view"], row["task"]
            best[reference] = max(best.get(reference, row), row, key=lambda one: one["value"])
    for row in summed:
        chosen = best.get((row["variant"], row["view"], row["task"]), row)
        scored = "test" if "test" in splits[row["task"]] else "validation"
        split = "train" if row["control"] == RANDOM_TARGETS else scored
        if row["split"] == split and row["layer"] == chosen["layer"]:
            kept = {key: row[key] for key in (*KEPT, *FIGURES) if row[key] is not None and row[key] != ""}
            # pandas reads a column with gaps as float
            yield kept | ({"layer": int(kept["layer"])} if "layer" in kept else {})


def _variants(run: Tables) -> Result:
    """What each variant cost; nothing for subsets of layers."""
    counts = run.counts[run.counts["subset"] == ""]
    heads = {TRAINED_PARAMETERS: "parameters", SAVED_PARAMETERS: "saved"}
    costs: dict[str, dict[str, Any]] = {}
    for _, row in counts[counts["metric"].isin(list(heads))].iterrows():
        costs.setdefault(row["variant"], {"variant": row["variant"]})[heads[row["metric"]]] = int(row["value"])
    for variant, paid in run.record_table("costs").items():
        if variant in costs:
            costs[variant]["duration"] = format_duration(paid["seconds"])
            costs[variant]["memory"] = format_size(paid["memory"]).replace("\u00a0", " ")
    return {"variants": list(costs.values())} if costs else {}


def _settings(recipe: str, folder: Path) -> list[str]:
    """``--set`` and ``--only`` options that lead from the shipped_recipes recipe to that of the run."""
    if recipe not in shipped_recipes():
        return []
    before, after = plain(load_recipe(recipe)[1]), tomllib.loads((folder / "recipe.toml").read_text("utf-8"))
    known, trained = ([variant["name"] for variant in tree.pop("variants", [])] for tree in (before, after))
    only = [word for name in trained for word in ("--only", name)] if set(trained) < set(known) else []
    changed = dict(_changes(before, after))
    return only + [word for key, value in changed.items() for word in ("--set", shlex.quote(f"{key}={value}"))]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict) and value:
            yield from _changes(before[key], value, f"{prefix}{key}.")
        elif before.get(key) != value:
            yield prefix + key, value if isinstance(value, str) else _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {_dump(item)}" for item in value) + "\n ]"
    return _dump(value)
