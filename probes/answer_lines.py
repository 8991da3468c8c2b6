"""Answers of a run as lines of a table, for a file or the screen: what was asked first, then what was answered."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.whole import write_whole
from probes.asked import Asked

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


def write_answers(out: Path, asked: Sequence[Asked], answers: Sequence[Answer]) -> None:
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
    write_whole(out, text.encode("utf-8"))


def answers_in_json(asked: Sequence[Asked], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every answer, with its item's target where that is known."""
    return [_target(one) | dict(answer) for one, answer in zip(asked, answers, strict=True)]


def shown(asked: Sequence[Asked], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The lines of a table for people: a line an item, or an entity; without contexts, which are long."""
    lines = []
    for one, answer in zip(asked, answers, strict=True):
        names = ("question",) if "answer" in answer else ("first", "second") if len(one.texts) == 2 else ("text",)
        texts = dict(zip(names, one.texts, strict=False)) | _target(one)
        parts = [dict(answer)] if "probabilities" in answer else _parts(answer)
        lines += [(texts if part is parts[0] else dict.fromkeys(texts, "")) | part for part in parts]
    return lines


def _flat(number: int, one: Asked, answer: Answer) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was asked and what was answered, a line an item.

    Of entities a line each, with the number of their item; an item without any has one too.
    """
    numbered = {"item": number} if "entities" in answer else {}
    said = [numbered | part for part in _parts(answer)]
    return [(_beside(one, part), part) for part in said]


def _parts(answer: Answer) -> list[dict[str, Any]]:
    """An answer in flat columns."""
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


def _beside(one: Asked, answer: Answer) -> dict[str, Any]:
    """What was asked; a column that the answer has too is called ``input_...``."""
    taken = {*answer, *_target(one)}
    return {(f"input_{name}" if name in taken else name): value for name, value in one.columns.items()} | _target(one)


def _target(one: Asked) -> dict[str, Any]:
    return {"target": one.target} if one.labelled else {}
