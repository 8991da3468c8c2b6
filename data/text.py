"""A text is one input of a backbone: a string, or two segments that it reads together."""

from dataclasses import dataclass


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


Text = str | Segments
