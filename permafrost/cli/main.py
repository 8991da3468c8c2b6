"""The commands that run something, and the entry point of the command line."""

import os
from pathlib import Path
from typing import NoReturn

import typer

from permafrost import api
from permafrost.cli import options, render
from permafrost.cli.cache import cache_app
from permafrost.cli.console import Console
from permafrost.cli.exit_codes import run_to_exit
from permafrost.cli.inspect import look_app
from permafrost.data.corpora.records import CorpusError

app = typer.Typer(
    name="permafrost",
    help="Run a frozen language model over a corpus once, keep its activations by layer, train probes on them.",
    epilog="Start with: pipeline.py run quickstart. Then: pipeline.py recipes, pipeline.py config sts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(look_app)
app.add_typer(cache_app, name="cache")


@app.command("run")
def run_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Extract what is missing, train every variant, evaluate, report.

    Stop it at any time: the same command goes on, with long trainings from their last checkpoint.
    """
    render.show_run(api.run(recipe, options.changes(set_, max_bytes, strict), runs, Console(), only or ()), as_json)


@app.command("pretrain")
def pretrain_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Make a small language model from scratch, as [language] says.

    Stop it at any time: the same command goes on. What it leaves is a model folder, for plan.backbone.
    """
    render.show_pretrained(api.pretrain(recipe, options.changes(set_), runs, Console()), as_json)


@app.command("train")
def train_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    only: options.OnlyOption = None,
    runs: options.RunsOption = Path("runs"),
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Like run, from cached latents alone. No backbone is needed."""
    render.show_done(api.train(recipe, options.changes(set_, strict=strict), runs, Console(), only or ()), as_json)


@app.command("ablate")
def ablate_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    variant: options.VariantOption = "",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train on some of the layers: one alone, all but one, and so on.

    Figures have intervals and a test against the last layer alone; [ablation] says what is trained, controls included.
    """
    render.show_ablated(api.ablate(recipe, options.changes(set_, max_bytes, strict), runs, Console(), variant), as_json)


@app.command("study")
def study_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    name: options.StudyName = "",
    trials: options.TrialsOption = None,
    workers: options.WorkersOption = 1,
    storage: options.StorageOption = None,
    variant: options.VariantOption = "",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Search the recipe's [study.space] with Optuna.

    Stop it at any time: the same name goes on. It ends with the best trial trained again, over several seeds.
    """
    overrides = options.changes(set_, max_bytes, strict)
    found, best = api.study(recipe, overrides, name, trials, workers, storage, runs, Console(), variant)
    render.show_studied(found, best, as_json)


@app.command("similarity")
def similarity_command(
    texts: options.Sentences = None,
    backbone: options.BackboneOption = None,
    pooling: options.PoolingOption = "",
    file: options.SentencesFile = None,
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    as_json: options.JsonOption = False,
) -> None:
    """Cosines of sentences by sentence encoders, in float32, with heatmaps and maps in three dimensions."""
    from permafrost.data.readers.load import read_sentences

    if texts and file:
        raise CorpusError("give either sentences or --file FILE to compare.")
    given = read_sentences(file) if file else texts or None
    done = api.similarity(given, backbone or (), pooling, options.changes(set_, max_bytes), runs, Console())
    render.show_compared(done, as_json)


@app.command("extract")
def extract_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Stage one alone: run what is missing and store its latents. Safe to stop and to repeat."""
    render.show_extracted(*api.extract(recipe, options.changes(set_, max_bytes, strict), Console()), as_json)


@app.command("predict")
def predict_command(
    run_folder: options.RunFolder,
    texts: options.Texts = None,
    file: options.TextsFile = None,
    task: options.TaskOption = "",
    out: options.OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Answer new texts with a finished run.

    A file is read by the columns of the run's corpus, or the usual names: sentence1 and sentence2, premise and
    hypothesis, question and context, sentence, text. If it has the run's target too, that is checked and stands beside
    the answer as target.

    Tasks that learnt together all answer, but for those whose columns the file has not; --task names one.

    A .csv of --out has the columns of the file first, then a column probability_LABEL for each class; of entities, a
    line each, with the number of its item, and one empty line for an item without any; of several tasks, columns
    TASK_label and so on. A .jsonl has one object an item.
    """
    from permafrost.probes.prediction.output import check_out, joined, write_answers
    from permafrost.probes.prediction.requests import each_from_file, each_from_words

    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    if out:
        check_out(out, file)
    screen, tasks = Console(), api.load(run_folder, task).tasks
    runs = {name: one.run for name, one in tasks.items()}
    asked = each_from_file(runs, file) if file else each_from_words(runs, texts or [])
    if left := [name for name in tasks if name not in asked]:
        screen.note(f"left out, for want of what they read: {', '.join(left)}")
    said = {
        name: tasks[name].predict([one.texts for one in items], screen, [one.place for one in items])
        for name, items in asked.items()
    }
    items, answers = joined(asked, said)
    if out:
        write_answers(out, items, answers)
    render.show_predictions(items, answers, out, as_json)


def main() -> NoReturn:
    """The command line; ends the process with the exit code that fits."""
    # Read when torch loads. Threads that spin while they wait make training 20 times slower beside a busy neighbour.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_to_exit(lambda: app(standalone_mode=False))
