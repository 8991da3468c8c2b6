"""The record of a pretrained model folder: origin of the weights, course of the pretraining, digests of the files.

A model folder is complete if it holds this record; the record is written last.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import (
    DIGEST,
    DIGESTS,
    DamageError,
    digests_of_files,
    file_digest,
    find_file_problem,
    parse_with_digests,
    read_record_bytes,
    with_digests,
)
from permafrost.data.errors import InputError

RECORD = "pretraining.json"

REMEDY = "copy the model again, or move it away to pretrain it again"


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A pretrained model folder and the results of its pretraining."""

    folder: Path
    origin: dict[str, Any] = field(repr=False)
    """Origin of the weights: settings, and digests of vocabulary and text."""

    losses: list[dict[str, float]] = field(repr=False)
    """``step`` and ``loss`` of every step: mean over the predicted tokens of the step, in nats."""

    loss: float | None
    """Mean loss on held-out text, in nats; None if no text was held out."""

    perplexity: float | None
    """``exp(loss)``; for a masked model, over the masked positions. None if no text was held out."""

    parameters: int
    documents: int
    blocks: int
    """Number of blocks of text in one epoch."""

    held_out: int
    """Number of blocks of held-out text."""

    seconds: float
    """Duration since the last start, in seconds."""

    guessed: list[list[float]] = field(default_factory=list, repr=False)
    """For each block of held-out text: sum of the losses, and number of predicted tokens."""

    def write_record(self, folder: Path) -> None:
        """Write the record into ``folder``, which must already hold all files of the model."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "folder"}
        digests = digests_of_files(folder, (path.name for path in folder.iterdir()))
        write_atomically(folder / RECORD, json.dumps(with_digests(values, digests)).encode())


def check_model_files(folder: Path, known: Mapping[str, str]) -> None:
    """Compare the files of a pretrained model folder with the digests in its record; a folder without one passes.

    Args:
        known: file name -> digest, for files whose digest is computed already.

    Raises:
        DamageError: a file is missing, or has changed since it was written.
    """
    path = folder / RECORD
    record = parse_with_digests(path, read_record_bytes(path, REMEDY), REMEDY) if path.is_file() else None
    for name, digest in record[DIGESTS].items() if record else ():
        if not (folder / name).is_file() or (known.get(name) or file_digest(folder / name)) != digest:
            raise DamageError(f"{folder / name} is not as the run wrote it: {REMEDY}.")


def read_record(folder: Path) -> LanguageModel:
    """Read the record of a pretrained model folder and check the digests of its files.

    Raises:
        InputError: there is no record, or another version wrote it.
        DamageError: the record or a file of the model has changed since it was written.
    """
    path = folder / RECORD
    try:
        values = parse_with_digests(path, read_record_bytes(path, REMEDY), REMEDY)
        if values is None:
            raise ValueError("it has no digests, as another version of permafrost writes it")
        if problem := find_file_problem(folder, values.pop(DIGESTS), RECORD):
            raise DamageError(f"{folder}: {problem}: {REMEDY}.")
        del values[DIGEST]
        model = LanguageModel(folder=folder, **values)
        if not isinstance(model.origin, dict):
            raise TypeError("its origin is no object")
        if not all(math.isfinite(step["loss"]) for step in model.losses):
            raise ValueError("a loss is not finite")
        if not all(math.isfinite(total) and count >= 0 for total, count in model.guessed):
            raise ValueError("a held-out loss is not finite")
        return model
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no record of a pretraining ({error}).") from error
