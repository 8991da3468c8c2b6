"""Texts: one input of a backbone, either a string or two segments that it reads together."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from permafrost.data.errors import InputError
from permafrost.data.spec import SpecError

if TYPE_CHECKING:  # numpy would be half of the time of a refused command
    import numpy as np
    from numpy.typing import NDArray


class TextError(InputError):
    """A text that the backbone cannot encode."""

    def __init__(self, message: str, text: "Text") -> None:
        super().__init__(message)
        self.text = text


@dataclass(frozen=True, slots=True)
class Segments:
    """Two segments of one input, such as a question and its context."""

    first: str
    second: str
    """If it is too long for the backbone, it is split into windows; each window repeats the whole first segment."""

    window: int = 0
    """Index of the window, from 0; a text that fits has one window."""

    def __str__(self) -> str:
        return f"{self.first} | {self.second}"

    def shift_window(self, windows: int) -> "Segments":
        """Return the same text with its window index increased by ``windows``."""
        return replace(self, window=self.window + windows)


Text = str | Segments


NOT_UTF_8 = "is not UTF-8"

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal, change the direction or the line of what follows, or cannot be encoded."""


def escape_control(text: str, kept: str = "") -> str:
    r"""Return a text as it is safe to print: control and bidirectional characters as in JSON, ``\\u001b``.

    Args:
        kept: characters that are left as they are, such as ends of lines.
    """
    if text.isprintable():
        return text
    return CONTROL.sub(lambda found: found[0] if found[0] in kept else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or f"\\u{ord(character):04x}"


def text_problem(text: str) -> str:
    """Return why a string cannot be a text, as the end of a sentence that names it; empty if it can."""
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "holds a zero byte"
    if not text.isascii() and (halves := [character for character in text if "\ud800" <= character <= "\udfff"]):
        undecoded = all("\udc80" <= half <= "\udcff" for half in halves)  # what surrogateescape makes of other bytes
        return NOT_UTF_8 if undecoded else "holds half a character (a lone surrogate)"
    return ""


FORMULA = re.compile(r"'*([=@\t\r]|[+-](?!\d*\.?\d+([eE][-+]?\d+)?\Z))", re.ASCII)
"""Begin of a cell that a spreadsheet would run, or that :func:`quote_formula` has made of one; numbers are none."""


def quote_formula(cell: str) -> str:
    """Return the text of a csv cell such that no spreadsheet runs it: with a quote mark before a formula."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def unquote_formula(cell: str) -> str:
    """Return the text that :func:`quote_formula` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def list_of_texts(given: Any) -> list[str]:
    """Return texts as a list.

    Raises:
        SpecError: they are one text, a table, or nothing that can be a list; or one of them is no string.
    """
    if isinstance(given, str):
        raise SpecError("texts must be a list of texts, got one text: give [text].")
    if isinstance(given, Mapping) or hasattr(given, "columns"):  # iterates over the names of its columns
        raise SpecError(f"texts must be a list of texts, got a {type(given).__name__}: give one column of it.")
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        raise SpecError(f"texts must be a list of texts, got {describe_value(given)}.")
    texts = list(given)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise SpecError(f"text {number:,} is {describe_value(text)}, not str: leave it out.")
    return texts


def describe_value(value: object) -> str:
    """Return a value of any type as an error message names it, on one line."""
    shown = " ".join(repr(value).split())
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'}, of type {type(value).__name__}"


def check_unsplit(longest: int, max_tokens: int) -> None:
    """Raise a :class:`SpecError` if a text that trainable blocks are to run has more than ``max_tokens`` tokens."""
    if longest > max_tokens:
        raise SpecError(
            f"a text has {longest:,} tokens, and blocks that are fine-tuned run texts of at most plan.max_tokens = "
            f'{max_tokens}, and no windows of a text; set plan.truncation = "cut", or raise plan.max_tokens.'
        )


def expand_windows(texts: Sequence[Text], counts: "NDArray[np.int64]") -> list[Text]:
    """Return every window of every text, in order; ``counts`` ``[text]`` are their numbers, the given one included."""
    return [
        text if isinstance(text, str) else text.shift_window(window)
        for text, count in zip(texts, counts.tolist(), strict=True)
        for window in range(count)
    ]


def quote_text(text: Text) -> str:
    """Return a text for an error message: quoted, and cut to 60 characters."""
    shown = str(text)
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")
