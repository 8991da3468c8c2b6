"""Answers of a run as lines of a table, for a file or the screen: what was asked first, then what was answered."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import InputError
from permafrost.probes.prediction.predictor import by_task
from permafrost.probes.prediction.requests import QUESTION, PredictionRequest

Answer = Mapping[str, Any]

SUFFIXES = (".csv", ".jsonl")


def check_out(out: Path, source: Path | None = None) -> None:
    """Raise an :class:`InputError` where answers cannot go to a file; said before they are made."""
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {out}: answers are written as {' or '.join(SUFFIXES)}; name the file so.")
    if out.is_dir():
        raise InputError(f"--out {out}: it is a folder; name a file.")
    if source and out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"--out {out}: it is the file that is read; name another.")


def joined(
    asked: Mapping[str, Sequence[PredictionRequest]], answers: Mapping[str, Sequence[Answer]]
) -> tuple[Sequence[PredictionRequest], list[Answer]]:
    """What every task was asked and answered, as one: of one task as it is, of several by their names.

    Args:
        asked: task -> its items, of the same lines of a file; and ``answers``: task -> what it answered to each.
    """
    if len(asked) == 1:
        ((task, items),) = asked.items()
        return items, list(answers[task])
    lines = [dict(zip(asked, some, strict=True)) for some in zip(*asked.values(), strict=True)]
    said = [dict(zip(answers, some, strict=True)) for some in zip(*answers.values(), strict=True)]
    return [_as_one(list(line.values())) for line in lines], [
        by_task({task: _target(one) | dict(each[task]) for task, one in line.items()})
        for line, each in zip(lines, said, strict=True)
    ]


def _as_one(items: Sequence[PredictionRequest]) -> PredictionRequest:
    """A line of a file as all tasks read it: all texts, and the columns that are no task's target."""
    texts = dict(pair for one in items for pair in zip(one.names, one.texts, strict=True))
    first = items[0].columns
    beside = {name: value for name, value in first.items() if all(name in other.columns for other in items)}
    return PredictionRequest(tuple(texts.values()), tuple(texts), items[0].place, beside)


def write_answers(out: Path, asked: Sequence[PredictionRequest], answers: Sequence[Answer]) -> None:
    """Write answers as a table with flat columns (.csv), or an object a line (.jsonl): whole or not at all."""
    if out.suffix.lower() == ".jsonl":
        objects = [_beside(one, answer) | dict(answer) for one, answer in zip(asked, answers, strict=True)]
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)
    else:
        lines = [line for number, one in enumerate(zip(asked, answers, strict=True), 1) for line in _flat(number, *one)]
        columns = dict.fromkeys(column for part in zip(*lines, strict=True) for line in part for column in line)
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(beside | said for beside, said in lines)
        text = file.getvalue()
    write_atomically(out, text.encode("utf-8"))


def answers_in_json(asked: Sequence[PredictionRequest], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every answer, with its item's target where that is known."""
    return [_target(one) | dict(answer) for one, answer in zip(asked, answers, strict=True)]


def shown(asked: Sequence[PredictionRequest], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The lines of a table for people: a line an item, or an entity; without contexts, which are long."""
    lines = []
    for one, answer in zip(asked, answers, strict=True):
        texts = {name: text for name, text in zip(one.names, one.texts, strict=True) if name != QUESTION[1]}
        told = texts | _target(one)
        first, *more = _lines(answer, lambda said: [dict(said)] if "probabilities" in said else _parts(said))
        lines += [told | first, *(dict.fromkeys(told, "") | part for part in more)]
    return lines


def _flat(number: int, one: PredictionRequest, answer: Answer) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was asked and what was answered, a line an item.

    Of entities a line each, with the number of their item; an item without any has one too.
    """
    entities = any("entities" in said for said in answer.get("tasks", {"": answer}).values())
    numbered = {"item": number} if entities else {}
    said = [numbered | part for part in _lines(answer, _parts)]
    return [(_beside(one, part), part) for part in said]


def _lines(answer: Answer, parts_of: Callable[[Answer], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """An answer in flat columns, a line a part; of several tasks side by side, each column with its task."""
    if "tasks" not in answer:
        return parts_of(answer)
    columns = []
    for task, said in answer["tasks"].items():
        target = {"target": said["target"]} if "target" in said else {}
        columns.append([{f"{task}_{key}": value for key, value in (target | part).items()} for part in parts_of(said)])
    lines: list[dict[str, Any]] = [{} for _ in range(max(map(len, columns)))]
    for parts in columns:
        nothing = dict.fromkeys(parts[0])
        for line, part in itertools.zip_longest(lines, parts, fillvalue=nothing):
            line.update(part)
    return lines


def _parts(answer: Answer) -> list[dict[str, Any]]:
    """An answer of one task in flat columns."""
    if "entities" in answer:
        nothing = dict.fromkeys(("entity", "label", "start", "end", "probability"))
        return [
            {key: (one["text"] if key == "entity" else one[key]) for key in nothing} for one in answer["entities"]
        ] or [nothing]
    if "answer" in answer:
        said = answer["answer"]
        return [{"answer": said["text"], **{key: said[key] for key in ("start", "end", "score")}}]
    if "probabilities" in answer:
        shares = {f"probability_{label}": share for label, share in answer["probabilities"].items()}
        return [{"label": answer["label"]} | shares]
    return [dict(answer)]


def _beside(one: PredictionRequest, answer: Answer) -> dict[str, Any]:
    """What was asked; a column that the answer has too is called ``input_...``."""
    taken = {*answer, *_target(one)}
    return {(f"input_{name}" if name in taken else name): value for name, value in one.columns.items()} | _target(one)


def _target(one: PredictionRequest) -> dict[str, Any]:
    return {"target": one.target} if one.labelled else {}
