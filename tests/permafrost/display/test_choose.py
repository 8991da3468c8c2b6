"""Which display of progress a function uses: that of the call, else that of the process, else by where it runs."""

import inspect

import pytest

import permafrost as pf
from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress, Progress
from permafrost.display import choose
from permafrost.display.notebook import NotebookProgress
from permafrost.display.terminal import TerminalProgress
from permafrost.finished_run import FinishedRun


class Heard(NoProgress):
    """Remembers the notices and the bars."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bars: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def bar(self, label: str, total: int):
        self.bars.append(label)
        return super().bar(label, total)


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch):
    monkeypatch.setattr(choose, "_of_process", None)


OWN = Heard()


@pytest.mark.parametrize(
    ("of_process", "of_call", "script", "notebook"),
    [
        (None, None, NoProgress, NotebookProgress),
        (None, True, TerminalProgress, NotebookProgress),
        (None, False, NoProgress, NoProgress),
        (True, None, TerminalProgress, NotebookProgress),
        (True, False, NoProgress, NoProgress),
        (False, None, NoProgress, NoProgress),
        (False, True, TerminalProgress, NotebookProgress),
        (OWN, None, Heard, Heard),
        (OWN, True, Heard, Heard),
        (OWN, False, NoProgress, NoProgress),
        (False, OWN, Heard, Heard),
    ],
)
def test_the_call_comes_before_the_process_and_the_process_before_the_place(
    of_process, of_call, script, notebook, monkeypatch
):
    pf.show_progress(of_process)
    for expected, here in ((script, False), (notebook, True)):
        monkeypatch.setattr(choose, "in_notebook", lambda here=here: here)
        assert type(choose.display_of(of_call)) is expected


@pytest.mark.parametrize("wrong", ["yes", 1, TerminalProgress, print])
def test_what_is_no_display_is_refused(wrong):
    for function in (pf.show_progress, choose.display_of):
        with pytest.raises(InputError, match="set it to True, False or None, or to an object with the methods note, "):
            function(wrong)


def test_every_function_that_shows_progress_is_silent_unless_it_is_asked():
    functions = [getattr(pf, name) for name in pf.__all__]
    functions += [FinishedRun.predict, FinishedRun.evaluate, FinishedRun.embed]
    with_progress = [inspect.signature(function).parameters.get("progress") for function in functions]
    assert sum(parameter is not None for parameter in with_progress) >= 13
    for parameter in filter(None, with_progress):
        assert parameter.default is None or parameter.annotation == Progress | bool | None  # show_progress itself


def test_functions_tell_the_display_of_the_process_or_of_the_call(finished, tmp_path, capsys):
    bench, done = finished
    heard, predictor = Heard(), pf.load(done.path)
    pf.show_progress(heard)
    pf.latents(["the dog runs"], str(bench.backbone), cache=tmp_path)
    said = list(heard.notes)
    assert any("1 texts" in note for note in said)
    predictor.predict([("the dog", "a dog")])
    assert "answering" in heard.bars
    pf.latents(["a cat"], str(bench.backbone), cache=tmp_path, progress=False)
    assert heard.notes == said
    assert capsys.readouterr() == ("", "")
    pf.latents(["a bird"], str(bench.backbone), cache=tmp_path, progress=TerminalProgress())
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 texts" in err
