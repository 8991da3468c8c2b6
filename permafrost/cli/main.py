"""The ``permafrost`` command line: its entry point, and the commands that run something.

Each command turns its options into settings of a recipe, calls :mod:`permafrost.api`, and prints the result.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import NoReturn

from permafrost import api
from permafrost.cli import options
from permafrost.cli.backbone import backbone_app
from permafrost.cli.batch import batch_app
from permafrost.cli.cache import cache_app
from permafrost.cli.console import (
    Console,
    say,
    show_json,
    show_results,
    show_similarity,
    show_training,
)
from permafrost.cli.exit_codes import run_to_exit
from permafrost.cli.inspect import inspect_app
from permafrost.cli.latents import latents_app
from permafrost.cli.prediction import prediction_app
from permafrost.cli.verb import VerbApp
from permafrost.data.errors import InputError
from permafrost.named_runs import IfDone, find_study
from permafrost.probes.config.names import JOURNAL
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult
from permafrost.probes.search.trials import StudyElsewhere

app = VerbApp(
    name="permafrost",
    help=(
        "Run a frozen language model over a corpus once, cache its hidden states by layer, and train small probes on "
        "them. An experiment is a recipe, a TOML file; --set changes one setting of it."
    ),
    epilog=(
        "Start with: permafrost run quickstart (in a checkout: python pipeline.py run quickstart), a small recipe on "
        "data that ships. Then: permafrost recipes lists all recipes, permafrost config sts explains one of them."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (inspect_app, backbone_app, prediction_app, latents_app, batch_app):
    app.add_typer(commands)
app.add_typer(cache_app, name="cache")


@app.command("run")
def run_command(
    recipe: options.RecipeName,
    data: options.DataOption = "",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    drop_leaks: options.DropLeaksOption = False,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    name: options.NameOption = "",
    if_done: options.IfDoneOption = "skip",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Run a recipe: extract latents, train, evaluate, report.

    Latents that are cached already are not extracted again. Every variant of the recipe is trained and evaluated. You
    may stop the command at any time and repeat it: long trainings go on from their last checkpoint.

    The setting finetune.cut trains the top blocks of the backbone as well; the setting multitask.schedule says how
    several tasks share a backbone.
    """
    own = options.corpus_arguments(data, columns, target)
    overrides = options.recipe_overrides(set_, max_bytes, strict, backbone, drop_leaks, device)
    result = api.run(recipe, overrides, runs, Console(), only or (), **own, name=name, if_done=if_done)
    if isinstance(result, SimilarityResult):
        show_similarity(result, as_json)
    else:
        show_training(result, as_json)


@app.command("train")
def train_command(
    recipe: options.RecipeName,
    data: options.DataOption = "",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    drop_leaks: options.DropLeaksOption = False,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    name: options.NameOption = "",
    if_done: options.IfDoneOption = "skip",
    runs: options.RunsOption = Path("runs"),
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Like run, from cached latents alone: no backbone is needed."""
    own = options.corpus_arguments(data, columns, target)
    overrides = options.recipe_overrides(set_, "", strict, backbone, drop_leaks, device)
    result = api.train(recipe, overrides, runs, Console(), only or (), **own, name=name, if_done=if_done)
    show_training(result, as_json)


@app.command("ablate")
def ablate_command(
    recipe: options.RecipeName,
    data: options.DataOption = "",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    drop_leaks: options.DropLeaksOption = False,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    variant: options.VariantOption = "",
    name: options.NameOption = "",
    if_done: options.IfDoneOption = "skip",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train the probe on subsets of its layers.

    Subsets are one layer alone, all but one, the first or the last ones, and so on; the recipe's table [ablation] says
    which are trained, and which controls. Each result has a 95 % interval and a paired test against the last layer
    alone.
    """
    own = options.corpus_arguments(data, columns, target)
    overrides = options.recipe_overrides(set_, max_bytes, strict, backbone, drop_leaks, device)
    result = api.ablate(recipe, overrides, runs, Console(), variant, **own, name=name, if_done=if_done)
    show_training(result, as_json)


@app.command("study")
def study_command(
    recipe: options.RecipeName,
    data: options.DataOption = "",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    drop_leaks: options.DropLeaksOption = False,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    name: options.StudyName = "",
    if_done: options.IfDoneOption = "skip",
    trials: options.TrialsOption = None,
    workers: options.WorkersOption = 1,
    storage: options.StorageOption = None,
    variant: options.VariantOption = "",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    dashboard: options.DashboardOption = False,
    port: options.PortOption = 8080,
    as_json: options.JsonOption = False,
) -> None:
    """Search settings with Optuna, then train the best trial again.

    The recipe's table [study.space] says which settings are searched. The best trial is trained again with several
    seeds. You may stop the command at any time: a study of the same name continues.

    With --storage postgresql+psycopg://..., give the same command on any number of hosts, at any time: each runs trials
    that no other runs, those of a host that dies are taken over, and one of them writes the results and trains the best
    trial again. The others end with a line that says which.
    """
    own = options.corpus_arguments(data, columns, target)
    overrides = options.recipe_overrides(set_, max_bytes, strict, backbone, drop_leaks, device)
    settings = (name, trials, workers, storage, runs, Console(), variant)

    def show() -> None:
        try:
            _show_study(*api.study(recipe, overrides, *settings, **own, if_done=if_done), as_json)
        except StudyElsewhere as elsewhere:
            _show_elsewhere(elsewhere, as_json, if_done)

    if not dashboard:
        show()
        return
    folder, finished = find_study(recipe, overrides, name, trials, storage, runs, variant, **own)
    _serve_while(folder, storage, port, partial(_show_study, *finished, as_json) if finished else show)


def _serve_while(folder: Path, storage: str | None, port: int, show: Callable[[], None]) -> None:
    """Serve the dashboard of a study while it runs, and then until Ctrl-C."""
    from permafrost.probes.search.dashboard import serve_study
    from permafrost.probes.search.session_folder import StudyRunningError

    with serve_study(folder / JOURNAL, storage, port) as address:
        Console().note(f"dashboard: {address}")
        try:
            show()
            state = "the study is done"
        except StudyRunningError:
            state = "another process runs the study"
        sys.stdout.flush()
        Console().note(f"{state}; its dashboard stays at {address} until Ctrl-C")
        with suppress(KeyboardInterrupt):
            Event().wait()


def _show_elsewhere(elsewhere: StudyElsewhere, as_json: bool, if_done: IfDone) -> None:
    if if_done == "fail" and elsewhere.written:
        raise InputError(str(elsewhere))
    if as_json:
        names = ("trials", "host", "folder", "written")
        show_json({"study": elsewhere.study, "elsewhere": {name: getattr(elsewhere, name) for name in names}})
    else:
        say(elsewhere)


def _show_study(result: StudyResult, best: RunResult, as_json: bool) -> None:
    if as_json:
        chosen = {"value": result.value, "params": result.params}
        paths = {"recipe": str(result.recipe), "run": str(best.path)}
        show_json({"study": result.study, "trials": result.trials, "best": chosen} | paths)
        return
    show_results(result.folder)
    say(f"{result.trials:,} trials, {result.refused:,} refused; best {result.value:.4f}, number {result.number}")
    say(f"its recipe: {result.recipe}")
    show_training(best, as_json)


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # Read when torch loads. Threads that spin while they wait make training 20 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_to_exit(lambda: app(standalone_mode=False))
