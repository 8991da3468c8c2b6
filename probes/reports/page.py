"""HTML pages that open offline: blocks of tables, figures and facts in sections, filled into ``template/page.html``.

The template escapes every text. A figure is matplotlib's SVG, parsed and rewritten: its ids are made unique on the
page, and its black follows the text colour of the page. The security policy of the page names its scripts by hash.
Figures are also kept in the run folder, as PNG and SVG files.
"""

import base64
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from permafrost.data.script import JOINERS, is_mark
from permafrost.probes.figures.style import COLOURS
from permafrost.probes.results.run_folder import ReportError

TEMPLATES = Path(__file__).parent / "template"

SVG = "http://www.w3.org/2000/svg"

XLINK = "{http://www.w3.org/1999/xlink}href"

MOST_TEXT = 500
"""Characters of a text that a cell of a table shows."""

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
    """Title under which the table is folded; empty: not folded."""

    kind: str = "grid"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its title and caption."""

    name: str
    svg: str
    """As :func:`svg_document` returns it."""

    title: str
    caption: str
    kind: str = "picture"


@dataclass(frozen=True)
class Scatter:
    """Scatter plots in three dimensions."""

    data: Mapping[str, Any]
    """As :func:`permafrost.probes.figures.scatter_3d.latent_scatter` returns it."""

    show_all: bool = False
    """Whether all inputs are shown, instead of the one that the reader picks from a list."""

    kind: str = "scatter"


@dataclass(frozen=True)
class Facts:
    """A list of names and values."""

    facts: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class FoldedText:
    """A verbatim text, folded under a title."""

    title: str
    text: str
    kind: str = "fold"


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


Block = Grid | Picture | Scatter | Facts | FoldedText | Examples


@dataclass(frozen=True)
class Section:
    """A heading with a note and blocks below it."""

    name: str
    title: str
    note: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A key figure at the top of the page."""

    name: str
    value: str
    note: str = ""


def render_page(title: str, kind: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """Return a page as HTML; sections without blocks are left out.

    Args:
        kind: what the page reports on, for example ``run``.
        lead: a sentence below the title.
    """
    sections = [section for section in sections if section.blocks]
    data = [block.data for section in sections for block in section.blocks if isinstance(block, Scatter)]
    scripts = [get_plotlyjs(), (TEMPLATES / "page.js").read_text("utf-8")] if data else []
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = lambda picture: Markup(inline_svg(picture))  # noqa: S704 - parsed and rewritten
    return environment.get_template("page.html").render(
        title=title, kind=kind, lead=lead, tiles=tiles, sections=sections, policy=_policy(scripts),
        style=Markup((TEMPLATES / "page.css").read_text("utf-8")),  # noqa: S704 - ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - plotly's and ours
        data=Markup(_script_json(data[0])) if data else None,  # noqa: S704 - no < > & in it
    )  # fmt: skip


def svg_document(figure: Figure) -> str:
    """Return a figure as an SVG document without a background; equal figures give equal texts."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def inline_svg(picture: Picture) -> str:
    """Return a figure as an SVG element of a page: with a title, unique ids, and black as the page's text colour."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(picture.svg[picture.svg.index("<svg") :])  # noqa: S314
    for element in [root, *root.iter()]:
        for child in [child for child in element if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            element.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.attrib[key] = _page_attribute(key, value, picture.name)
        if XLINK in element.attrib:
            element.set("href", element.attrib.pop(XLINK))
        if element.tag == f"{{{SVG}}}text":
            element.set(
                "style",
                re.sub(r"font(-family)?: *([\d.]+px)? *[^;]*'[^;]*", r"font-size: \2", element.get("style", "")),
            )
            element.attrib.setdefault("fill", "currentColor")
    width, height = (float(value) for value in root.get("viewBox", "0 0 1 1").split()[2:])
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"title-{picture.name}", "style": f"--w: {width:.0f}"}
    label = ElementTree.Element(f"{{{SVG}}}title", {"id": f"title-{picture.name}"})
    label.text = f"{picture.title}. {picture.caption}"
    root.insert(0, label)
    root.set("class", "wide" if width > 500 and width > 1.4 * height else "plain")
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cell_text(value: object, longest: int = MOST_TEXT) -> str:
    """Return a value as a cell shows it: shortened to ``longest`` characters, control characters as spaces."""
    text = "".join(char if char.isprintable() or char in JOINERS else " " for char in str(value))
    if len(text) <= longest:
        return text
    end = longest - 1
    while end and is_mark(text[end]):
        end -= 1
    return text[:end] + "…"


def _page_attribute(key: str, value: str, name: str) -> str:
    """An attribute of a figure with the ids and colours of the page."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    for index, colour in enumerate(COLOURS[:-1]):
        value = value.replace(colour.lower(), f"var(--colour-{index}, {colour})")
    return value.replace("#000000", "currentColor")


def _policy(scripts: Sequence[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    images = "data: blob:" if scripts else "data:"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )


def _script_json(value: Mapping[str, Any]) -> str:
    """JSON without characters that could end the script element around it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def figures_folder(run: Path) -> Path:
    """Return the folder of a run's figures, created if missing.

    Raises:
        ReportError: it is a link.
    """
    folder = run / "figures"
    if folder.is_symlink():
        raise ReportError(f"{folder} is a link; a report writes into its own run folder only. Remove the link.")
    folder.mkdir(exist_ok=True)
    return folder


def save_picture(folder: Path, name: str, figure: Figure, title: str, caption: str) -> Picture:
    """Write a figure as ``name.png`` and ``name.svg``, and return it for a page."""
    picture = Picture(name=name, svg=svg_document(figure), title=title, caption=caption)
    figure.set_layout_engine("none")  # the layout is final now
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    replace_file(folder / f"{name}.png", image.getvalue())
    replace_file(folder / f"{name}.svg", picture.svg.encode())
    return picture
