"""Commands that only read: the recipes that ship, their settings, and the reports of finished runs."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost import inspection
from permafrost.cli import options
from permafrost.cli.console import cell, say, show_facts, show_grid, show_json, show_table
from permafrost.cli.verb import VerbApp
from permafrost.data.plugin_registry import installed_parts
from permafrost.data.settings.toml import read_toml_file
from permafrost.data.spec import SpecError, manual, nearest, plain
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.grid import to_latex, to_markdown
from permafrost.probes.results.run_folder import ReportError, RunFolder

if TYPE_CHECKING:  # loads numpy, half of the time of a refused command
    import numpy as np
    from numpy.typing import NDArray

    from permafrost.data.readers.summary import CorpusSummary

inspect_app = VerbApp()

MOST_CHARACTERS = 60
"""Characters of a cell of a row that is shown."""

LOOK_FACTS = ("splits", "labels", "scores", "texts", "repeated", "tokens")

FORMATS = {"markdown": to_markdown, "latex": to_latex}
"""Format of printed tables -> its renderer."""


@inspect_app.command("recipes")
def recipes_command(as_json: options.JsonOption = False) -> None:
    """List the recipes that ship, what they do and how long they take."""
    recipes = {name: read_toml_file(path) for name, path in shipped_recipes().items()}
    if as_json:
        show_json({"recipes": {name: recipe.get("summary", "") for name, recipe in recipes.items()}})
    else:
        lines = [[name, recipe.get("summary", ""), recipe.get("duration", "")] for name, recipe in recipes.items()]
        show_table(["recipe", "what it does", "duration"], lines)


@inspect_app.command("plugins")
def plugins_command(as_json: options.JsonOption = False) -> None:
    """List the heads, losses, poolings, readers and metrics of other installed packages, and whether they load."""
    heads = ["kind", "name", "package", "version", "problem"]
    lines = [[each.kind.kind, each.name, each.package, each.version, each.problem()] for each in installed_parts()]
    if as_json:
        show_json({"plugins": [dict(zip(heads, line, strict=True)) for line in lines]})
    elif lines:
        show_table(heads, lines)
    else:
        say("No installed package has parts for permafrost; docs/guide/plug-ins.md shows how to write one.")


@inspect_app.command("config")
def config_command(
    recipe: options.ShownRecipe = None,
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Explain every setting: its value, type and meaning."""
    values = plain(load_recipe(recipe, set_ or ())[1] if recipe else Recipe())
    settings = []
    for setting in manual(Recipe):
        value: Any = values
        for key in setting.key.split("."):
            value = value[key]
        settings.append({"key": setting.key, "value": value, "type": setting.type, "meaning": setting.meaning})
    if as_json:
        show_json({"settings": settings})
        return
    for entry in settings:
        say(f"{entry['key']} = {json.dumps(entry['value'], ensure_ascii=False)}    ({entry['type']})")
        say(textwrap.indent(textwrap.fill(entry["meaning"], 96), "    "), several_lines=True)


@inspect_app.command("look")
def look_command(
    data: options.LookedData,
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "minilm",
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show what a run would read from a file: columns, target, splits, rows, lengths. Nothing is run.

    Lengths are tokens of the backbone. The settings of the table [corpus] can be changed by --set.
    """
    summary, lengths = inspection.look(
        **options.corpus_arguments(data, columns, target), overrides=set_ or (), backbone=backbone
    )
    facts = asdict(summary) | {"texts": len(summary.texts), "tokens": _length_facts(lengths)}
    if as_json:
        show_json({"look": facts})
        return
    show_look(summary, facts)


def _length_facts(lengths: "NDArray[np.int64]") -> dict[str, int]:
    """Return how long texts are, in tokens."""
    if not len(lengths):
        return {}
    ordered = sorted(lengths.tolist())
    middle, most = ordered[len(ordered) // 2], ordered[int(0.95 * len(ordered))]
    return {"shortest": ordered[0], "median": middle, "95 %": most, "longest": ordered[-1]}


def show_look(summary: "CorpusSummary", facts: Mapping[str, Any]) -> None:
    """Print what a corpus holds: its columns, its first rows, counts and notes."""
    say(summary.description, several_lines=True)
    tables = [summary.columns, summary.rows] if summary.columns else [summary.rows]
    for table in filter(None, tables):
        say("")
        show_table(list(table[0]), [[cell(value)[:MOST_CHARACTERS] for value in row.values()] for row in table])
    say("")
    show_facts({key: value for key, value in facts.items() if value and key in LOOK_FACTS})
    for note in summary.notes:
        say(note, several_lines=True)
    if summary.problem:
        say(f"a run would stop: {summary.problem}")


@inspect_app.command("report")
def report_command(
    run_folders: options.RunFolders,
    out: options.PageOption = Path("compare.html"),
    table_format: options.FormatOption = "",
    as_json: options.JsonOption = False,
) -> None:
    """Draw the report of a run again, or compare several runs.

    Several runs are compared on one page: what differs between their settings, and paired tests on the rows that they
    share. With --format the tables of results are printed instead: those of one run, or the comparison of several.
    """
    if table_format and table_format not in FORMATS:
        raise SpecError(f"--format {table_format!r}: {nearest(table_format, FORMATS)}")
    if table_format and as_json:
        raise SpecError("--format and --json both say what is printed: give one of them.")
    for folder in run_folders:
        RunFolder(folder, ReportError)
    if len(run_folders) > 1:
        _compare(run_folders, out, table_format, as_json)
        return
    from permafrost.probes.reports.report import result_grids, write_report  # loads matplotlib and pandas

    if table_format:
        grids = result_grids(run_folders[0])
        if not grids:
            raise ReportError(f"{run_folders[0]} has no tables of results to print.")
        say("\n".join(FORMATS[table_format](grid) for grid in grids).removesuffix("\n"), several_lines=True)
        return
    page = write_report(run_folders[0])
    if as_json:
        show_json({"report": str(page)})
    else:
        say(page)


def _compare(run_folders: list[Path], out: Path, table_format: str, as_json: bool) -> None:
    """Compare several runs: print the tables in a format, or write the page."""
    from permafrost.probes.reports import compare  # loads matplotlib and pandas

    compared, settings = compare.comparison(run_folders), compare.settings_grid(run_folders)
    grids = [compare.comparison_grid(compared), *([settings] if settings else [])]
    if table_format:
        say("\n".join(FORMATS[table_format](grid) for grid in grids).removesuffix("\n"), several_lines=True)
        return
    page = compare.write_comparison(compared, out, settings)
    if as_json:
        runs = json.loads(compared.to_json(orient="records"))
        show_json({"report": str(page), "runs": runs, "differs": compare.differing_settings(run_folders)})
        return
    for grid in grids:
        show_grid(grid)
    say(page)
