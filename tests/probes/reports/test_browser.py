"""The report in a real browser: drawn, turnable, offline, harmless, and legible on paper, on a phone, and at night."""

import io
import itertools
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from permafrost.display.html import folder_html
from permafrost.probes.reports.compare import comparison, write_comparison
from permafrost.probes.reports.figures import FIGURES
from permafrost.probes.reports.report import write_report
from tests.support.example_run import (
    EVIL,
    answered,
    breakdown,
    every_table,
    example,
    latents,
    metrics,
    predictions,
    record,
    tagged,
    write_evaluation,
    write_evaluation_of_one,
    write_layers,
    write_tables,
    write_together,
)

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
TOGETHER = {"variants", "training", "by_epoch", "by_epoch_second", "weights", "conflicts", "confusions"}
ELSEWHERE = {"confusion", "layer_map", "layer_curves", "choices", "selectivity", "loss"} | TOGETHER - {
    "variants",
    "training",
}
ELSEWHERE |= {"history", "intermediate", "importances", "unexplained", "transfer", "reliability"}
"""Figures that a run of scores does not have."""

SPACES = {"pca", "tsne"}
MARKS = "path, use, rect, line, circle, polygon"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one the tests are skipped, but not where they must run."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None or find_spec("playwright") is None:
        message = f"no browser: the tests need playwright and one of {', '.join(NAMES)}"
        if os.environ.get("CI") or os.environ.get("PERMAFROST_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of scores with every table, and hostile texts in them."""
    tables = every_table()
    assert EVIL in set(tables["predictions"]["sentence1"])
    assert EVIL in set(tables["latents"]["text"])
    return write_report(write_tables(tmp_path_factory.mktemp("runs") / "made-up-1", tables, record()))


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
    """The same without latents: nothing on it moves."""
    tables = {name: table for name, table in every_table().items() if name != "latents"}
    return write_report(write_tables(tmp_path_factory.mktemp("runs") / "made-up-2", tables, record()))


class Visit:
    """A page opened without a network, and everything it said or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def drawn(self) -> set[str]:
        """Names of the figures that are as large as figures and hold marks."""
        count = f"""figure => {{
            const image = figure.querySelector("canvas") || figure.querySelector("svg");
            const box = image && image.getBoundingClientRect();
            const large = box && box.width > 100 && box.height > 50;
            const marks = large && image.querySelectorAll("{MARKS}").length;
            return [figure.id, marks > 5 || large && image.tagName === "CANVAS"];
        }}"""
        return {
            name.removeprefix("figure-")
            for name, good in self.page.eval_on_selector_all("figure", f"all => all.map({count})")
            if good
        }

    def image(self, selector: str) -> np.ndarray:
        """What is seen of an element once it has stopped changing, ``[row, column, channel]``."""
        place, before = self.page.locator(selector), b""
        place.scroll_into_view_if_needed()
        for _ in range(20):
            now = place.screenshot()
            if now == before:
                break
            before = now
            self.page.wait_for_timeout(50)
        return imread(io.BytesIO(before))


def missing(visit: Visit, expected: set[str]) -> set[str]:
    """Expected figures that are not drawn."""
    return expected - visit.drawn()


STILL = set(FIGURES) - ELSEWHERE


@pytest.fixture(scope="module")
def whole(browser, report) -> Iterator[Visit]:
    """The page with everything on it, opened once."""
    with Visit(browser, report) as visit:
        visit.page.wait_for_selector("#figure-tsne canvas")
        yield visit
        assert visit.errors == []


def test_every_figure_is_drawn_without_an_error_or_a_request(whole, report):
    assert missing(whole, STILL | SPACES) == set()
    assert whole.errors == []
    assert [url for url in whole.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_texts_are_only_texts(whole):
    assert whole.page.evaluate("window.hacked") is None
    assert whole.page.locator("td", has_text="window.hacked=1").count() == 1
    assert whole.page.evaluate("document.querySelector('main img, td script, main a[href^=http]')") is None


@pytest.mark.parametrize("method", sorted(SPACES))
def test_latents_are_points_that_turn_with_the_mouse(whole, method):
    selector = f"#figure-{method} .space"
    before = whole.image(selector)
    assert len(np.unique(before.reshape(-1, before.shape[-1]), axis=0)) > 50  # colours; a blank one has few
    box = whole.page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    whole.page.mouse.move(x, y)
    whole.page.mouse.down()
    whole.page.mouse.move(x + 90, y + 40, steps=2)
    whole.page.mouse.up()
    whole.page.mouse.move(x, 5)
    assert (whole.image(selector) != before).any(-1).mean() > 0.01


def test_another_layer_can_be_chosen(whole):
    shown = "JSON.stringify(document.querySelector('#figure-pca .space').data[0].x)"
    before = whole.page.evaluate(shown)
    whole.page.select_option("#input", label="mean, layer 6")
    assert whole.page.evaluate(shown) != before


def test_a_point_that_is_pointed_at_says_its_text_as_it_is(browser, tmp_path):
    table = latents().assign(text=EVIL, x=0.0, y=0.0, z=0.0)  # all in the middle
    path = write_report(write_tables(tmp_path / "run", {"metrics": metrics(True), "latents": table}, {}))
    with Visit(browser, path) as visit:
        visit.page.wait_for_selector("#figure-pca canvas")
        visit.image("#figure-pca .space")
        box = visit.page.locator("#figure-pca .space").bounding_box()
        hover = visit.page.locator("#figure-pca .hovertext")
        for dx, dy in itertools.product(range(0, -90, -10), range(-40, 41, 10)):
            visit.page.mouse.move(box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2 + dy)
            visit.page.wait_for_timeout(40)
            if hover.count():
                break
        assert "<script>window.hacked=1</script>" in hover.first.text_content()
        assert hover.locator("a").count() == 0
        assert visit.page.evaluate("window.hacked") is None
        assert visit.errors == []


@pytest.mark.parametrize("name", ["variants", "diagram"])
def test_a_figure_that_is_taken_away_is_missed(browser, still, name):
    with Visit(browser, still) as visit:
        assert missing(visit, STILL) == set()
        visit.page.eval_on_selector(f"#figure-{name} svg", "one => one.remove()")
        assert missing(visit, STILL) == {name}


def test_a_figure_that_is_drawn_empty_is_missed(browser, still):
    with Visit(browser, still) as visit:
        visit.page.eval_on_selector("#figure-training svg", "one => one.replaceChildren()")
        assert missing(visit, STILL) == {"training"}


def test_a_figure_that_is_not_registered_is_missed(browser, tmp_path, monkeypatch):
    monkeypatch.delitem(FIGURES, "variants")
    path = write_report(write_tables(tmp_path / "run", {"metrics": metrics()}, record()))
    with Visit(browser, path) as visit:
        assert missing(visit, {"variants", "by_layer", "diagram"}) == {"variants"}


def test_classes_have_a_confusion_matrix(browser, tmp_path):
    tables = {"metrics": metrics(True), "predictions": predictions(True)}
    path = write_report(write_tables(tmp_path / "run", tables, record(True)))
    with Visit(browser, path) as visit:
        assert missing(visit, {"confusion", "variants", "diagram"}) == set()
        assert visit.errors == []


def test_entities_are_marked_in_their_sentences(browser, tmp_path):
    tables = {"metrics": metrics(True), "predictions": tagged(), "breakdown": breakdown()}
    path = write_report(write_tables(tmp_path / "run", tables, record(True)))
    with Visit(browser, path, color_scheme="dark") as visit:
        assert missing(visit, {"confusion", "by_entity_type", "by_pattern"}) == set()
        lines = "all => Object.fromEntries(all.map(one => [one.className, getComputedStyle(one).borderBottomStyle]))"
        styles = visit.page.eval_on_selector_all("mark", lines)
        assert styles == {"right": "solid", "missed": "dashed", "extra": "dotted", "differs": "double"}
        assert visit.page.locator("mark.missed", has_text="Reuters").inner_text() == "Reuters ORG, missed"
        ink, paper = visit.page.evaluate(LIGHTNESS, "mark")
        assert ink - paper > 0.5
        assert visit.errors == []


def test_answers_are_marked_in_their_context_on_a_phone(browser, tmp_path):
    tables = {"metrics": metrics(True), "predictions": answered(), "breakdown": breakdown()}
    path = write_report(write_tables(tmp_path / "run", tables, record(True)))
    with Visit(browser, path, viewport={"width": 320, "height": 800}, is_mobile=True, has_touch=True) as visit:
        assert missing(visit, {"by_question_word"}) == set()
        assert visit.page.locator("mark").count() == 7
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 320
        assert visit.page.evaluate("window.hacked") is None


@pytest.mark.parametrize(
    ("experiment", "figures"),
    {
        "ablation": {"layer_curves", "choices", "selectivity"},
        "study": {"history", "intermediate", "importances", "unexplained"},
        "pretraining": {"loss"},
    }.items(),
)
def test_other_experiments_are_drawn_too(browser, tmp_path, experiment, figures):
    with Visit(browser, write_report(example(tmp_path / "run", experiment))) as visit:
        assert missing(visit, figures) == set()
        assert visit.errors == []


def test_tasks_by_layer_are_a_map_and_curves(browser, tmp_path):
    path = write_report(write_layers(tmp_path / "run"))
    with Visit(browser, path) as visit:
        assert missing(visit, {"layer_map", "layer_curves"}) == set()
        visit.page.eval_on_selector("#figure-layer_map svg", "one => one.remove()")
        assert missing(visit, {"layer_map", "layer_curves"}) == {"layer_map"}
        assert visit.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_evaluation_of_several_runs_has_its_matrix_and_what_each_predicted(browser, tmp_path, scheme):
    path = write_report(write_evaluation(tmp_path / "run"))
    figures = {"transfer", "1-pair-by_class", "1-pair-confusion", "1-pair-reliability"}
    with Visit(browser, path, color_scheme=scheme) as visit:
        assert missing(visit, figures) == set()
        assert visit.errors == []
        assert visit.requests == [path.as_uri()]
        assert visit.page.evaluate("window.hacked") is None
        assert visit.page.evaluate("document.querySelector('main img, main script, main a[href^=http]')") is None
        assert visit.page.locator("#results tbody tr", has_text="<b>nli</b>-2").count() >= 2  # matrix, and its rows
        for name in figures:
            assert visit.page.eval_on_selector(f"#figure-{name}", APART) == [], name
            selector = f"#figure-{name} svg text"
            ink, paper = visit.page.evaluate(LIGHTNESS, selector)
            assert (paper - ink if scheme == "light" else ink - paper) > 0.5, name
        visit.page.eval_on_selector("#figure-transfer svg", "one => one.remove()")
        assert missing(visit, figures) == {"transfer"}


def test_an_evaluation_of_one_run_reads_like_a_run_on_a_phone(browser, tmp_path):
    path = write_report(write_evaluation_of_one(tmp_path / "run"))
    with Visit(browser, path, viewport={"width": 320, "height": 800}, is_mobile=True, has_touch=True) as visit:
        assert missing(visit, {"by_class", "confusion", "reliability"}) == set()
        assert visit.page.locator(".tiles div", has_text="accuracy on test").inner_text().split()[3] == "0.600"
        assert visit.errors == []
        visit.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 320
        assert visit.page.evaluate("window.hacked") is None


def test_probabilities_have_a_reliability_curve_and_latents_both_maps(browser, tmp_path):
    tables = every_table(True)
    path = write_report(write_tables(tmp_path / "run", tables, record(True)))
    with Visit(browser, path) as visit:
        visit.page.wait_for_selector("#figure-tsne canvas")
        assert missing(visit, {"reliability", "confusion"} | SPACES) == set()
        assert visit.page.locator("#figure-reliability svg text", has_text="uncalibrated").count() == 1
        assert visit.errors == []


@pytest.mark.parametrize("write", [write_evaluation_of_one, write_evaluation])
def test_a_result_in_a_notebook_is_harmless_and_its_figures_are_seen(browser, tmp_path, write):
    folder = write(tmp_path / "run")
    write_report(folder)
    cell = tmp_path / "cell.html"
    cell.write_text(
        f"<!doctype html><meta charset=utf-8><body>{folder_html(folder, EVIL)}{folder_html(tmp_path, EVIL)}"
    )
    with Visit(browser, cell) as visit:
        sizes = visit.page.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth, one.width])")
        assert sizes
        assert all(natural > 300 and shown > 200 for natural, shown in sizes)
        assert visit.page.locator("th", has_text="accuracy" if write is write_evaluation_of_one else "a.csv").count()
        assert visit.page.evaluate("window.hacked") is None
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [cell.as_uri()]


@pytest.mark.parametrize("points", [4, 5, 9])
def test_few_texts_have_t_sne_from_five_on_and_a_caution(browser, tmp_path, points):
    tables = {"metrics": metrics(True), "latents": latents(points=points)}
    path = write_report(write_tables(tmp_path / "run", tables, record(True)))
    with Visit(browser, path) as visit:
        visit.page.wait_for_selector("#figure-pca canvas")
        drawn = SPACES & visit.drawn()
        assert drawn == (SPACES if points >= 5 else {"pca"})
        cautions = visit.page.locator("#space p", has_text="t-SNE").count()
        assert cautions == (1 if points >= 5 else 0)
        assert visit.errors == []


APART = """figure => {
    const image = figure.querySelector("svg"), frame = image.getBoundingClientRect(), found = [];
    const texts = [...image.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([text, box], place) => {
        if (box.left < frame.left - 1 || box.right > frame.right + 1) found.push(`${text} is cut`);
        for (const [other, there] of texts.slice(place + 1)) {
            const across = Math.min(box.right, there.right) - Math.max(box.left, there.left);
            const down = Math.min(box.bottom, there.bottom) - Math.max(box.top, there.top);
            if (across > 1.5 && down > 2.5) found.push(`${text} is on ${other}`);
        }
    });
    return found;
}"""
"""Texts of a figure that are cut at its edge, or lie on one another."""


@pytest.mark.parametrize(("tasks", "variants", "width"), [(2, 8, 400), (1, 8, 1200), (2, 1, 400), (5, 8, 1200)])
def test_several_tasks_are_drawn_with_every_name_in_its_place(browser, tmp_path, tasks, variants, width):
    kinds = ["class", "tags", "answers", "score", "class"]
    names = {f"task-{n}-{'with_a-very-long-name' * (n % 2)}": kind for n, kind in enumerate(kinds[:tasks])}
    several = [f"variant {n}{', of many words and pcgrad' * (n % 3)}" for n in range(variants)]
    path = write_report(write_together(tmp_path / "run", names, several, epochs=12, seeds=(0, 1)))
    with Visit(browser, path, viewport={"width": width, "height": 800}, color_scheme="dark") as visit:
        assert missing(visit, {"variants", "training", "by_epoch", "by_epoch_second"}) == set()
        for name in visit.drawn() & TOGETHER:
            assert visit.page.eval_on_selector(f"#figure-{name}", APART) == [], name
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.errors == []


def test_a_comparison_is_drawn_too(browser, still, tmp_path):
    with Visit(
        browser, write_comparison(comparison([still.parent, still.parent]), tmp_path / "compared.html")
    ) as visit:
        assert missing(visit, {"runs"}) == set()
        assert visit.errors == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_one_way(browser, still, width):
    with Visit(browser, still, viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True) as visit:
        visit.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        visit.page.evaluate("window.scrollTo(500, 0)")
        assert visit.page.evaluate("window.scrollX") == 0
        tables = visit.page.eval_on_selector_all(".scroll", "all => all.map(one => one.getBoundingClientRect().right)")
        assert max(tables) <= width


def test_latents_fit_a_phone(browser, report):
    with Visit(browser, report, viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True) as visit:
        visit.page.wait_for_selector("#figure-tsne canvas")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390


LIGHTNESS = """selector => {
    const element = document.querySelector(selector), style = getComputedStyle(element);
    const paper = getComputedStyle(document.body).backgroundColor;
    const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, one) => sum + Number(one) / 765, 0);
    return [light(element.tagName === "text" ? style.fill : style.color), light(paper)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(browser, still, scheme):
    with Visit(browser, still, color_scheme=scheme) as visit:
        for selector in ("h1", "td", "figcaption", "#figure-variants svg text", "#figure-diagram svg text"):
            ink, paper = visit.page.evaluate(LIGHTNESS, selector)
            assert (paper - ink if scheme == "light" else ink - paper) > 0.5, selector


def test_the_page_prints(browser, still):
    with Visit(browser, still, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        ink, paper = visit.page.evaluate(LIGHTNESS, "#figure-variants svg text")
        assert paper - ink > 0.9  # ink on white, whatever the screen
        visit.page.set_viewport_size({"width": 680, "height": 900})  # the text of an A4 page
        boxes = "all => all.map(one => [getComputedStyle(one).overflowX, one.scrollWidth - one.clientWidth])"
        found = visit.page.eval_on_selector_all(".scroll", boxes)
        assert all(overflow == "visible" and beyond <= 0 for overflow, beyond in found)
        assert visit.page.pdf(format="A4").startswith(b"%PDF")


def test_every_figure_has_a_name_for_those_who_do_not_see_it(whole):
    names = whole.page.eval_on_selector_all(
        "figure [role=img]",
        """all => all.map(one => one.getAttribute("aria-label")
            || document.getElementById(one.getAttribute("aria-labelledby")).textContent)""",
    )
    assert len(names) == len(STILL | SPACES)
    assert all(len(name) > 10 for name in names)
