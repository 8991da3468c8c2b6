"""One HTML page that opens offline: sections of tables, figures and facts, filled into ``template/page.html``.

The template escapes every text. A figure is matplotlib's SVG, taken apart and put together again: its names are its
own on the page, its black is the page's ink. What scripts may run is named by hash in the page's security policy.
"""
# MERGED DOCS:
# """A drawn figure kept in a run folder, as PNG and as SVG, and as the page shows it."""

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

from permafrost.data.script import JOINERS, is_mark
from permafrost.probes.figures.style import COLOURS
from permafrost.probes.results.files import ReportError

TEMPLATES = Path(__file__).parent / "template"

SVG = "http://www.w3.org/2000/svg"

XLINK = "{http://www.w3.org/1999/xlink}href"

MOST_TEXT = 500
"""Characters of a text that a cell of a table shows."""


@dataclass(frozen=True)
class Grid:
    """A table; columns of ``texts`` are prose, all others are figures and stand right."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | tuple[str, str]]]
    """A cell is a text, or a figure with what stands small beside it."""

    texts: int = 1
    """How many columns from the left hold words."""

    strong: int | None = None
    """The row that was chosen."""

    sentences: bool = False
    """Whether its first columns are sentences, which want room."""

    fold: str = ""
    """Where it is given, the table is folded away under these words."""

    kind: str = "grid"


@dataclass(frozen=True)
class Picture:
    """A drawn figure and what to see in it."""

    name: str
    svg: str
    """As :func:`svg_of` draws it."""

    title: str
    caption: str
    kind: str = "picture"


@dataclass(frozen=True)
class Turnable:
    """Latents in space; ``data`` as :func:`probes.scatter.panels` returns it."""

    data: Mapping[str, Any]
    spread: bool = False
    """Whether all of them are shown, instead of the one that is chosen."""

    kind: str = "turnable"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    facts: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Fold:
    """A text as it is, folded away."""

    title: str
    text: str
    kind: str = "fold"


Look = Literal["plain", "right", "missed", "extra", "differs"]


@dataclass(frozen=True)
class Piece:
    """A stretch of a text; what is marked says in ``note`` what it is, so that colour is never alone."""

    text: str
    look: Look = "plain"
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A text with stretches marked in it."""

    pieces: Sequence[Piece]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Examples:
    """Texts with marks, one below the other."""

    caption: str
    examples: Sequence[Example]
    fold: str = ""
    """Where it is given, they are folded away under these words."""

    kind: str = "examples"


Block = Grid | Picture | Turnable | Facts | Fold | Examples


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and what stands under them."""

    name: str
    title: str
    note: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A figure of merit at the top of the page."""

    name: str
    value: str
    note: str = ""


def render(title: str, kind: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """The page as HTML; sections without blocks are left out."""
    sections = [section for section in sections if section.blocks]
    data = [block.data for section in sections for block in section.blocks if isinstance(block, Turnable)]
    scripts: list[str] = []
    if data:
        from plotly.offline import get_plotlyjs

        scripts = [get_plotlyjs(), (TEMPLATES / "page.js").read_text("utf-8")]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = lambda picture: Markup(inline_svg(picture))  # noqa: S704 - parsed and rewritten
    return environment.get_template("page.html").render(
        title=title, kind=kind, lead=lead, tiles=tiles, sections=sections, policy=_policy(scripts),
        style=Markup((TEMPLATES / "page.css").read_text("utf-8")),  # noqa: S704 - ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - plotly's and ours
        data=Markup(_data(data[0])) if data else None,  # noqa: S704 - no < > & in it
    )  # fmt: skip


def svg_of(figure: Figure) -> str:
    """A figure as an SVG document without a background; the same figure is the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def inline_svg(picture: Picture) -> str:
    """A figure as an SVG element of the page: named and described, black as the page's ink, ids of its own."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(picture.svg[picture.svg.index("<svg") :])  # noqa: S314
    for element in [root, *root.iter()]:
        for child in [child for child in element if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            element.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.attrib[key] = _own(key, value, picture.name)
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
    """Write a file whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def tidy(value: object, longest: int = MOST_TEXT) -> str:
    """A text as a cell shows it: cut where it is long, a control character as a space."""
    text = "".join(char if char.isprintable() or char in JOINERS else " " for char in str(value))
    if len(text) <= longest:
        return text
    end = longest - 1
    while end and is_mark(text[end]):
        end -= 1
    return text[:end] + "…"


def _own(key: str, value: str, name: str) -> str:
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
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    images = "data: blob:" if scripts else "data:"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def figures_folder(run: Path) -> Path:
    """The folder of a run's figures, made where there is none; raises :class:`ReportError` where it leads elsewhere."""
    folder = run / "figures"
    if folder.is_symlink():
        raise ReportError(f"{folder} is a link; a report writes into its own run folder only. Remove the link.")
    folder.mkdir(exist_ok=True)
    return folder


def save_picture(folder: Path, name: str, figure: Figure, title: str, caption: str) -> Picture:
    """Write ``name.png`` and ``name.svg``."""
    picture = Picture(name, svg_of(figure), title, caption)
    figure.set_layout_engine("none")  # laid out by now
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    replace_file(folder / f"{name}.png", image.getvalue())
    replace_file(folder / f"{name}.svg", picture.svg.encode())
    return picture
