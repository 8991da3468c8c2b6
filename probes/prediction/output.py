"""Prediction tables: requests and predictions as rows for a CSV or JSON-lines file, or for the screen.

Input columns come first, then the target if it is known, then the prediction.
"""

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.corpora.label_sets import format_labels
from permafrost.data.errors import InputError
from permafrost.data.text import quote_formula
from permafrost.probes.prediction.requests import PredictionRequest
from permafrost.probes.tasks.base import QUESTION

Prediction = Mapping[str, Any]

TableRow = dict[str, Any]

SUFFIXES = (".csv", ".jsonl")


def check_output_path(out: Path, source: Path | None = None) -> None:
    """Raise :class:`InputError` if predictions cannot be written to a file; called before they are made."""
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {out}: answers are written as {' or '.join(SUFFIXES)}; name the file so.")
    if out.exists() and not out.is_file():
        raise InputError(f"--out {out}: it is a {'folder' if out.is_dir() else 'device or pipe'}; name a file.")
    if source and out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"--out {out}: it is the file that is read; name another.")


def merge_tasks(
    requests: Mapping[str, Sequence[PredictionRequest]], predictions: Mapping[str, Sequence[Prediction]]
) -> tuple[Sequence[PredictionRequest], list[Prediction]]:
    """Return requests and predictions of all tasks, one of each per item; those of a single task as they are.

    Args:
        requests: task -> its items; those of several tasks are from the same rows of a file.
        predictions: task -> its prediction for each of its items.
    """
    if len(requests) == 1:
        ((task, items),) = requests.items()
        return items, list(predictions[task])
    rows = list(zip(*requests.values(), strict=True))
    outputs = zip(*(predictions[task] for task in requests), strict=True)
    merged: list[Prediction] = []
    for row, output in zip(rows, outputs, strict=True):
        by_task = zip(requests, row, output, strict=True)
        merged.append({"tasks": {task: _target(request) | dict(prediction) for task, request, prediction in by_task}})
    return [_merge_requests(row) for row in rows], merged


def _merge_requests(requests: Sequence[PredictionRequest]) -> PredictionRequest:
    """Return one request for all tasks of a row: the texts of all, and the columns that are no task's target."""
    texts = {name: text for request in requests for name, text in zip(request.names, request.texts, strict=True)}
    first = requests[0]
    columns = {name: value for name, value in first.columns.items() if all(name in other.columns for other in requests)}
    return PredictionRequest(texts=tuple(texts.values()), names=tuple(texts), location=first.location, columns=columns)


def write_predictions(
    out: Path, requests: Sequence[PredictionRequest], predictions: Sequence[Prediction], raw: bool = False
) -> None:
    """Write predictions to a CSV file with flat columns, or a JSON-lines file with one object per item, atomically.

    Args:
        raw: write texts to CSV as they are; else a quote mark is put before those that a spreadsheet would run.
    """
    is_jsonl = out.suffix.lower() == ".jsonl"
    content = _jsonl(requests, predictions) if is_jsonl else _csv(requests, predictions, raw)
    write_atomically(out, content.encode("utf-8"))


def _jsonl(requests: Sequence[PredictionRequest], predictions: Sequence[Prediction]) -> str:
    pairs = zip(requests, predictions, strict=True)
    objects = [_input_columns(request, prediction) | dict(prediction) for request, prediction in pairs]
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


def _csv(requests: Sequence[PredictionRequest], predictions: Sequence[Prediction], raw: bool) -> str:
    """Return one line per item; with entities, one per entity or an empty one, each with the number of the item."""
    rows: list[tuple[TableRow, TableRow]] = []
    for number, (request, prediction) in enumerate(zip(requests, predictions, strict=True), 1):
        entities = any("entities" in of_task for of_task in prediction.get("tasks", {"": prediction}).values())
        numbered = {"item": number} if entities else {}
        outputs = [numbered | row for row in _rows(prediction)]
        rows += [(_input_columns(request, row), row) for row in outputs]
    columns = dict.fromkeys(column for half in zip(*rows, strict=True) for cells in half for column in cells)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    lines = ([(inputs | outputs).get(column, "") for column in columns] for inputs, outputs in rows)
    for line in itertools.chain([list(columns)], lines):
        writer.writerow([quote_formula(cell) if isinstance(cell, str) and not raw else cell for cell in line])
    return file.getvalue()


def predictions_in_json(
    requests: Sequence[PredictionRequest], predictions: Sequence[Prediction]
) -> list[dict[str, Any]]:
    """Return every prediction, with the target of its item if it is known."""
    return [_target(request) | dict(prediction) for request, prediction in zip(requests, predictions, strict=True)]


def screen_rows(requests: Sequence[PredictionRequest], predictions: Sequence[Prediction]) -> list[TableRow]:
    """Return rows for the screen, one per item or entity; contexts are left out, since they are long."""
    rows = []
    for request, prediction in zip(requests, predictions, strict=True):
        texts = {name: text for name, text in zip(request.names, request.texts, strict=True) if name != QUESTION[1]}
        inputs = texts | _target(request)
        first, *further = _rows(prediction, flat=False)
        rows += [inputs | first, *(dict.fromkeys(inputs, "") | row for row in further)]
    return rows


def _rows(prediction: Prediction, flat: bool = True) -> list[TableRow]:
    """Return a prediction as rows; those of several tasks are side by side, their columns prefixed with the task."""
    if "tasks" not in prediction:
        return _rows_of_task(prediction, flat)
    by_task = []
    for task, of_task in prediction["tasks"].items():
        target = {"target": of_task["target"]} if "target" in of_task else {}
        rows = _rows_of_task(of_task, flat)
        by_task.append([{f"{task}_{key}": value for key, value in (target | row).items()} for row in rows])
    merged: list[TableRow] = [{} for _ in range(max(map(len, by_task)))]
    for rows in by_task:
        empty = dict.fromkeys(rows[0])
        for row, cells in itertools.zip_longest(merged, rows, fillvalue=empty):
            row.update(cells)
    return merged


def _rows_of_task(prediction: Prediction, flat: bool) -> list[TableRow]:
    """Return the prediction of one task as rows; if they are to be ``flat``, probabilities become columns, and
    raw scores stay.
    """
    if "entities" in prediction:
        keys = ("label", "start", "end", "probability")
        rows = [{"entity": entity["text"]} | {key: entity[key] for key in keys} for entity in prediction["entities"]]
        return rows or [dict.fromkeys(("entity", *keys))]
    if "answer" in prediction:
        return [{("answer" if key == "text" else key): value for key, value in prediction["answer"].items()}]
    if flat and "probabilities" in prediction:
        columns = {f"probability_{label}": value for label, value in prediction["probabilities"].items()}
        several = {"labels": format_labels(prediction["labels"])} if "labels" in prediction else {}
        return [(several or {"label": prediction["label"]}) | columns]
    return [{key: value for key, value in prediction.items() if flat or key != "raw"}]


def _input_columns(request: PredictionRequest, prediction: Prediction) -> TableRow:
    """Return columns and target of a request; a column that the prediction has too is named ``input_...``."""
    used = {*prediction, *_target(request)}
    columns = {(f"input_{name}" if name in used else name): value for name, value in request.columns.items()}
    return columns | _target(request)


def _target(request: PredictionRequest) -> TableRow:
    return {"target": request.target} if request.labelled else {}
