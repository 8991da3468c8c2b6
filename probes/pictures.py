"""A drawn figure kept in a run folder, as PNG and as SVG, and as the page shows it."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from probes.page import Picture, replace_file, svg_of
from probes.tables import ReportError


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
