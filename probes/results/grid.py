"""Tables of results, printed on the terminal, on the page, as Markdown or as LaTeX; and texts with marked pieces."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from permafrost.data.writing.script import JOINERS, is_mark
from permafrost.probes.results.formatting import decimals

if TYPE_CHECKING:  # pandas takes half a second to load
    import pandas as pd

MOST_TEXT = 500
"""Characters of a text that a cell of a table shows."""

UNDEFINED = "undefined"
"""Cell of a metric that does not exist, such as the correlation of constant predictions."""

Cell = str | tuple[str, str]
"""A text, or a value with a small text beside it."""

Line = Sequence[Cell]
"""A row of a table."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: columns of words from the left, then columns of numbers, which are right-aligned."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Line]
    text_columns: int = 1
    """Number of columns that hold words."""

    strong: int | None = None
    """Index of the row in bold, that of the chosen variant."""

    sentences: bool = False
    """Whether its first columns are sentences, which are given more width."""

    fold: str = ""
    """Title under which the page folds the table; empty: not folded."""

    kind: str = "grid"


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


def cell_text(value: object, longest: int = MOST_TEXT) -> str:
    """Return a value as a cell shows it: shortened to ``longest`` characters, control characters as spaces."""
    text = "".join(char if char.isprintable() or char in JOINERS else " " for char in str(value))
    if len(text) <= longest:
        return text
    end = longest - 1
    while end and is_mark(text[end]):
        end -= 1
    return text[:end] + "…"


def value_cell(row: "Mapping[str, Any] | pd.Series", places: int = 3, sign: str = "") -> Cell:
    """Return the value of a row, ``0.842``, with its interval if there is one, ``[0.821, 0.861]``.

    Args:
        places: decimals of the value; the interval has three.
        sign: ``+`` shows the sign of positive numbers.
    """
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:{sign}.{places}f}"
    return text if math.isnan(low) or math.isnan(high) else (text, f"[{low:{sign}.3f}, {high:{sign}.3f}]")


def pivot_lines(
    rows: "pd.DataFrame",
    keys: Sequence[str],
    columns: Sequence[Any],
    cell: "Callable[[pd.Series], Cell]" = value_cell,
    closing: Sequence[str] = (),
) -> list[list[Cell]]:
    """Return a line per combination of keys, in order of appearance: its keys, and a cell per column.

    Args:
        rows: long table whose ``column`` says where a row stands; of equal rows the first stands.
        keys: columns of words that begin a line.
        columns: values of ``column`` that are shown; a dash where a line has none.
        cell: of a row.
        closing: columns of whole numbers that end a line, as the first row has them.
    """
    lines = []
    for key, of_line in rows.groupby(list(keys), sort=False):
        cells = {row["column"]: cell(row) for _, row in of_line[::-1].iterrows()}
        ends = (decimals(of_line[name].iloc[0], 0) for name in closing)
        lines.append([*(cell_text(part, 60) for part in key), *(cells.get(name, "–") for name in columns), *ends])
    return lines


def plain_text(cell: Cell) -> str:
    """Return a cell as one text with ordinary spaces."""
    text = cell if isinstance(cell, str) else " ".join(cell)
    return text.replace("\u00a0", " ")


def to_markdown(grid: Grid) -> str:
    """Return a table as Markdown, its caption below it; the chosen variant is bold."""
    rows = [
        [_bold(markdown_text(plain_text(cell)), "**{}**", index == grid.strong) for cell in line]
        for index, line in enumerate(grid.rows)
    ]
    table = markdown_table(list(map(markdown_text, grid.heads)), rows, grid.text_columns)
    return f"{table}\n{markdown_text(grid.caption)}\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], text_columns: int | None = None) -> str:
    """Return a Markdown table of cells that are Markdown; those after the first ``text_columns`` are right-aligned."""
    words = len(heads) if text_columns is None else text_columns
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    lines = [heads, rule, *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Return a text in which Markdown and HTML have no meaning; a vertical bar is left to :func:`markdown_table`."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#~$&" else char for char in cell_text(text))


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}", "\u00a0": "~",
}  # fmt: skip
"""Character -> what prints it in LaTeX; a bracket could be taken for an option of the command before it."""


def to_latex(grid: Grid) -> str:
    """Return a table as a LaTeX ``table`` for the package booktabs; intervals are small, the chosen variant is bold."""
    words = min(grid.text_columns, len(grid.heads))
    rows = [
        " & ".join(_bold(_latex_cell(cell), r"\textbf{{{}}}", index == grid.strong) for cell in line) + r" \\"
        for index, line in enumerate(grid.rows)
    ]
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{latex_text(grid.caption)}}}",
            rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(grid.heads) - words)}}}", r"\toprule",
            " & ".join(map(latex_text, grid.heads)) + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
            r"\end{table}", "",
        ]
    )  # fmt: skip


def latex_text(text: str) -> str:
    """Return a text in which no character has a meaning for LaTeX."""
    return "".join(LATEX.get(char) or cell_text(char) for char in text)


def _latex_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return latex_text(cell)
    return rf"{latex_text(cell[0])} {{\small {latex_text(cell[1])}}}"


def _bold(text: str, template: str, strong: bool) -> str:
    return template.format(text) if strong and text else text
