"""Commands that look and train nothing: what ships, what can be set, the reports of finished runs."""

from pathlib import Path

import typer

from permafrost.cli import options, render

look_app = typer.Typer()


@look_app.command("recipes")
def recipes_command(as_json: options.JsonOption = False) -> None:
    """What ships: one experiment a line."""
    render.show_recipes(as_json)


@look_app.command("config")
def config_command(
    recipe: options.ShownRecipe = None,
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Every setting: its value, its type and what it means."""
    render.show_settings(recipe, set_ or (), as_json)


@look_app.command("report")
def report_command(
    run_folders: options.RunFolders,
    out: options.PageOption = Path("compare.html"),
    as_json: options.JsonOption = False,
) -> None:
    """Draw a report again, or compare several runs on one page."""
    from permafrost.probes.reports.report import write_report

    if len(run_folders) == 1:
        render.show_report(write_report(run_folders[0]), as_json)
    else:
        render.show_comparison(run_folders, out, as_json)
