"""permafrost: frozen language models, latents cached by layer, small probes trained on them.

The command line, and a small Python interface of the same verbs::

    import pipeline
    done = pipeline.run("sts", ["plan.backbone=minilm"])
    pipeline.load(done.path).predict([("A dog runs.", "A dog is running.")])

This is where the two stages meet: it hands the latents that ``extract`` wrote to the probes that learn from them.
"""

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from data.cache_commands import cache_app
from data.corpus import Corpus, CorpusError
from data.errors import InputError
from data.exit_codes import guarded, terminate
from data.latents import find_store
from data.plan import CapturePlan, Columns, ExtractSpec
from data.progress import Progress, Silent
from data.screen import JsonOption, Screen, cell, show_json, show_table
from data.shard import StoreError
from data.spec import manual, plain

if TYPE_CHECKING:
    from extract.extraction import Extractor
    from probes.ablation import Ablated
    from probes.conduct import StageOne
    from probes.inputs import Stored
    from probes.recipe import Recipe
    from probes.run_recipe import Done
    from probes.runs import LoadedRun
    from probes.session import Studied
    from probes.trials import Evaluate

Overrides = Iterable[str]


def extract(recipe: str, overrides: Overrides = (), progress: Progress | None = None) -> tuple[Corpus, list["Stored"]]:
    """Stage one alone: run what is missing of every plan in a recipe."""
    from probes.conduct import Conductor
    from probes.recipe import load_recipe

    _, loaded = load_recipe(recipe, overrides)
    conductor = Conductor(_run_missing, progress or Silent())
    corpus = conductor.corpus(loaded.corpus)
    conductor.prepare(loaded.expanded().values())
    return corpus, list(conductor.stored.values())


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done":
    """Extract what is missing, train every variant, evaluate, and write a run folder.

    Args:
        recipe: the name of a shipped recipe, or the path of your own.
        overrides: ``a.b=value`` settings, as after ``--set``.
        only: the variants to train; empty trains all.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    return _experiment(recipe, overrides, Path(runs), progress or Silent(), only, _run_missing)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done":
    """Like :func:`run`, from cached latents alone: no backbone is found, read or loaded."""
    return _experiment(recipe, overrides, Path(runs), progress or Silent(), only, _find_cached)


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> "Ablated":
    """Train a recipe's probe, or a variant's, on subsets of its layers, and write a run folder."""
    from probes.ablation import run_ablation
    from probes.recipe import load_recipe

    name, loaded = load_recipe(recipe, overrides)
    _needs_folder(Path(runs))
    return run_ablation(name, loaded.as_one(variant), Path(runs), progress or Silent(), _run_missing)


def study(
    recipe: str,
    overrides: Overrides = (),
    name: str = "",
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> tuple["Studied", "Done"]:
    """Search a recipe's space, then train the best trial again with several seeds; returns both.

    Args:
        name: of the study; one that is there already goes on. Empty takes the recipe's.
        trials: finished trials the study is to hold in the end; None takes the recipe's.
        storage: SQLAlchemy's address of a database; None keeps a journal file in the study's folder.
    """
    from probes.conduct import Conductor, check
    from probes.recipe import load_recipe
    from probes.report import write_report
    from probes.run_recipe import run_recipe
    from probes.session import conduct
    from probes.trials import check_space

    progress, runs = progress or Silent(), Path(runs)
    of, loaded = load_recipe(recipe, overrides)
    _needs_folder(runs)
    loaded = loaded.as_one(variant)
    check_space(loaded)
    conductor = Conductor(_run_missing, progress)
    metric = check(loaded, {of: loaded}, conductor.corpus(loaded.corpus))
    conductor.prepare([loaded])
    name = name or of
    found = conduct(loaded, name, runs, make_evaluate, storage, trials, workers, progress, {"metric": metric})
    write_report(found.folder)
    progress.note(f"best of {found.trials:,} trials: number {found.number}, {found.value:.4f}; training it again")
    return found, run_recipe(f"{name}-best", load_recipe(str(found.recipe))[1], runs, progress, _run_missing)


def make_evaluate(recipe: "Recipe", folder: Path) -> "Evaluate":
    """What a worker of a study does with a trial; latents are shared in ``folder``."""
    from probes.conduct import Conductor
    from probes.shared_inputs import SharedInputs

    return Conductor(_run_missing, Silent(), SharedInputs(folder)).evaluate


class Predictor:
    """A finished run that answers new texts; the backbone is loaded once, at the first question."""

    def __init__(self, run: "LoadedRun") -> None:
        self.run = run
        self._extractors: dict[str, Extractor] = {}

    def predict(self, items: Sequence[str | tuple[str, ...]]) -> list[dict[str, Any]]:
        """One answer per item, a text or a tuple of texts: ``score``, or ``label`` and ``probabilities``."""
        from probes.predict import predict

        return predict(self.run, [(item,) if isinstance(item, str) else tuple(item) for item in items], self._latents)

    def _latents(self, plan: str, texts: Sequence[str], columns: Columns) -> Mapping[str, Any]:
        if plan not in self._extractors:
            self._extractors[plan] = self._extractor(plan)
        return self._extractors[plan](texts, columns)

    def _extractor(self, name: str) -> "Extractor":
        from extract.extraction import Extractor

        trained_on = self.run.identities[name]
        plan = replace(self.run.recipe.captured(name), compute_dtype=trained_on.compute_dtype)  # type: ignore[arg-type]
        extractor = Extractor(plan, self.run.recipe.extract)
        other = extractor.identity.differences(trained_on)
        if other:
            raise CorpusError(
                f"{self.run.path}: the backbone '{plan.backbone}' found here has other {' and '.join(other)} than "
                "the one this run was trained on; give it back what it had, or run the recipe again."
            )
        return extractor


def report(path: Path | str) -> Path:
    """Draw the figures and the page of a run, an ablation or a study again, from its tables; returns the page."""
    from probes.report import write_report

    return write_report(Path(path))


def load(path: Path | str) -> Predictor:
    """A finished run, ready to predict."""
    from probes.runs import load_run

    return Predictor(load_run(Path(path)))


def _experiment(
    name: str, overrides: Overrides, runs: Path, progress: Progress, only: Sequence[str], stage_one: "StageOne"
) -> "Done":
    from probes.recipe import load_recipe
    from probes.run_recipe import run_recipe

    name, recipe = load_recipe(name, overrides)
    _needs_folder(runs)
    return run_recipe(name, recipe.only(only), runs, progress, stage_one)


def _needs_folder(runs: Path) -> None:
    if runs.exists() and not runs.is_dir():  # said now, not after the training
        raise InputError(f"{runs}: a folder is needed here; set --runs to another.")


def _run_missing(plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> "Stored":
    from extract.extraction import extract as extract_texts
    from probes.inputs import Stored

    done = extract_texts(plan, corpus.texts, spec, progress)
    return Stored(done.store, done.columns, done.texts_run, done.truncated, done.seconds)


def _find_cached(plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> "Stored":
    from probes.inputs import Stored

    started = time.perf_counter()
    store = find_store(Path(spec.cache), plan)
    held = store.columns()
    lacking = sorted(set(plan.views) - set(held))
    if lacking:
        raise StoreError(f"{store.path} holds no view '{lacking[0]}', only {', '.join(held)}; run 'extract' first.")
    columns = plan.columns(store.layers)
    truncated = int((store.lengths(corpus.texts) > plan.max_tokens).sum())
    if truncated and plan.truncation == "refuse":
        raise StoreError(
            f'{truncated:,} texts exceed plan.max_tokens = {plan.max_tokens}; raise it, or set plan.truncation = "cut".'
        )
    return Stored(store, columns, 0, truncated, time.perf_counter() - started)


# ---------------------------------------------------------------------------------------------- the command line

app = typer.Typer(
    name="permafrost",
    help="Run a frozen language model over a corpus once, keep its activations by layer, train probes on them.",
    epilog="Start with: pipeline.py run quickstart. Then: pipeline.py recipes, pipeline.py config sts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cache_app, name="cache")

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe by name, or the path of your own .toml file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. plan.views=mean,cls. May be repeated."),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="VARIANT", help="Train this variant alone. May be repeated.")
]
VariantOption = Annotated[str, typer.Option(help="Take this variant's settings; else the recipe's own.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder that receives the run folder.")]


@app.command("run")
def run_command(
    recipe: RecipeName,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Extract what is missing, train every variant, evaluate, report."""
    _show_done(run(recipe, set_ or (), runs, Screen(), only or ()), as_json)


@app.command("train")
def train_command(
    recipe: RecipeName,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Like run, from cached latents alone. No backbone is needed."""
    _show_done(train(recipe, set_ or (), runs, Screen(), only or ()), as_json)


@app.command("ablate")
def ablate_command(
    recipe: RecipeName,
    set_: SetOption = None,
    variant: VariantOption = "",
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train on some of the layers: one alone, all but one, and so on.

    Figures have intervals and a test against the last layer alone; [ablation] says what is trained, controls included.
    """
    done = ablate(recipe, set_ or (), runs, Screen(), variant)
    if as_json:
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k != "path"})
        return
    from probes.ablation import headline

    show_table(*headline(done.metrics))
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


@app.command("study")
def study_command(
    recipe: RecipeName,
    set_: SetOption = None,
    name: Annotated[str, typer.Option(help="Name of the study; the same name goes on with it.")] = "",
    trials: Annotated[int | None, typer.Option(help="Finished trials it is to hold, those there counted.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that train trials; they share one copy of the latents.")] = 1,
    storage: Annotated[
        str | None, typer.Option(help="A database, e.g. postgresql+psycopg://user@host/name; else a journal file.")
    ] = None,
    variant: VariantOption = "",
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Search the recipe's [study.space] with Optuna.

    Stop it at any time: the same name goes on. It ends with the best trial trained again, over several seeds.
    """
    found, best = study(recipe, set_ or (), name, trials, workers, storage, runs, Screen(), variant)
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
    _show_done(best, as_json)


@app.command("report")
def report_command(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, e.g. runs/sts-1.")],
    out: Annotated[Path, typer.Option(help="Where the page that compares several runs goes.")] = Path("compare.html"),
    as_json: JsonOption = False,
) -> None:
    """Draw a report again, or compare several runs on one page."""
    if len(run_folders) == 1:
        page = report(run_folders[0])
        show_json({"report": str(page)}) if as_json else print(page)
        return
    from probes.compare import compare, comparison, on_screen

    found = comparison(run_folders)
    page = compare(run_folders, out)
    if as_json:
        show_json({"report": str(page), "runs": json.loads(found.to_json(orient="records"))})
        return
    show_table(*on_screen(found))
    print(page)


@app.command("extract")
def extract_command(recipe: RecipeName, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Stage one alone: run what is missing and store its latents. Safe to stop and to repeat."""
    corpus, stored = extract(recipe, set_ or (), Screen())
    shown = {
        "stores": [str(one.store.path) for one in stored],
        "seconds": sum(one.seconds for one in stored),
        "texts": corpus.sentences,
        "texts_distinct": len(corpus.texts),
        "texts_run": sum(one.texts_run for one in stored),
        "truncated": sum(one.truncated for one in stored),
    }
    if as_json:
        show_json(shown)
    else:
        show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in shown.items()])


@app.command("predict")
def predict_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/sts-1.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; two make a pair where the run reads pairs.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="csv, tsv, jsonl, parquet or txt with the texts.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer new texts with a finished run."""
    from probes.predict import read_items

    predictor = load(run_folder)
    sides = predictor.run.sides
    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    if file:
        items = list(read_items(predictor.run, file))
    else:
        given = texts or []
        if len(given) % sides:
            raise CorpusError(f"this run reads pairs: give an even number of texts, got {len(given)}.")
        items = [tuple(given[start : start + sides]) for start in range(0, len(given), sides)]
    answers = predictor.predict(items)
    if as_json:
        show_json({"predictions": answers})
        return
    heads = ["text"] if sides == 1 else ["first", "second"]
    keys = [key for key in answers[0] if key != "probabilities"] if answers else []
    show_table(
        [*heads, *keys],
        [[*item, *(cell(said[key]) for key in keys)] for item, said in zip(items, answers, strict=True)],
    )


@app.command("recipes")
def recipes_command(as_json: JsonOption = False) -> None:
    """What ships: one experiment a line."""
    from probes.recipe import load_recipe, shipped

    found = {name: load_recipe(name)[1].summary for name in shipped()}
    if as_json:
        show_json({"recipes": found})
    else:
        show_table(["recipe", "what it does"], [[name, summary] for name, summary in found.items()])


@app.command("config")
def config_command(
    recipe: Annotated[str | None, typer.Argument(help="Show the values of this recipe.")] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every setting: its value, its type and what it means."""
    from probes.recipe import Recipe, load_recipe

    values = plain(load_recipe(recipe, set_ or ())[1]) if recipe else plain(Recipe())
    lines = []
    for setting in manual(Recipe):
        value: Any = values
        for key in setting.key.split("."):
            value = value[key]
        lines.append({"key": setting.key, "value": value, "type": setting.type, "meaning": setting.meaning})
    if as_json:
        show_json({"settings": lines})
    else:
        for one in lines:
            print(f"{one['key']} = {json.dumps(one['value'], ensure_ascii=False)}    ({one['type']})")
            print(textwrap.indent(textwrap.fill(one["meaning"], 96), "    "))


def _show_done(done: "Done", as_json: bool) -> None:
    if as_json:
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k != "path"})
        return
    from probes.results import headline

    heads, lines = headline(done.metrics, done.parameters, done.backbone_parameters)
    show_table(heads, [[cell(value) for value in line] for line in lines])
    print(f"chosen on validation: {done.selected}")
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def main() -> NoReturn:
    """The command line; ends the process with the exit code that fits."""
    signal.signal(signal.SIGTERM, terminate)
    # Read when torch loads. Threads that spin while they wait make training 20 times slower beside a busy neighbour.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = guarded(lambda: app(standalone_mode=False))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
