"""A pretrained model folder's own record: where its weights come from, how its pretraining went, its files' digests."""

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
    check_files,
    file_digest,
    files_digests,
    parse_with_digests,
    with_digests,
)
from permafrost.data.errors import InputError

RECORD = "pretraining.json"

REMEDY = "copy the model again, or move it away to pretrain it again"


@dataclass(frozen=True)
class LanguageModel:
    """A pretrained model folder, and how its pretraining went."""

    folder: Path
    origin: dict[str, Any] = field(repr=False)
    """What its weights come from: settings, and digests of vocabulary and text."""

    losses: list[dict[str, float]] = field(repr=False)
    """``step`` and ``loss`` of every step: mean over what was guessed in it, in nats."""

    loss: float | None
    """Mean loss on held-out text; None where none was held out."""

    perplexity: float | None
    """Its exponential; of a masked model, over the places that were to be guessed."""

    parameters: int
    documents: int
    blocks: int
    """Blocks of text in one epoch."""

    held_out: int
    """Blocks of held-out text."""

    seconds: float
    """Since it was last started, all included."""

    guessed: list[list[float]] = field(default_factory=list, repr=False)
    """Of each block of held-out text, the sum of its losses, and of how many guesses."""

    def write_record(self, folder: Path) -> None:
        """Write the record beside the files of the model, which are all there."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "folder"}
        digests = files_digests(folder, (path.name for path in folder.iterdir()))
        write_atomically(folder / RECORD, json.dumps(with_digests(values, digests)).encode())


def refuse_damage(folder: Path, known: Mapping[str, str]) -> None:
    """Compare the files of a model folder that a pretraining left with their digests; any other folder has none.

    Args:
        known: name -> digest of files that were read already.

    Raises:
        DamageError: one is missing, or not as it was written.
    """
    path = folder / RECORD
    record = parse_with_digests(path, path.read_bytes(), REMEDY) if path.is_file() else None
    for name, digest in record[DIGESTS].items() if record else ():
        if not (folder / name).is_file() or (known.get(name) or file_digest(folder / name)) != digest:
            raise DamageError(f"{folder / name} is not as the run wrote it: {REMEDY}.")


def read_record(folder: Path) -> LanguageModel:
    """How the pretraining of a model folder went.

    Raises:
        InputError: it does not say, or another version wrote it.
        DamageError: the record, or a file of the model, is not as it was written.
    """
    path = folder / RECORD
    try:
        values = parse_with_digests(path, path.read_bytes(), REMEDY)
        if values is None:
            raise ValueError("it has no digests, as another version of permafrost writes it")
        if found := check_files(folder, values.pop(DIGESTS), RECORD):
            raise DamageError(f"{folder}: {found}: {REMEDY}.")
        del values[DIGEST]
        model = LanguageModel(folder, **values)
        if not isinstance(model.origin, dict):
            raise TypeError("its origin is no object")
        if not all(math.isfinite(line["loss"]) for line in model.losses):
            raise ValueError("a loss is not finite")
        if not all(math.isfinite(total) and count >= 0 for total, count in model.guessed):
            raise ValueError("a held-out loss is not finite")
        return model
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no record of a pretraining ({error}).") from error
