"""Progress in a notebook: one place of the cell's output, notices kept, bars only while they last, texts escaped."""

import sys
from types import SimpleNamespace

import pytest

from permafrost.display import notebook
from permafrost.display.notebook import NotebookProgress, in_notebook
from permafrost.display.terminal import TerminalProgress


class Cell:
    """The output of a cell: what is in its one place, and what was there before."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.places = 0

    def display(self, data, raw, display_id):
        assert raw
        assert display_id
        self.places += 1
        self.shown.append(data)
        return SimpleNamespace(update=lambda data, raw: self.shown.append(data))


@pytest.fixture
def cell(monkeypatch) -> Cell:
    made = Cell()
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=made.display))
    return made


@pytest.mark.parametrize(
    ("shell", "expected"), [(None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)]
)
def test_a_notebook_is_a_shell_with_a_kernel(shell, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook() is expected


def test_without_ipython_there_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert in_notebook() is False


def test_notices_and_bars_share_one_place_and_the_notices_stay(cell, monkeypatch):
    monkeypatch.setattr(notebook, "REFRESH_SECONDS", 0)
    progress = NotebookProgress()
    progress.note("first <script>alert(1)</script> [bold]")
    with progress.bar("work <b> [red]", 1000) as advance:
        advance(250)
        assert "250/1000" in cell.shown[-1]["text/plain"]
        assert "/s" in cell.shown[-1]["text/plain"] or "left" in cell.shown[-1]["text/plain"]
        assert "work &lt;b&gt; [red]" in cell.shown[-1]["text/html"]
        with progress.bar("within", 10) as advance_within:
            advance_within(1)
            assert [name in cell.shown[-1]["text/plain"] for name in ("work", "within")] == [True, True]
    progress.note("last")
    assert cell.places == 1
    assert cell.shown[-1]["text/plain"] == "first <script>alert(1)</script> [bold]\nlast"
    assert all("<script>" not in data["text/html"] and "<b>" not in data["text/html"] for data in cell.shown)


def test_short_work_leaves_nothing_and_longer_work_its_count(cell, monkeypatch):
    with NotebookProgress().bar("short", 2) as advance:
        advance(1)
        advance(1)
    assert cell.shown == []
    monkeypatch.setattr(notebook, "MIN_SECONDS", 0)
    with NotebookProgress().bar("longer", 2000) as advance:
        advance(2000)
    assert cell.shown[-1]["text/plain"] == "longer: 2,000 of 2,000"


def test_a_bar_without_a_total_counts(cell, monkeypatch):
    monkeypatch.setattr(notebook, "MIN_SECONDS", 0)
    with NotebookProgress().bar("texts", None) as advance:
        advance(2000)
        assert "2000/?" in cell.shown[-1]["text/plain"]
    assert cell.shown[-1]["text/plain"] == "texts: 2,000"


def test_a_bar_that_ends_by_an_error_is_taken_away(cell):
    progress = NotebookProgress()
    progress.note("begun")

    def work():
        with progress.bar("work", 10) as advance:
            advance(1)
            assert "work" in cell.shown[-1]["text/plain"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert cell.shown[-1]["text/plain"] == "begun"


def test_many_notices_are_the_last_ones(cell):
    progress = NotebookProgress()
    for number in range(notebook.MOST_NOTES + 5):
        progress.note(f"note {number}")
    lines = cell.shown[-1]["text/plain"].splitlines()
    assert (lines[0], len(lines)) == ("note 5", notebook.MOST_NOTES)


def test_a_terminal_that_is_none_has_notices_and_no_bars(capsys):
    progress = TerminalProgress()
    progress.note("told [bold]")
    with progress.bar("work", 3) as advance:
        advance(3)
    TerminalProgress(quiet=True).note("not told")
    assert capsys.readouterr() == ("", "told [bold]\n")
