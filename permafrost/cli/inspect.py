"""Commands that only read: the recipes that ship, their settings, and the reports of finished runs."""

from pathlib import Path

import typer

from permafrost.cli import options, render
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
    as_json: options.JsonOption = False,
) -> None:
    """Draw the report of a run again, or compare several runs.

    Several runs are compared on one page, with paired tests on the rows that they share.
    """
    for folder in run_folders:
        RunFolder(folder, ReportError)
    from permafrost.probes.reports.report import write_report  # loads matplotlib and pandas

    if len(run_folders) == 1:
        render.show_report(write_report(run_folders[0]), as_json)
    else:
        render.show_comparison(run_folders, out, as_json)
