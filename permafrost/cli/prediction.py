"""Commands that predict with finished runs."""

import typer

from permafrost import api
from permafrost.cli import options
from permafrost.cli.console import Console, cell, show_json, show_table
from permafrost.data.corpora.records import CorpusError
from permafrost.probes.results.run_folder import RunError, RunFolder

prediction_app = typer.Typer()


@prediction_app.command("predict")
def predict_command(
    run_folder: options.RunFolder,
    texts: options.Texts = None,
    file: options.TextsFile = None,
    columns: options.ColumnsOption = "",
    task: options.TaskOption = "",
    out: options.OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Predict on new texts with a finished run.

    Give the texts as arguments or in a file. From a file, the columns of the run's corpus are read, or else the usual
    ones: sentence1 and sentence2, premise and hypothesis, question and context, sentence, text; or those of --columns.
    If the file has the run's target column too, the target is shown beside the prediction; a column of that name with a
    value that is no target of the run is carried along.

    A run of several tasks predicts with every task whose columns are there; --task picks one.

    The file of --out is a .jsonl file with an object per item, or a .csv file: first the columns of the input, then the
    prediction. Classes have the columns label and probability_LABEL; entities have a line each, with the number of
    their item, and an item without entities has an empty line; several tasks have columns TASK_label and so on.
    """
    if bool(texts) == bool(file):
        raise CorpusError("give either texts or --file FILE to predict on.")
    RunFolder(run_folder, RunError)
    from permafrost.probes.prediction import output, requests  # these load torch

    if out:
        output.check_output_path(out, file)
    console, predictor = Console(), api.load(run_folder, task)
    runs = predictor.tasks
    if file:
        requested = requests.requests_from_file(runs, file, console, options.column_names(columns))
    else:
        requested = requests.requests_from_texts(runs, texts or [])
    if left_out := [name for name in runs if name not in requested]:
        console.note(f"left out, because they read other inputs: {', '.join(left_out)}")
    by_task = {
        name: predictor.predict_task(name, [item.texts for item in items], console, [item.location for item in items])
        for name, items in requested.items()
    }
    items, answers = output.merge_tasks(requested, by_task)
    if out:
        output.write_predictions(out, items, answers)
    if as_json:
        show_json({"predictions": output.predictions_in_json(items, answers)})
    elif out:
        print(f"predictions: {len(answers):,}, to {out}")
    else:
        lines = output.screen_rows(items, answers)
        show_table(list(lines[0]), [[cell(value) for value in line.values()] for line in lines])
