"""The command batch: many runs, from a batch file or from recipes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from permafrost.batches.spec import toml_or_text
from permafrost.cli import options
from permafrost.cli.console import Console, say, show_json, show_table
from permafrost.cli.verb import VerbApp
from permafrost.data.spec import SpecError

batch_app = VerbApp()

BatchWords = Annotated[
    list[str], typer.Argument(metavar="FILE|RECIPE...", help="A batch file, or recipes by name or path.")
]
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", metavar="NAME", help="Run every recipe with this one. Repeatable.")
]
DataFiles = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE|FOLDER|NAME", help="Run every recipe on this data. Repeatable."),
]
GridOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="KEY=[A, B]",
        help="Run every recipe with each value of a setting, e.g. 'train.seeds=[0, 1]'. Repeatable.",
    ),
]
NameOption = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the batch and of its folder. Default: that of the file.")
]
Workers = Annotated[int, typer.Option(metavar="N", help="Processes that train in parallel.")]


@batch_app.command("batch")
def batch_command(
    words: BatchWords,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    grid: GridOption = None,
    backbone: Backbones = None,
    data: DataFiles = None,
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    name: NameOption = "",
    workers: Workers = 1,
    runs: options.RunsOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Run many recipes, with lists of backbones, data files and settings.

    Texts of all runs are extracted first, each once. A run that is done is skipped, one that fails does not stop the
    others, and the same command goes on after a kill. The summary of all runs is in RUNS/NAME: summary.csv and
    report.html. The exit code is 0 only if all runs are done; else 2, or 3 if the machine failed.
    """
    given: dict[str, Any] = {"backbones": backbone, "data": data, "name": name, "target": target}
    given |= {"columns": options.column_names(columns), "grid": dict(map(_axis, grid or ()))}
    from permafrost.batches.run_batch import run_batch
    from permafrost.batches.summary import table_of

    keys = {key: value for key, value in given.items() if value}
    result = run_batch(words, runs, workers, Console(), options.recipe_overrides(set_, device=device), **keys)
    if as_json:
        about = {"batch": str(result.path), "texts_run": result.texts_run, "failed": result.failed}
        done = {run: str(result.path / run) for run, outcome in result.outcomes.items() if not outcome.error}
        show_json(about | {"runs": done, "summary": result.rows})
    else:
        show_table(*table_of(result.varied, result.rows))
        say(f"runs: {len(result.outcomes):,}, failed {len(result.failed):,}; texts run {result.texts_run:,}")
        say(f"batch: {result.path}")
    for run, error in result.failed.items():
        say(f"{run}: {error}", error=True)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _axis(word: str) -> tuple[str, list[Any]]:
    """Return a key and its values, of ``KEY=[A, B]`` or ``KEY=A,B``."""
    key, equals, values = word.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise SpecError(f"--grid {word!r}: expected KEY=[A, B], for example --grid 'train.seeds=[0, 1]'.")
    whole = toml_or_text(values)
    items = whole if isinstance(whole, list) else [toml_or_text(item) for item in values.strip().strip("[]").split(",")]
    return key.strip(), items
