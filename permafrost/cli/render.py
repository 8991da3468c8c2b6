"""What a command did, as its user sees it: a table and a few lines, or one JSON object.

Importing this is cheap, so that asking for help is; what needs torch is imported by whoever shows it.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.cli.console import cell, show_json, show_table
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import HELD_OUT
from permafrost.data.spec import manual, plain
from permafrost.probes.config.names import CORRELATIONS, RANDOM_TARGETS, UNTRAINED
from permafrost.probes.results.formatting import duration, scored_in, size, with_interval

if TYPE_CHECKING:
    from permafrost.probes.experiments.language_model import PretrainingResult
    from permafrost.probes.inputs.providers import PlanLatents
    from permafrost.probes.prediction.requests import PredictionRequest
    from permafrost.probes.results.outcomes import AblationResult, RunResult, SimilarityResult, StudyResult


def show_run(done: "RunResult | SimilarityResult", as_json: bool) -> None:
    """A run: it trained, or compared sentences."""
    from permafrost.probes.results.outcomes import SimilarityResult

    if isinstance(done, SimilarityResult):
        show_compared(done, as_json)
    else:
        show_done(done, as_json)


def show_done(done: "RunResult", as_json: bool) -> None:
    """A run that trained."""
    if as_json:
        left_out = ("path",) if done.variants else ("path", "variants")
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k not in left_out})
        return
    if done.variants:
        heads, lines = multitask_headline(done.metrics, done.variants)
    elif done.selected:
        heads, lines = run_headline(done.metrics, done.parameters, done.backbone_parameters)
    else:
        heads, lines = layers_headline(done.metrics)
    show_table(heads, [[cell(value) for value in line] for line in lines])
    if done.selected:
        held_out = any(row["split"] == HELD_OUT for row in done.metrics)
        print(f"chosen on {HELD_OUT if held_out else 'validation'}: {done.selected}")
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_ablated(done: "AblationResult", as_json: bool) -> None:
    """An ablation."""
    if as_json:
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k != "path"})
        return

    show_table(*ablation_headline(done.metrics))
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_studied(found: "StudyResult", best: "RunResult", as_json: bool) -> None:
    """A study, and the run of its best trial."""
    if as_json:
        show_json(
            {
                "study": found.study,
                "trials": found.trials,
                "best": {"value": found.value, "params": found.params},
                "recipe": str(found.recipe),
                "run": str(best.path),
            }
        )
        return
    show_table(["best trial", ""], [[key, json.dumps(value)] for key, value in found.params.items()])
    print(f"{found.trials:,} trials, {found.refused:,} refused; best {found.value:.4f}, number {found.number}")
    print(f"its recipe: {found.recipe}")
    show_done(best, as_json)


def show_extracted(corpora: Sequence[Corpus], stored: Sequence["PlanLatents"], as_json: bool) -> None:
    """Stage one."""
    shown = {
        "stores": [str(one.store.path) for one in stored],
        "seconds": sum(one.seconds for one in stored),
        "texts": sum(corpus.sentences for corpus in corpora),
        "texts_distinct": sum(len(corpus.texts) for corpus in corpora),
        "texts_run": sum(one.texts_run for one in stored),
        "truncated": sum(one.truncated for one in stored),
    }
    if as_json:
        show_json(shown)
    else:
        show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in shown.items()])


def show_pretrained(done: "PretrainingResult", as_json: bool) -> None:
    """A language model from scratch; the run folder is there where it was pretrained just now."""
    if as_json:
        show_json({"run": done.path and str(done.path)} | done.facts)
        return
    show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in done.facts.items()])
    print(f"run: {done.path}" if done.path else "it was there already")


def show_compared(done: "SimilarityResult", as_json: bool) -> None:
    """Cosines of sentences: a line a pair, a column a backbone."""
    if as_json:
        show_json({"cosines": done.cosines.to_dict("records"), "run": str(done.path)})
        return
    wide = done.cosines.pivot(index=["first", "second"], columns="backbone", values="cosine")[list(done.backbones)]
    names = [f"{first}-{second}" for first, second in wide.index]
    lines = [[name, *(f"{value:.6f}" for value in row)] for name, row in zip(names, wide.to_numpy(), strict=True)]
    show_table(["sentences", *done.backbones], lines)
    print(f"texts: {len(done.texts):,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_report(page: Path, as_json: bool) -> None:
    """Where a report was drawn."""
    if as_json:
        show_json({"report": str(page)})
    else:
        print(page)


def show_comparison(runs: Sequence[Path], out: Path, as_json: bool) -> None:
    """Compare runs, on one page and on the screen."""
    from permafrost.probes.reports.compare import compare, comparison, on_screen

    found = comparison(runs)
    page = compare(runs, out)
    if as_json:
        show_json({"report": str(page), "runs": json.loads(found.to_json(orient="records"))})
        return
    show_table(*on_screen(found))
    print(page)


def show_predictions(
    asked: Sequence["PredictionRequest"], answers: Sequence[Mapping[str, Any]], out: Path | None, as_json: bool
) -> None:
    """What a run answered: a line an item, or an entity; where it was written, if it was."""
    from permafrost.probes.prediction.output import answers_in_json, shown

    if as_json:
        show_json({"predictions": answers_in_json(asked, answers)})
    elif out:
        print(f"answers: {len(answers):,}, to {out}")
    else:
        lines = shown(asked, answers)
        show_table(list(lines[0]), [[cell(value) for value in line.values()] for line in lines])


def show_recipes(as_json: bool) -> None:
    """What ships."""
    from permafrost.probes.config.load import load_recipe, shipped

    found = {name: load_recipe(name)[1] for name in shipped()}
    if as_json:
        show_json({"recipes": {name: one.summary for name, one in found.items()}})
    else:
        show_table(
            ["recipe", "what it does", "duration"], [[name, one.summary, one.duration] for name, one in found.items()]
        )


def show_settings(recipe: str | None, overrides: Iterable[str], as_json: bool) -> None:
    """Every setting: its value, by default or in a recipe, its type and what it means."""
    from permafrost.probes.config.load import load_recipe
    from permafrost.probes.config.recipe import Recipe

    values = plain(load_recipe(recipe, overrides)[1]) if recipe else plain(Recipe())
    lines = []
    for setting in manual(Recipe):
        value: Any = values
        for key in setting.key.split("."):
            value = value[key]
        lines.append({"key": setting.key, "value": value, "type": setting.type, "meaning": setting.meaning})
    if as_json:
        show_json({"settings": lines})
        return
    for one in lines:
        print(f"{one['key']} = {json.dumps(one['value'], ensure_ascii=False)}    ({one['type']})")
        print(textwrap.indent(textwrap.fill(one["meaning"], 96), "    "))


MOST_FIGURES = 4
"""Columns of figures; of more metrics the first of each task."""

Row = Mapping[str, Any]


def multitask_headline(metrics: Sequence[Row], variants: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Heads, and a line a variant: its metrics on each task's scored split, and what it cost.

    A variant that does not train a task is not measured on it, and its cell is empty. Of what is said without training
    the last layer is shown.

    Args:
        metrics: rows of ``metrics.csv``; of a task the metric that chooses comes first.
        variants: rows of ``variants.csv``.
    """
    summed = [row for row in metrics if row["seed"] is None and not row["metric"].endswith("_p")]
    columns: list[tuple[str, str, str]] = []
    tasks = list(dict.fromkeys(row["task"] for row in summed))
    most = max(1, MOST_FIGURES // max(1, len(tasks)))
    for task in tasks:
        split = scored_in([row for row in summed if row["task"] == task])
        known = dict.fromkeys(row["metric"] for row in summed if (row["task"], row["split"]) == (task, split))
        columns += [(task, metric, split) for metric in list(known)[:most]]
    cells = {
        (row["variant"], (row["task"], row["metric"], row["split"])): with_interval(row)
        for row in sorted(summed, key=lambda row: -1 if row["layer"] is None else row["layer"])
    }
    costs = {row["variant"]: _costs(row) for row in variants}
    untrained = dict.fromkeys(row["variant"] for row in summed if row["variant"].startswith(UNTRAINED))
    names = [
        *untrained,
        *dict.fromkeys([*costs, *(row["variant"] for row in summed if row["variant"] not in untrained)]),
    ]
    lines = [
        [name, *(cells.get((name, column), "") for column in columns), *costs.get(name, [""] * 4)] for name in names
    ]
    heads = [f"{task}: {metric} on {split}" for task, metric, split in columns]
    return ["variant", *heads, "learnt", "saved", "training", "memory"], lines


def _costs(row: Row) -> list[str]:
    """Of a variant; what is not known is empty."""
    shown = {"trained": "{:,.0f}".format, "saved": "{:,.0f}".format, "seconds": duration, "memory": size}
    return ["" if row.get(name) is None else say(row[name]).replace("\u00a0", " ") for name, say in shown.items()]


def ablation_headline(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: heads, and a line per subset with its metrics on the scored split."""
    split = scored_in(rows)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        if row["split"] == split:
            key = (row["kind"], row["name"], row["layers"], row["control"], row["parameters"])
            p = f" p {row['p']:.3f}" if row["p"] is not None else ""
            lines.setdefault(key, {})[row["metric"]] = with_interval(row) + p
    heads = [f"on {split}", "", "layers", "control", "parameters", *metrics]
    return heads, [
        [kind, name, layers, control, f"{count:,}", *(cells.get(metric, "undefined: constant") for metric in metrics)]
        for (kind, name, layers, control, count), cells in lines.items()
    ]


def layers_headline(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: a line a task, a column a layer, its first metric on test, or else on validation.

    Args:
        rows: of ``metrics.csv``.
    """
    layers = sorted({row["layer"] for row in rows if row["layer"] is not None})
    metrics: dict[str, str] = {}
    for row in rows:
        metrics.setdefault(row["task"], row["metric"])
    lines: list[list[Any]] = []
    for task, metric in metrics.items():
        mine = [row for row in rows if row["task"] == task and row["metric"] == metric]
        split = scored_in(mine)
        for control in dict.fromkeys(row["variant"] for row in mine):
            on = "train" if control == RANDOM_TARGETS else split
            shown = {row["layer"]: row["value"] for row in mine if (row["variant"], row["split"]) == (control, on)}
            if shown:
                cells = [f"{shown[layer]:.3f}" if layer in shown else "" for layer in (*layers, None)]
                lines.append([task, metric, f"{control}, {on}", *cells])
    return ["task", "metric", "", *map(str, layers), "all"], lines


def run_headline(
    rows: Sequence[Mapping[str, Any]], parameters: Mapping[str, int], backbones: Mapping[str, int]
) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: heads, and a line per variant with its mean over seeds, interval and size.

    Of the untrained reference only the layer of each view is shown that is best on the split that chooses. Where a part
    of train chooses, validation is shown beside test.

    Args:
        parameters: variant -> numbers that it learnt.
        backbones: variant -> numbers of the frozen backbones under it.
    """
    selection = HELD_OUT if any(row["split"] == HELD_OUT for row in rows) else "validation"
    splits = list(dict.fromkeys([*(["validation"] if selection == HELD_OUT else []), scored_in(rows)]))
    shown = [row for row in rows if row["split"] in splits and row["seed"] is None and not row["metric"].endswith("_p")]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        of, chooses = (row["variant"], row["view"]), row["split"] == selection and row["metric"] == metrics[0]
        if chooses and row["variant"].startswith(UNTRAINED) and row["value"] > best.get(of, {"value": -2})["value"]:
            best[of] = row
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in shown:
        of = (row["variant"], row["view"])
        if of not in best or row["layer"] == best[of]["layer"]:
            place = (row["split"],) if len(splits) > 1 else ()
            lines.setdefault((*of, row["layer"], *place), {})[row["metric"]] = with_interval(row)
    heads = [f"on {' and '.join(splits)}", "view", "layer", *(["split"] if len(splits) > 1 else []), *metrics]
    return [*heads, "learnt", "of backbone"], [
        [*key, *(_cell(cells, metric) for metric in metrics), *_size(key[0], parameters, backbones)]
        for key, cells in lines.items()
    ]


def _cell(cells: Mapping[str, str], metric: str) -> str:
    return cells.get(metric, "undefined: constant" if metric in CORRELATIONS else "")


def _size(variant: str, parameters: Mapping[str, int], backbones: Mapping[str, int]) -> tuple[str, str]:
    if variant not in parameters:
        return "", ""
    share = f"{parameters[variant] / backbones[variant]:.1%}" if backbones.get(variant) else ""
    return f"{parameters[variant]:,}", share
