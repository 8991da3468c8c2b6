"""A pretrained model folder's own record: where its weights come from, and how its pretraining went."""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from data.errors import InputError

RECORD = "pretraining.json"


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

    def as_json(self) -> bytes:
        """The record, as :func:`read_record` reads it."""
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self) if one.name != "folder"}).encode()


def read_record(folder: Path) -> LanguageModel:
    """How the pretraining of a model folder went; raises :class:`InputError` where it does not say."""
    try:
        values = json.loads((folder / RECORD).read_text("utf-8"))
        model = LanguageModel(folder, **values)
        if not isinstance(model.origin, dict):
            raise TypeError("its origin is no object")
        if not all(math.isfinite(line["loss"]) for line in model.losses):
            raise ValueError("a loss is not finite")
        if not all(math.isfinite(total) and count >= 0 for total, count in model.guessed):
            raise ValueError("a held-out loss is not finite")
        return model
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / RECORD} is no record of a pretraining ({error}).") from error
