"""The ``predict`` command: texts from the command line or a file, answered by a finished run, written and printed.

Importing this loads torch; :mod:`permafrost.cli.main` does so once the arguments are known to be right.
"""

from collections.abc import Sequence
from pathlib import Path

from permafrost import api
from permafrost.cli.console import Console, cell, show_json, show_table
from permafrost.probes.prediction.output import (
    check_output_path,
    merge_tasks,
    predictions_in_json,
    screen_rows,
    write_predictions,
)
from permafrost.probes.prediction.requests import requests_from_file, requests_from_texts


def predict(
    run_folder: Path, texts: Sequence[str], file: Path | None, task: str, out: Path | None, as_json: bool
) -> None:
    """Answer texts, or the rows of a file, with a finished run; print the answers, or write them to ``out``."""
    if out:
        check_output_path(out, file)
    console, predictor = Console(), api.load(run_folder, task)
    runs = predictor.tasks
    requests = requests_from_file(runs, file) if file else requests_from_texts(runs, texts)
    if left_out := [name for name in runs if name not in requests]:
        console.note(f"left out, because they read other inputs: {', '.join(left_out)}")
    by_task = {
        name: predictor.predict_task(name, [item.texts for item in items], console, [item.location for item in items])
        for name, items in requests.items()
    }
    items, answers = merge_tasks(requests, by_task)
    if out:
        write_predictions(out, items, answers)
    if as_json:
        show_json({"predictions": predictions_in_json(items, answers)})
    elif out:
        print(f"answers: {len(answers):,}, to {out}")
    else:
        lines = screen_rows(items, answers)
        show_table(list(lines[0]), [[cell(value) for value in line.values()] for line in lines])
