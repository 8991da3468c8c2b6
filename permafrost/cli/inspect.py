"""Commands that only read: the recipes that ship, their settings, and the reports of finished runs."""

from pathlib import Path

import typer

from permafrost.cli import options, render
from permafrost.data.spec import SpecError, nearest
from permafrost.probes.results.run_folder import ReportError, RunFolder

inspect_app = typer.Typer()


@inspect_app.command("recipes")
def recipes_command(as_json: options.JsonOption = False) -> None:
    """List the recipes that ship, what they do and how long they take."""
    render.show_recipes(as_json)


@inspect_app.command("config")
def config_command(
    recipe: options.ShownRecipe = None,
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Explain every setting: its value, type and meaning."""
    render.show_settings(recipe, set_ or (), as_json)


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
    if table_format and table_format not in render.FORMATS:
        raise SpecError(f"--format {table_format!r}: {nearest(table_format, render.FORMATS)}")
    if table_format and as_json:
        raise SpecError("--format and --json both say what is printed: give one of them.")
    for folder in run_folders:
        RunFolder(folder, ReportError)
    if table_format:
        render.show_formatted(run_folders, table_format)
        return
    from permafrost.probes.reports.report import write_report  # loads matplotlib and pandas

    if len(run_folders) == 1:
        render.show_report(write_report(run_folders[0]), as_json)
    else:
        render.show_comparison(run_folders, out, as_json)
