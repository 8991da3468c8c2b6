"""The example notebooks run, and are in the documentation as they ran."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 1_000_000


@pytest.fixture
def files(monkeypatch) -> ModuleType:
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("notebook_files")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def html_of(cell):
    return "".join(str(output.data.get("text/html", "")) for output in cell.outputs if "data" in output)


def shape(notebook):
    """What the result of each cell is: the kinds of its output, its heads of tables and its number of images."""
    results = [[one for one in cell.outputs if one.output_type == "execute_result"] for cell in code_cells(notebook)]
    kinds = [[sorted(one.data) for one in some] for some in results]
    heads = [re.findall(r"<th[^>]*>([^<]*)</th>", html_of(cell)) for cell in code_cells(notebook)]
    return kinds, heads, [html_of(cell).count("<img ") for cell in code_cells(notebook)]


def test_there_are_notebooks_and_pages_link_to_them():
    assert NOTEBOOKS
    pages = [ROOT / "README.md", ROOT / "docs" / "guide" / "notebooks.md"]
    for path in NOTEBOOKS:
        assert all(f"notebooks/{path.name})" in page.read_text("utf-8") for page in pages)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_was_run_from_its_first_cell_to_its_last(path, files):
    notebook = files.read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"display_data", "execute_result"}  # no error, no warning
    assert path.stat().st_size < MOST_BYTES
    text = path.read_text("utf-8")
    assert not re.search(r"/tmp/|/home/|/root/|\bhttps?://(?!jupyter)", text)
    assert notebook.metadata == files.METADATA
    assert all(html_of(cell) for cell in cells[1:])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_shows_what_the_documentation_has(path, files, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    executed = files.run(files.read(path), work)
    assert [cell.source for cell in executed.cells] == [cell.source for cell in files.read(path).cells]
    assert shape(executed) == shape(files.read(path))
    shown = {cell.source.splitlines()[-1]: html_of(cell) for cell in code_cells(executed)}
    result, evaluated = shown["result"], shown["predictor.evaluate(elsewhere)"]
    for text, folder in ((result, "quickstart-1"), (evaluated, "evaluation-1")):
        assert "spearman on test" in text
        assert re.search(r'<td class="number">0\.\d{4} <small>\[0\.\d{3}, 0\.\d{3}\]</small></td>', text)
        assert f"run folder: runs/{folder}<" in text
        assert 'src="data:image/png;base64,' in text
        assert "<pre" in text  # notices, which came by themselves
    assert "A dog runs across the field." in shown["latents"]
    assert (work / "runs" / "quickstart-1" / "report.html").is_file()
    assert not {".ipython", ".jupyter", ".local"} & {entry.name for entry in home.iterdir()}
