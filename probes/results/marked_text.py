"""Example predictions as texts in pieces, some of them marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Look = Literal["plain", "right", "missed", "extra", "differs"]
"""How a piece of text is marked: not at all, or by the outcome of a prediction."""


@dataclass(frozen=True)
class Piece:
    """A part of a text; a marked one says in ``note`` what it is, so that no meaning depends on colour alone."""

    text: str
    look: Look = "plain"
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A text in pieces, some of them marked."""

    pieces: Sequence[Piece]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Examples:
    """A list of marked texts."""

    caption: str
    examples: Sequence[Example]
    fold: str = ""
    """Title under which they are folded; empty: not folded."""

    kind: str = "examples"
