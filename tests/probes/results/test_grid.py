"""One table, many forms: no character of a cell has a meaning in Markdown or LaTeX, and nothing of it is lost."""

import re

import pytest

from permafrost.probes.results.grid import LATEX, Grid, latex_text, markdown_text, to_latex, to_markdown
from permafrost.probes.results.metric_row import COLUMNS, MetricRow, metrics_frame

EVIL = r"a_b & 50 % of $x^2$ {c} \input{d} #1 ~ <b> | [e] `f` *g* " + '"h"'
GRID = Grid(
    caption="On test; 95 % of all.",
    heads=["variant", "F1 on test", "trained"],
    rows=[["raw", "0.5000", "–"], [EVIL, ("0.6600", "[0.645, 0.672]"), ("9,000", "39.6\u00a0%")]],
    strong=1,
)


def unescaped(text: str) -> str:
    """What LaTeX prints of an escaped text."""
    printed = {escape: char for char, escape in LATEX.items()}
    pattern = "|".join(map(re.escape, sorted(printed, key=len, reverse=True)))
    return re.sub(pattern, lambda found: printed[found[0]], text)


@pytest.mark.parametrize("char", LATEX)
def test_a_character_with_a_meaning_in_latex_is_written_as_its_name(char):
    assert latex_text(char) == LATEX[char]


def test_an_escaped_text_prints_as_it_was():
    assert unescaped(latex_text(EVIL)) == EVIL
    assert not re.search(r"(?<!\\)[&%$#_]", latex_text(EVIL))


def test_a_latex_table_has_every_cell_its_interval_and_the_chosen_line_in_bold():
    lines = to_latex(GRID).splitlines()
    assert lines[:6] == [
        r"\begin{table}", r"\centering", r"\caption{On test; 95 \% of all.}", r"\begin{tabular}{lrr}", r"\toprule",
        r"variant & F1 on test & trained \\",
    ]  # fmt: skip
    plain, chosen = lines[7:9]
    assert plain == r"raw & 0.5000 & – \\"
    cells = re.split(r" (?<!\\)& ", chosen.removesuffix(r" \\"))
    assert len(cells) == 3
    assert all(re.fullmatch(r"\\textbf\{.*\}", cell) for cell in cells)
    assert cells[1] == r"\textbf{0.6600 {\small {[}0.645, 0.672{]}}}"
    text = to_latex(GRID)
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_a_markdown_table_has_as_many_cells_in_every_line():
    lines = to_markdown(GRID).splitlines()
    assert lines[0] == "| variant | F1 on test | trained |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert [len(re.split(r"(?<!\\)\|", line)) for line in lines[:4]] == [5] * 4
    assert lines[3].count("**") == 6
    assert r"0.6600 \[0.645, 0.672\]" in lines[3]
    assert lines[-1] == "On test; 95 % of all."


def test_a_text_in_markdown_is_only_a_text():
    assert re.sub(r"\\([\\`*_{}\[\]<>#~$&])", r"\1", markdown_text(EVIL)) == EVIL
    assert not re.search(r"(?<!\\)[`*_<\[]", markdown_text(EVIL))


def test_a_row_has_the_columns_of_the_table_and_what_it_does_not_say_is_empty():
    frame = metrics_frame([MetricRow(variant="one", backbone="b", metric="trained_parameters", value=7)])
    assert COLUMNS == list(frame) == [
        "variant", "against", "backbone", "corpus", "view", "layer", "subset", "control", "task", "split", "metric",
        "value", "low", "high", "p", "n", "seed",
    ]  # fmt: skip
    assert frame.to_csv(index=False).splitlines()[1] == "one,,b,,,,,,,,trained_parameters,7,,,,,"
