"""A text is one input of a backbone: a string, or two segments that it reads together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.errors import InputError


class TextError(InputError):
    """A text that no latent can be made of."""

    def __init__(self, message: str, text: "Text") -> None:
        super().__init__(message)
        self.text = text


@dataclass(frozen=True, slots=True)
class Segments:
    """Two segments of one input, as a question and the context that answers it."""

    first: str
    second: str
    """Too long for the backbone, it is run in windows, each with the whole of ``first`` before it."""

    window: int = 0
    """Which window, counted from 0; a text that fits has the one."""

    def __str__(self) -> str:
        return f"{self.first} | {self.second}"

    def later(self, windows: int) -> "Segments":
        """The same text, so many windows on."""
        return replace(self, window=self.window + windows)


Text = str | Segments


def fault(text: str) -> str:
    """Why a string is no text, as the end of a sentence that names it; empty where it is one."""
    if not text.strip():
        return "is empty"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half a character (a lone surrogate)"
    return ""


def spread(texts: Sequence[Text], counts: NDArray[np.int64]) -> list[Text]:
    """Every text with its further windows, one after another; ``counts`` says how many each has, itself included."""
    return [
        text if isinstance(text, str) else text.later(further)
        for text, count in zip(texts, counts.tolist(), strict=True)
        for further in range(count)
    ]


def short(text: Text) -> str:
    """A text as messages show it: quoted, and cut where it is long."""
    shown = str(text)
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")
