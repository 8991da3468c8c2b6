"""Arrays and stores of latents as HTML in a notebook: a table of facts, every text escaped."""

from collections.abc import Callable, Mapping
from html import escape

from permafrost.data.spec import printable

MOST_CHARACTERS = 120
"""Characters of a value that are shown."""


def facts_html(title: str, facts: Callable[[], Mapping[str, object]]) -> str:
    """Return a table of facts as HTML; of facts that cannot be read, the title and the reason. It raises nothing."""
    try:
        lines = dict(facts())
    except Exception as error:
        lines = {"cannot be read": error}
    rows = "".join(
        f'<tr><td style="text-align:left">{_cell(name)}</td><td style="text-align:left">{_cell(value)}</td></tr>'
        for name, value in lines.items()
    )
    return f"<div><p><b>{escape(title)}</b></p><table>{rows}</table></div>"


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    text = " ".join(printable(text).split())
    return escape(text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…")


def layers_text(layers: tuple[int, ...]) -> str:
    """Return layers in short: ``0 to 12`` if none between is missing, else ``0, 6, 12``."""
    is_range = len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if is_range else ", ".join(map(str, layers))
