"""Commands that only read: the recipes that ship, their settings, and the reports of finished runs."""

import json
import textwrap
from pathlib import Path
from typing import Any

import typer

from permafrost.cli import options
from permafrost.cli.console import show_grid, show_json, show_table
from permafrost.data.spec import SpecError, manual, nearest, plain, read_toml
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.grid import to_latex, to_markdown
from permafrost.probes.results.run_folder import ReportError, RunFolder

inspect_app = typer.Typer()

FORMATS = {"markdown": to_markdown, "latex": to_latex}
"""Format of printed tables -> its renderer."""


@inspect_app.command("recipes")
def recipes_command(as_json: options.JsonOption = False) -> None:
    """List the recipes that ship, what they do and how long they take."""
    recipes = {name: read_toml(path.read_text("utf-8"), str(path)) for name, path in shipped_recipes().items()}
    if as_json:
        show_json({"recipes": {name: recipe.get("summary", "") for name, recipe in recipes.items()}})
    else:
        lines = [[name, recipe.get("summary", ""), recipe.get("duration", "")] for name, recipe in recipes.items()]
        show_table(["recipe", "what it does", "duration"], lines)


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
        print(f"{entry['key']} = {json.dumps(entry['value'], ensure_ascii=False)}    ({entry['type']})")
        print(textwrap.indent(textwrap.fill(entry["meaning"], 96), "    "))


@inspect_app.command("report")
def report_command(
    run_folders: options.RunFolders,
    out: options.PageOption = Path("compare.html"),
    table_format: options.FormatOption = "",
    as_json: options.JsonOption = False,
) -> None:
    """Draw the report of a run again, or compare several runs.

    Several runs are compared on one page, with paired tests on the rows that they share. With --format the tables of
    results are printed instead: those of one run, or the comparison of several.
    """
    if table_format and table_format not in FORMATS:
        raise SpecError(f"--format {table_format!r}: {nearest(table_format, FORMATS)}")
    if table_format and as_json:
        raise SpecError("--format and --json both say what is printed: give one of them.")
    for folder in run_folders:
        RunFolder(folder, ReportError)
    from permafrost.probes.reports.compare import comparison, comparison_grid, write_comparison  # loads pandas
    from permafrost.probes.reports.report import result_grids, write_report  # loads matplotlib

    compared = comparison(run_folders) if len(run_folders) > 1 else None
    if table_format:
        grids = result_grids(run_folders[0]) if compared is None else [comparison_grid(compared)]
        if not grids:
            raise ReportError(f"{run_folders[0]} has no tables of results to print.")
        print("\n".join(FORMATS[table_format](grid) for grid in grids), end="")
        return
    page = write_report(run_folders[0]) if compared is None else write_comparison(compared, out)
    if as_json:
        runs = {} if compared is None else {"runs": json.loads(compared.to_json(orient="records"))}
        show_json({"report": str(page)} | runs)
        return
    if compared is not None:
        show_grid(comparison_grid(compared))
    print(page)
