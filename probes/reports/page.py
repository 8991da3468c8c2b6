"""HTML pages that open offline: blocks of tables, figures and facts in sections, filled into ``template/page.html``.

The template escapes every text. A figure is matplotlib's SVG, parsed and rewritten: its ids are made unique on the
page, and its black follows the text colour of the page. The security policy of the page names its scripts by hash.
Figures are also kept in the run folder, as PNG and SVG files.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from permafrost.data.atomic import write_atomically
from permafrost.probes.figures.style import COLOURS
from permafrost.probes.results.grid import Examples, Grid
from permafrost.probes.results.run_folder import ReportError

TEMPLATES = Path(__file__).parent / "template"

SVG = "http://www.w3.org/2000/svg"

XLINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A figure with its title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure
    kind: str = "picture"

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG document without a background; equal figures give equal texts."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()


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


@dataclass(frozen=True)
class StoredPicture:
    """A figure that a run folder has as an image."""

    title: str
    caption: str
    png: bytes


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


def render_page(title: str, kind: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> bytes:
    """Return a page as HTML in UTF-8; sections without blocks are left out.

    Args:
        kind: what the page reports on, for example ``run``.
        lead: a sentence below the title.
    """
    sections = [section for section in sections if section.blocks]
    data = [block.data for section in sections for block in section.blocks if isinstance(block, Scatter)]
    scripts = [get_plotlyjs(), (TEMPLATES / "page.js").read_text("utf-8")] if data else []
    page = _environment().get_template("page.html").render(
        title=title, kind=kind, lead=lead, tiles=tiles, sections=sections, policy=_policy(scripts),
        style=Markup((TEMPLATES / "page.css").read_text("utf-8")),  # noqa: S704 - ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - plotly's and ours
        data=Markup(_script_json(data[0])) if data else None,  # noqa: S704 - no < > & in it
    )  # fmt: skip
    return page.encode("utf-8", "replace")


def render_inline(
    title: str,
    kind: str,
    lead: str,
    tiles: Sequence[Tile],
    grids: Sequence[Grid],
    pictures: Sequence[StoredPicture],
    places: Sequence[str],
) -> str:
    """Return the head, some tables and some figures of a page as HTML that stands within another page.

    Args:
        places: lines at the end that say where more is.
    """
    return _environment().get_template("inline.html").render(
        title=title, kind=kind, lead=lead, tiles=tiles, grids=grids, pictures=pictures, places=places
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = lambda picture: Markup(inline_svg(picture))  # noqa: S704 - parsed and rewritten
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment


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


def save_pictures(folder: Path, sections: Sequence[Section], known: Sequence[str]) -> None:
    """Write every picture to ``figures/`` of a run folder, as PNG and SVG.

    Args:
        folder: the run folder.
        known: names of figures that an earlier report may have written; those that are not drawn now are removed.

    Raises:
        ReportError: ``figures`` is a link.
    """
    figures = folder / "figures"
    if figures.is_symlink():
        raise ReportError(f"{figures} is a link; a report writes into its own run folder only. Remove the link.")
    figures.mkdir(exist_ok=True)
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    for picture in pictures:
        write_atomically(figures / f"{picture.name}.svg", picture.svg.encode())
        picture.figure.set_layout_engine("none")  # the layout is final now
        image = io.BytesIO()
        picture.figure.savefig(image, format="png", dpi=150)
        write_atomically(figures / f"{picture.name}.png", image.getvalue())
    for name in set(known) - {picture.name for picture in pictures}:
        for kind in ("png", "svg"):
            (figures / f"{name}.{kind}").unlink(missing_ok=True)
