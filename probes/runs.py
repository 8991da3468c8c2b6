"""The run folder: whole or absent, never overwritten.

recipe.toml  record.json  metrics.csv  predictions.csv  probe.safetensors  figures/  report.html
"""

import html
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data.corpus import Corpus
from data.errors import InputError, PermafrostError
from data.plan import Identity
from data.spec import parse, read_toml, to_toml
from probes.calibration import Calibration
from probes.experiment import Inputs, Trained, build
from probes.figures import draw_all
from probes.probe import Probe
from probes.recipe import Recipe

FORMAT = 1


class RunError(InputError):
    """A folder that is no finished run of this version."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that a run leaves behind."""

    recipe: Recipe
    corpus: Corpus
    trained: Sequence[Trained]
    selected: str
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    record: Mapping[str, Any]
    metric: str
    """The metric that chose."""


def write_run(runs: Path, name: str, outcome: Outcome) -> Path:
    """Write the run under a temporary name, then give it the next free ``<recipe>-<n>``."""
    runs.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=runs))
    try:
        temporary.chmod(0o755)
        (temporary / "recipe.toml").write_text(to_toml(outcome.recipe), "utf-8")
        (temporary / "record.json").write_text(json.dumps(outcome.record, indent=2, ensure_ascii=False), "utf-8")
        outcome.metrics.to_csv(temporary / "metrics.csv", index=False, lineterminator="\n")
        outcome.predictions.to_csv(temporary / "predictions.csv", index=False, lineterminator="\n")
        _save_probe(temporary / "probe.safetensors", outcome)
        drawn = draw_all(temporary / "figures", outcome.metrics, outcome.predictions, outcome.trained, outcome.metric)
        (temporary / "report.html").write_text(_report(name, outcome, drawn), "utf-8")
        return _claim(runs, name, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run, ready to predict from latents."""

    path: Path
    recipe: Recipe
    """The selected variant's."""

    identity: Identity
    """Of the latents it was trained on."""

    columns: tuple[tuple[str, int], ...]
    probe: Probe
    calibration: Calibration | None
    labels: tuple[str, ...]
    score_range: tuple[float, float] | None
    sides: int


def load_run(path: Path) -> LoadedRun:
    """Read a run folder back.

    Raises:
        RunError: it is no folder of a finished run, or of another version.
    """
    try:
        return _read_run(path)
    except FileNotFoundError as error:
        raise RunError(f"{path} is no finished run: it has no {Path(str(error.filename)).name}.") from None
    except PermafrostError:
        raise
    except Exception as error:  # a run folder from elsewhere can be wrong in any way
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {str(error).splitlines()[:1]}).") from error


def _read_run(path: Path) -> LoadedRun:
    record = json.loads((path / "record.json").read_text("utf-8"))
    tree = read_toml((path / "recipe.toml").read_text("utf-8"), str(path / "recipe.toml"))
    with safe_open(path / "probe.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if about["format"] != FORMAT:
        raise RunError(f"{path} is of another version of permafrost (format {about['format']}, this reads {FORMAT}).")
    recipe = parse(Recipe, tree, str(path / "recipe.toml")).expanded()[about["variant"]]
    columns = tuple((str(view), int(layer)) for view, layer in about["columns"])
    labels, score_range = tuple(about["labels"]), tuple(about["score_range"]) if about["score_range"] else None
    calibration = None
    if "calibration.x" in tensors:
        calibration = Calibration(tensors.pop("calibration.x").numpy(), tensors.pop("calibration.y").numpy())
    layers, _, width = tensors["center"].shape
    if layers != len(columns):
        raise RunError(f"{path}: probe.safetensors has {layers} layers, its description {len(columns)}.")
    probe = build(recipe, labels, int(about["sides"]), Inputs(torch.empty(layers, 0, width), columns))
    probe.load_state_dict(tensors)
    identity = Identity.from_json(record["stores"][about["variant"]]["identity"])
    return LoadedRun(
        path, recipe, identity, columns, probe.eval(), calibration, labels, score_range, int(about["sides"])
    )


def _save_probe(path: Path, outcome: Outcome) -> None:
    members = [one for one in outcome.trained if one.variant == outcome.selected]
    best = max(members, key=lambda one: one.fitted.best_value)
    corpus = outcome.corpus
    about = {
        "format": FORMAT,
        "variant": best.variant,
        "seed": best.seed,
        "columns": best.inputs.columns,
        "sides": corpus.split("train").sides.shape[1],
        "labels": corpus.labels,
        "score_range": corpus.score_range,
    }
    tensors = dict(best.probe.state_dict())
    if best.calibration:
        tensors["calibration.x"] = torch.from_numpy(np.ascontiguousarray(best.calibration.x))
        tensors["calibration.y"] = torch.from_numpy(np.ascontiguousarray(best.calibration.y))
    save_file(tensors, path, {"about": json.dumps(about)})


def _claim(runs: Path, name: str, temporary: Path) -> Path:
    number = 1
    while True:
        target = runs / f"{name}-{number}"
        try:
            target.mkdir()
        except FileExistsError:
            number += 1
            continue
        os.replace(temporary, target)  # onto the empty folder just claimed
        return target


def _report(name: str, outcome: Outcome, drawn: Sequence[Path]) -> str:
    shown = outcome.metrics[outcome.metrics["seed"].isna()].drop(columns="seed")
    table = shown.to_html(index=False, border=0, na_rep="", float_format=lambda value: f"{value:.4g}")
    figures = "\n".join(f"<figure>{_svg(path)}</figure>" for path in drawn)
    record = html.escape(json.dumps(outcome.record, indent=2, ensure_ascii=False))
    return _PAGE.format(
        name=html.escape(name),
        summary=html.escape(outcome.recipe.summary),
        selected=html.escape(outcome.selected),
        figures=figures,
        table=table,
        record=record,
        recipe=html.escape(to_toml(outcome.recipe)),
    )


def _svg(path: Path) -> str:
    text = path.read_text("utf-8")
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · permafrost</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto; }}
th, td {{ padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884; }}
figure {{ margin: 1rem 0; background: #fff; border-radius: .5rem; }}
svg {{ max-width: 100%; height: auto; }}
pre {{ overflow-x: auto; font-size: .8rem; }}
</style></head><body>
<h1>{name}</h1>
<p>{summary}</p>
<p>Chosen on validation: <strong>{selected}</strong>.</p>
{figures}
<h2>Metrics</h2>
<p>Brackets are bootstrap 95 % intervals over rows; a row without a seed is the mean over seeds.</p>
{table}
<h2>Recipe</h2><pre>{recipe}</pre>
<h2>Record</h2><pre>{record}</pre>
</body></html>
"""
