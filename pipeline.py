"""permafrost: frozen language models, latents cached by layer, small probes trained on them.

The command line, and a small Python interface of the same verbs::

    import pipeline
    done = pipeline.run("sts", ["plan.backbone=minilm"])
    pipeline.load(done.path).predict([("A dog runs.", "A dog is running.")])

This is where the two stages meet: it hands the latents that ``extract`` wrote to the probes that learn from them.
"""

import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from data.cache_commands import cache_app
from data.corpus import Corpus, CorpusError
from data.errors import InputError
from data.exit_codes import guarded, terminate
from data.options import (
    JsonOption,
    MaxBytesOption,
    OnlyOption,
    RecipeName,
    RunsOption,
    SetOption,
    StrictOption,
    VariantOption,
    changes,
)  # fmt: skip
from data.plan import CapturePlan, Columns, ExtractSpec
from data.progress import Progress, Silent
from data.ragged import Counts
from data.screen import Screen
from data.text import Text
from probes import on_screen

if TYPE_CHECKING:
    from extract.extraction import Extractor
    from probes.ablation import Ablated
    from probes.conduct import StageOne
    from probes.inputs import Stored
    from probes.recipe import Recipe
    from probes.run_recipe import Done
    from probes.runs import LoadedRun
    from probes.session import Studied
    from probes.similarity import Compared
    from probes.trials import Evaluate

Overrides = Iterable[str]


def extract(
    recipe: str, overrides: Overrides = (), progress: Progress | None = None
) -> tuple[list[Corpus], list["Stored"]]:
    """Stage one alone: run what is missing of every plan in a recipe; the corpora, and where their latents are."""
    from probes.conduct import Conductor
    from probes.recipe import load_training

    _, loaded = load_training(recipe, overrides)
    conductor = Conductor(_run_missing, progress or Silent())
    recipes = (loaded.posed() or loaded.expanded()).values()
    corpora = {id(corpus): corpus for corpus in (conductor.corpus(one.corpus) for one in recipes)}
    conductor.prepare(recipes)
    return list(corpora.values()), list(conductor.stored.values())


def run(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done | Compared":
    """Extract what is missing, train every variant, evaluate, and write a run folder.

    A recipe that compares sentences trains nothing: its cosines are measured, as by :func:`similarity`.

    Args:
        recipe: the name of a shipped recipe, or the path of your own.
        overrides: ``a.b=value`` settings, as after ``--set``.
        only: the variants to train; empty trains all.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    from probes.recipe import load_recipe

    name, loaded = load_recipe(recipe, overrides)
    if loaded.similarity.texts:
        return _compare(name, loaded.only(only), Path(runs), progress or Silent())
    return _experiment(name, loaded, Path(runs), progress or Silent(), only, _run_missing)


def train(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    only: Sequence[str] = (),
) -> "Done":
    """Like :func:`run`, from cached latents alone: no backbone is found, read or loaded."""
    from probes.cached import find_cached
    from probes.recipe import load_training

    name, loaded = load_training(recipe, overrides)
    return _experiment(name, loaded, Path(runs), progress or Silent(), only, find_cached)


def ablate(
    recipe: str,
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
    variant: str = "",
) -> "Ablated":
    """Train a recipe's probe, or a variant's, on subsets of its layers, and write a run folder."""
    from probes.ablation import run_ablation
    from probes.recipe import load_training

    name, loaded = load_training(recipe, overrides, one_task=True)
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
    from probes.recipe import load_training
    from probes.run_study import run_study

    progress, runs = progress or Silent(), Path(runs)
    of, loaded = load_training(recipe, overrides, one_task=True)
    _needs_folder(runs)
    loaded, name = loaded.as_one(variant), name or of
    return run_study(of, loaded, name, runs, make_evaluate, storage, trials, workers, progress, _run_missing)


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

    def predict(
        self,
        items: Sequence[str | tuple[str, ...]],
        progress: Progress | None = None,
        places: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """One answer per item, in order, by what the run learnt.

        ==================  ================================================================================
        scores              ``score``, in the unit of the corpus
        classes             ``label``, and ``probabilities`` by label
        tags                ``entities``, each with ``text``, ``start``, ``end``, ``label``, ``probability``
        answers             ``answer``, with ``text`` (empty for none), ``start``, ``end`` and ``score``
        ==================  ================================================================================

        Starts and ends count characters of the text, or of the context, as it was given: ``text[start:end]`` is what
        was found.

        Args:
            items: a text each, or a tuple of two: a pair, or a question and its context. A text alone is one item.
            places: of the items, for messages, as ``file:line``; without, they are numbered.

        Raises:
            CorpusError: an item has not the texts that the run reads, or an empty one.
        """
        from probes.predict import predict

        items = [items] if isinstance(items, str) else items
        given = [(item,) if isinstance(item, str) else tuple(item) for item in items]
        return predict(self.run, given, self._latents, places, progress)

    def _latents(self, plan: str, texts: Sequence[Text], columns: Columns) -> tuple[Mapping[str, Any], Counts]:
        if plan not in self._extractors:
            self._extractors[plan] = self._extractor(plan)
        windows, starts = self._extractors[plan].windowed(texts)
        return self._extractors[plan](windows, columns), starts

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


def similarity(
    texts: Sequence[str] | None = None,
    backbones: Sequence[str] = (),
    pooling: str = "",
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: Progress | None = None,
) -> "Compared":
    """Cosines of every pair of sentences in float32, for each backbone, and a run folder with tables, figures, a page.

    Args:
        texts: at least two; None takes those of the recipe ``similarity``, as what is empty does of the others.
        backbones: sentence encoders; one that cannot be had is left out where others remain.
        pooling: ``mean`` over all tokens, special ones too, or ``cls``, the first token; of the last layer.

    Raises:
        InputError: fewer than two sentences, an empty one, no backbone that can be had.
    """
    from probes.cosines import asked
    from probes.recipe import load_recipe

    name, loaded = load_recipe("similarity", overrides)
    loaded = replace(loaded, similarity=asked(loaded.similarity, texts, backbones, pooling))
    return _compare(name, loaded, Path(runs), progress or Silent())


def _experiment(
    name: str, recipe: "Recipe", runs: Path, progress: Progress, only: Sequence[str], stage_one: "StageOne"
) -> "Done":
    from probes.layers import run_layers
    from probes.run_recipe import run_recipe

    _needs_folder(runs)
    if recipe.tasks:
        return run_layers(name, recipe.only(only), runs, progress, stage_one)
    return run_recipe(name, recipe.only(only), runs, progress, stage_one)


def _compare(name: str, recipe: "Recipe", runs: Path, progress: Progress) -> "Compared":
    from probes.similarity import compare_sentences

    _needs_folder(runs)
    return compare_sentences(name, recipe, runs, progress, _run_missing)


def _needs_folder(runs: Path) -> None:
    if runs.exists() and not runs.is_dir():  # said now, not after the training
        raise InputError(f"{runs}: a folder is needed here; set --runs to another.")


def _run_missing(plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> "Stored":
    from extract.extraction import extract as extract_texts
    from probes.inputs import Stored

    done = extract_texts(plan, corpus.texts, spec, progress)
    return Stored(done.store, done.columns, done.texts_run, done.truncated, done.seconds)


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


@app.command("run")
def run_command(
    recipe: RecipeName,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = Path("runs"),
    max_bytes: MaxBytesOption = "",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Extract what is missing, train every variant, evaluate, report."""
    on_screen.show_run(run(recipe, changes(set_, max_bytes, strict), runs, Screen(), only or ()), as_json)


@app.command("train")
def train_command(
    recipe: RecipeName,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = Path("runs"),
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Like run, from cached latents alone. No backbone is needed."""
    on_screen.show_done(train(recipe, changes(set_, strict=strict), runs, Screen(), only or ()), as_json)


@app.command("ablate")
def ablate_command(
    recipe: RecipeName,
    set_: SetOption = None,
    variant: VariantOption = "",
    runs: RunsOption = Path("runs"),
    max_bytes: MaxBytesOption = "",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on some of the layers: one alone, all but one, and so on.

    Figures have intervals and a test against the last layer alone; [ablation] says what is trained, controls included.
    """
    on_screen.show_ablated(ablate(recipe, changes(set_, max_bytes, strict), runs, Screen(), variant), as_json)


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
    max_bytes: MaxBytesOption = "",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search the recipe's [study.space] with Optuna.

    Stop it at any time: the same name goes on. It ends with the best trial trained again, over several seeds.
    """
    overrides = changes(set_, max_bytes, strict)
    found, best = study(recipe, overrides, name, trials, workers, storage, runs, Screen(), variant)
    on_screen.show_studied(found, best, as_json)


@app.command("similarity")
def similarity_command(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences, two or more; else the recipe's.")] = None,
    backbone: Annotated[
        list[str] | None, typer.Option("--backbone", metavar="NAME", help="A sentence encoder. May be repeated.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="mean over all tokens, or cls, the first one.")] = "",
    file: Annotated[Path | None, typer.Option("--file", help="csv, tsv, jsonl, parquet or txt of sentences.")] = None,
    set_: SetOption = None,
    runs: RunsOption = Path("runs"),
    max_bytes: MaxBytesOption = "",
    as_json: JsonOption = False,
) -> None:
    """Cosines of sentences by sentence encoders, in float32, with heatmaps and maps in three dimensions."""
    from probes.cosines import read_sentences

    if texts and file:
        raise CorpusError("give either sentences or --file FILE to compare.")
    given = read_sentences(file) if file else texts or None
    done = similarity(given, backbone or (), pooling, changes(set_, max_bytes), runs, Screen())
    on_screen.show_compared(done, as_json)


@app.command("report")
def report_command(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, e.g. runs/sts-1.")],
    out: Annotated[Path, typer.Option(help="Where the page that compares several runs goes.")] = Path("compare.html"),
    as_json: JsonOption = False,
) -> None:
    """Draw a report again, or compare several runs on one page."""
    if len(run_folders) == 1:
        on_screen.show_report(report(run_folders[0]), as_json)
    else:
        on_screen.show_comparison(run_folders, out, as_json)


@app.command("extract")
def extract_command(
    recipe: RecipeName,
    set_: SetOption = None,
    max_bytes: MaxBytesOption = "",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stage one alone: run what is missing and store its latents. Safe to stop and to repeat."""
    on_screen.show_extracted(*extract(recipe, changes(set_, max_bytes, strict), Screen()), as_json)


@app.command("predict")
def predict_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/sts-1.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; two make a pair where the run reads pairs.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="csv, tsv, jsonl, parquet or txt with the texts.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the answers to this .csv or .jsonl file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer new texts with a finished run.

    A file is read by the columns of the run's corpus, or the usual names: sentence1 and sentence2, premise and
    hypothesis, question and context, sentence, text. If it has the run's target too, that is checked and stands beside
    the answer as target.

    A .csv of --out has the columns of the file first, then a column probability_LABEL for each class; of entities, a
    line each, with the number of its item, and one empty line for an item without any. A .jsonl has one object an item.
    """
    from probes.answer_lines import check_out, write_answers
    from probes.asked import from_file, from_words

    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    if out:
        check_out(out, file)
    predictor = load(run_folder)
    asked = from_file(predictor.run, file) if file else from_words(predictor.run, texts or [])
    answers = predictor.predict([one.texts for one in asked], Screen(), [one.place for one in asked])
    if out:
        write_answers(out, asked, answers)
    on_screen.show_predictions(asked, answers, out, as_json)


@app.command("recipes")
def recipes_command(as_json: JsonOption = False) -> None:
    """What ships: one experiment a line."""
    on_screen.show_recipes(as_json)


@app.command("config")
def config_command(
    recipe: Annotated[str | None, typer.Argument(help="Show the values of this recipe.")] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every setting: its value, its type and what it means."""
    on_screen.show_settings(recipe, set_ or (), as_json)


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
