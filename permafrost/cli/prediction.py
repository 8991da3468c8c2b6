"""Commands on finished runs: prediction of new texts, and evaluation on labelled data."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost import api
from permafrost.cli import options
from permafrost.cli.console import Console, cell, say, show_json, show_table, show_training
from permafrost.cli.verb import VerbApp
from permafrost.data.corpora.records import CorpusError
from permafrost.probes.results.run_folder import RunError, RunFolder

if TYPE_CHECKING:  # these load torch
    from permafrost.finished_run import FinishedRun
    from permafrost.probes.prediction.requests import PredictionRequest

prediction_app = VerbApp()


@prediction_app.command("predict")
def predict_command(
    run_folder: options.RunFolder,
    texts: options.Texts = None,
    file: options.TextsFile = None,
    columns: options.ColumnsOption = "",
    task: options.TaskOption = "",
    backbone: options.PlaceOption = "",
    device: options.DeviceOption = "",
    workers: options.ExtractWorkers = 0,
    ray: options.RayOption = "",
    out: options.OutOption = None,
    raw: options.RawOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Predict on new texts with a finished run.

    Give the texts as arguments or in a file. From a file, the columns of the run's corpus are read, or else the usual
    ones: sentence1 and sentence2, premise and hypothesis, question and context, sentence, text; or those of --columns.
    If the file has the run's target column too, the target is shown beside the prediction; a column of that name with a
    value that is no target of the run is carried along.

    A run of several tasks predicts with every task whose columns are there; --task picks one. --backbone names the
    place of the run's backbone, if it is not where it was. With --workers or --ray, the texts are run by several
    processes first, into the run's cache (extract.cache), and predictions read them from there.

    The file of --out is a .jsonl file with an object per item, or a .csv file: first the columns of the input, then the
    prediction. Classes have the columns label and probability_LABEL; entities have a line each, with the number of
    their item, and an item without entities has an empty line; several tasks have columns TASK_label and so on. A cell
    of a .csv file that a spreadsheet would run has a quote mark before it, unless --raw is given.
    """
    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    RunFolder(run_folder, RunError)
    from permafrost.probes.prediction import output, requests  # these load torch

    if out:
        output.check_output_path(out, file)
    console, predictor = Console(), api.load(run_folder, task, backbone, device)
    runs, named = predictor.tasks, options.column_names(columns)
    of_file = requests.requests_from_file(runs, file, console, named) if file else None
    requested = requests.requests_from_texts(runs, texts or []) if of_file is None else of_file
    if left_out := [name for name in runs if name not in requested]:
        console.note(f"left out, because they read other inputs: {', '.join(left_out)}")
    if workers or ray:
        _extract(predictor, requested, workers, ray)
    by_task = {
        name: predictor.predict_task(name, [item.texts for item in items], console, [item.location for item in items])
        for name, items in requested.items()
    }
    items, answers = output.merge_tasks(requested, by_task)
    if out:
        output.write_predictions(out, items, answers, raw)
    if as_json:
        show_json({"predictions": output.predictions_in_json(items, answers)})
    elif out:
        say(f"predictions: {len(answers):,}, to {out}")
    else:
        lines = output.screen_rows(items, answers)
        show_table(list(lines[0]), [[cell(value) for value in line.values()] for line in lines])


def _extract(
    predictor: "FinishedRun", requested: Mapping[str, "list[PredictionRequest]"], workers: int, ray: str
) -> None:
    """Run the texts of items by several processes, for the prediction to read them from the cache."""
    from permafrost.scaling.new_texts import extract_new_texts

    texts = {task: [item.texts for item in items] for task, items in requested.items()}
    locations = {task: [item.location for item in items] for task, items in requested.items()}
    extract_new_texts(predictor.texts_to_predict(texts, locations), workers, ray, Console())


@prediction_app.command("evaluate")
def evaluate_command(
    run_folders: options.RunFolders,
    data: options.EvaluatedData = None,
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    split: options.SplitOption = "",
    label_map: options.LabelMapOption = None,
    task: options.TaskOption = "",
    backbone: options.PlaceOption = "",
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    name: options.NameOption = "",
    if_done: options.IfDoneOption = "skip",
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Evaluate finished runs on other labelled data.

    Metrics with intervals, a breakdown, predictions and a page, as of a run; without --data, on the run's own corpus.
    Several runs or data sets, --data repeated, make a transfer matrix with paired tests.

    The test split is evaluated, else validation, or all rows of data without splits; --split picks another, or all.

    Labels are matched by name, in the same case; a run that reads numbers matches them too. --label-map maps others:
    --label-map pos=positive, or --label-map mixed= to leave a label out (of a class its rows; of entities and label
    sets the label itself). Rows with a label that the run does not have are left out, counted, and listed in
    skipped.csv. Scores are mapped from the range of the data to that of the run.

    --set changes device, and keys of corpus and extract, such as corpus.limit=500 or extract.cache=FOLDER.
    """
    for folder in run_folders:
        if not folder.is_dir() and (folder.exists() or data):
            raise RunError(f"{folder} is no run folder; if it is data, repeat the option: --data A --data B.")
        RunFolder(folder, RunError)
    own = options.corpus_arguments("", columns, target)
    overrides = options.recipe_overrides(set_, max_bytes, strict, device=device)
    from permafrost.evaluation import evaluate  # loads torch

    result = evaluate(
        run_folders,
        list(data or ()) or None,
        columns=own["columns"],
        target=own["target"],
        split=split,
        label_map=label_map or (),
        task=task,
        backbone=backbone,
        overrides=overrides,
        folder=runs,
        progress=Console(),
        name=name,
        if_done=if_done,
    )
    show_training(result, as_json)
