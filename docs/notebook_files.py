"""The example notebooks in docs/notebooks/: their code and text are written by hand, their outputs by running them.

A notebook runs in an empty folder, by this interpreter, with folders of Jupyter of its own, so that nothing of the user
is read or written.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
JUPYTER = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Metadata of a notebook, without versions."""

MOST_SECONDS = 600
"""Longest time in seconds that a cell may take."""


def read(path: Path) -> Any:
    """A notebook."""
    return nbformat.read(path, as_version=4)


def write(notebook: Any, path: Path) -> None:
    """Write a notebook."""
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


@contextmanager
def jupyter_folders() -> Iterator[None]:
    """Give Jupyter and IPython empty folders while the context lasts, and their kernel this checkout."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="jupyter-") as folder:
        for name in JUPYTER:
            (Path(folder) / name).mkdir()
            os.environ[name] = str(Path(folder) / name)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before.get("PYTHONPATH")])])
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def run(notebook: Any, folder: Path) -> Any:
    """Run every cell of a notebook in a folder; return it with its outputs.

    Raises:
        CellExecutionError: a cell fails.
    """
    executed = nbformat.from_dict(notebook)
    executed["metadata"] = nbformat.from_dict(METADATA)
    with jupyter_folders():
        NotebookClient(
            executed, timeout=MOST_SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        ).execute()  # fmt: skip
    executed["metadata"] = nbformat.from_dict(METADATA)
    return executed


def run_all() -> None:
    """Run every notebook, and write its outputs."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
            write(run(read(path), Path(folder)), path)
