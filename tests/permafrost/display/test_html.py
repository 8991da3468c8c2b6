"""Results in a notebook: the tables and figures of their report; harmless, quick, and never an error."""

import base64
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

import permafrost as pf
from permafrost.display import html
from permafrost.probes.reports.report import result_grids, write_report
from permafrost.probes.results.grid import plain_text
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult, StudyRun
from permafrost.probes.results.read_result import read_result
from permafrost.probes.results.run_tables import read_tables
from tests.support.example_run import EVIL, SELECTED, example, record, write_evaluation, write_tables, write_together
from tests.support.example_run import metrics as measured
from tests.support.page_reader import Page

PIXEL = html.PNG + b"pixels"


def with_figures(folder, *names):
    (folder / "figures").mkdir(exist_ok=True)
    for name in names:
        (folder / "figures" / f"{name}.png").write_bytes(PIXEL)
    return folder


def result_of(folder, metrics=()):
    return RunResult(
        path=folder, seconds=1.0, texts=4, texts_distinct=3, texts_run=0, selected=SELECTED, parameters={},
        backbone_parameters={}, metrics=list(metrics),
    )  # fmt: skip


def small(folder):
    """A run folder with the metrics of scores alone."""
    return write_tables(folder, {"metrics": measured()}, record())


OURS = {"div", "style", "p", "b", "span", "small", "table", "thead", "tbody", "tr", "th", "td"}
OURS |= {"figure", "img", "figcaption", "details", "summary"}


def harmless(text):
    """The HTML of a result, whose tags are ours and whose images are within it."""
    page = Page(text)
    assert set(page.tags) <= OURS
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    return text


@pytest.mark.parametrize("experiment", ["run", "ablation", "study", "pretraining"])
def test_a_result_shows_the_tables_of_its_report_and_its_figures(experiment, tmp_path):
    folder = with_figures(example(tmp_path / "made-up-1", experiment), *html.MAIN_FIGURES)
    text = harmless(result_of(folder)._repr_html_())
    for grid in result_grids(folder)[: html.MOST_GRIDS]:
        for cell in [*grid.heads, *(cell for line in grid.rows[: html.MOST_ROWS] for cell in line)]:
            assert plain_text(cell) in re.sub(r"\s+", " ", unescaped(text))
    images = re.findall(r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)">', text)
    assert [base64.b64decode(image) for image in images] == [PIXEL] * html.MOST_FIGURES
    assert f"run folder: {folder}" in text
    assert "report: " not in text
    assert "nan" not in text


def unescaped(text):
    from html import unescape

    return unescape(re.sub(r"</?small>", "", text)).replace("\u00a0", " ")


def test_the_chosen_variant_is_strong_and_has_its_interval(tmp_path):
    text = result_of(small(tmp_path / "run"))._repr_html_()
    strong = text.partition('<tr class="strong">')[2].partition("</tr>")[0]
    assert "mix &lt;b&gt;deep&lt;/b&gt; &amp; wide" in strong
    assert "0.8300 <small>[0.810, 0.850]</small>" in strong


@pytest.mark.parametrize("write", [example, write_evaluation])
def test_hostile_texts_are_only_texts(write, tmp_path):
    text = result_of(write(tmp_path / "<b onclick=1>run"))._repr_html_()
    assert "onclick" in harmless(text)
    broken = RunResult(**vars(result_of(tmp_path / "<script>")) | {"selected": EVIL, "metrics": [
        {"variant": EVIL, "task": "", "split": "test", "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6,
         "seed": None, "against": ""},
    ]})  # fmt: skip
    text = broken._repr_html_()
    assert "0.5000 <small>[0.400, 0.600]</small>" in text
    harmless(text)


def test_several_tasks_are_one_table(tmp_path):
    folder = write_together(tmp_path / "run", {"ner": "tags", "qa": "answers"}, ["one", "other"])
    text = result_of(folder)._repr_html_()
    assert "ner: F1" in text
    assert "qa: F1" in text


@pytest.mark.parametrize(
    ("harm", "said"),
    {
        "gone": "is no finished run",
        "changed": "is not as the run wrote it",
        "no record": "is no finished run",
        "unknown": "names the experiment",
    }.items(),
)
def test_a_folder_that_cannot_be_read_is_no_error(harm, said, tmp_path):
    folder = small(tmp_path / "run")
    metrics = read_result(folder).metrics
    if harm == "gone":
        folder = tmp_path / "elsewhere"
    elif harm == "changed":
        (folder / "metrics.csv").write_text("variant\n")
    elif harm == "no record":
        (folder / "record.json").unlink()
    else:
        folder = write_tables(tmp_path / "unknown", {}, {"experiment": "x"})
    text = result_of(folder, metrics)._repr_html_()
    assert said in text
    assert "0.8300 <small>[0.810, 0.850]</small>" in text
    assert text.count("<tr") <= html.MOST_ROWS + 1


def test_an_image_that_is_none_is_left_out(tmp_path):
    folder = with_figures(small(tmp_path / "run"), "variants", "by_layer")
    figures = folder / "figures"
    (figures / "variants.png").write_bytes(b"<svg onload=alert(1)>")
    (figures / "by_layer.png").write_bytes(PIXEL + bytes(html.MOST_BYTES))
    (figures / "confusion.png").symlink_to(tmp_path / "elsewhere.png")
    assert "<img" not in result_of(folder)._repr_html_()


def test_figures_of_a_report_are_shown(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": measured(True)}, record(True))
    write_report(folder)
    text = harmless(result_of(folder)._repr_html_())
    assert text.count("<img") == 1  # the variants
    assert f"report: {folder / 'report.html'}" in text
    assert len(text) < 400_000


def test_many_predictions_are_not_read(tmp_path):
    tables, rows = {"metrics": measured()}, 100_000
    columns = {"sentence": "x" * 50, "target": 1.0, "score": 0.5, "raw": 0.1, "seed": 0}
    tables["predictions"] = pd.DataFrame({name: [value] * rows for name, value in columns.items()})
    folder = write_tables(tmp_path / "many", tables, record())
    assert len(read_tables(folder, html.MOST_TEXTS)["predictions"]) <= html.MOST_TEXTS
    assert SELECTED.split()[0] in result_of(folder)._repr_html_()


def test_other_results_are_shown_by_their_folders(tmp_path):
    study = StudyResult(
        study="s", folder=example(tmp_path / "study", "study"), trials=3, refused=0, number=1, value=0.5, params={},
        recipe=tmp_path, seconds=1.0,
    )  # fmt: skip
    assert "permafrost · study" in study._repr_html_()
    both = StudyRun(study, result_of(small(tmp_path / "best")))
    assert both._repr_html_() == study._repr_html_() + both.best._repr_html_()
    gone = SimilarityResult(
        path=tmp_path / "gone", cosines=pd.DataFrame(), tables={}, texts=("a",), backbones=("b",), refused={},
        texts_run=0, seconds=1.0,
    )  # fmt: skip
    assert "is no finished run" in gone._repr_html_()
    assert "DataFrame" not in repr(gone)


def test_a_run_that_was_loaded_is_shown_too(finished):
    bench, done = finished
    assert "permafrost · run" in done._repr_html_()
    loaded = pf.load(done.path)
    assert repr(loaded) == f"FinishedRun({done.path}: probe)"
    assert loaded._repr_html_() == done._repr_html_()
    assert len(repr(done)) < 2000
    assert "is no finished run" in replace(done, path=bench.folder / "no")._repr_html_()


def test_results_load_nothing_that_draws():
    code = "import sys, permafrost, permafrost.probes.results.outcomes; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"pandas", "matplotlib", "jinja2", "rich", "IPython"} & set(loaded)
