"""A user's own rows, as they are: some that cannot be used, very few of them, and very many classes."""

import warnings

import pandas as pd
import pytest

from permafrost import api
from permafrost.probes.prediction.requests import requests_from_file
from permafrost.probes.reports.report import write_report  # not the one that the fixture puts in its place
from permafrost.probes.runs.load import load_tasks
from tests.support.bench import Bench, write

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def settings(bench: Bench, rows: list[tuple[str, str]], *more: str) -> list[str]:
    path = write(bench.folder / "rows.csv", ["text", "label"], rows)
    return bench.settings(f"corpus.path={path}", "corpus.columns=text,label", "variants=[]", *more)


def test_rows_that_are_left_out_are_told_and_listed_in_the_run_folder(bench):
    rows = [(f"the soup was {'warm' if row % 2 else 'cold'} on day {row}", "ab"[row % 2]) for row in range(120)]
    rows[10], rows[20] = ("the soup", ""), ("the soup", "-")
    lines = settings(bench, rows, "corpus.ignore=-")
    code, _, err = bench.command("run", "classify", settings=lines)
    assert code == 0
    path = bench.folder / "rows.csv"
    assert f"rows.csv: 1 of 120 rows (0.83%) are left out, empty label; the first: {path}:12" in err
    assert f"rows.csv: 1 of 120 rows (0.83%) are left out, label '-'; the first: {path}:22" in err
    (run,) = bench.runs.glob("classify-*")
    assert pd.read_csv(run / "skipped.csv").to_dict("list") == {
        "corpus": ["rows.csv"] * 2,
        "origin": [f"{path}:12", f"{path}:22"],
        "reason": ["empty label", "label '-'"],
        "problem": [
            "the label is empty",
            "corpus.ignore names its label; set it to [] to keep such rows",
        ],
    }
    code, _, err = bench.command("run", "classify", "--strict", settings=lines)
    assert (code, err.splitlines()[-1].split("rows.csv:")[-1]) == (
        2, "12: the label is empty; correct it, or leave out --strict (corpus.strict = false) to skip it."
    )  # fmt: skip


def test_six_rows_run_and_a_split_of_one_row_says_why_it_has_no_metric(bench):
    rows = [(f"the soup was {'warm' if row % 2 else 'cold'} on day {row}", "abc"[row % 3]) for row in range(6)]
    code, _, err = bench.command("run", "classify", settings=settings(bench, rows))
    assert code == 0
    assert "rows.csv: test has 1 row: no metric, which needs two" in err


def test_numbers_of_classes_mean_the_same_to_a_finished_run(bench):
    rows = [(f"the soup was {'warm' if row % 2 else 'cold'} on day {row}", str(1 + row % 2)) for row in range(90)]
    (bench.folder / "classes.txt").write_text("cold\nwarm\n")
    run = api.run("classify", settings(bench, rows), bench.runs)
    asked = write(bench.folder / "new.csv", ["text", "label"], [("a soup", "1"), ("some soup", "2"), ("soup", "warm")])
    (requests,) = requests_from_file(load_tasks(run.path), asked).values()
    assert [request.target for request in requests] == ["cold", "warm", "warm"]


@pytest.mark.slow
def test_a_hundred_and_fifty_classes_warn_of_nothing(bench):
    rows = [(f"the soup was {'warm' if row % 2 else 'cold'} on day {row}", f"class {row % 150}") for row in range(900)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = api.run("classify", settings(bench, rows, "train.epochs=1"), bench.runs)
        page = write_report(run.path).read_text("utf-8")
    assert "Mistakes, the surest first." in page
