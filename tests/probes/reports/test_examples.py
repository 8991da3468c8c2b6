"""The report of tags, of answers and of tasks by layer; drawn from tables alone, whatever is in them."""

import re

import numpy as np
import pandas as pd
import pytest

from permafrost.probes.reports.compare import comparison
from permafrost.probes.reports.report import example_blocks, result_grids, write_report
from permafrost.probes.reports.subsets import subset_grids
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.results.run_tables import read_tables
from permafrost.probes.tasks.examples import CONTEXT_CHARACTERS, nearest_span, space_before
from tests.support.example_run import (
    CONTEXT,
    EVIL,
    SELECTED,
    TAGGED,
    ablation,
    answered,
    breakdown,
    by_layer,
    metrics,
    predictions,
    record,
    tagged,
    write_layers,
    write_tables,
)
from tests.support.page_reader import Page

pytestmark = pytest.mark.usefixtures("pages_alone")


def page_of(folder) -> tuple[str, Page]:
    text = write_report(folder).read_text("utf-8")
    return text, Page(text)


def of_tags(folder, **more):
    return write_tables(folder, {"metrics": metrics(True), "predictions": tagged(), **more}, record(True))


def of_answers(folder, **more):
    return write_tables(folder, {"metrics": metrics(True), "predictions": answered(), **more}, record(True))


def looks(examples) -> list[list[tuple[str, str, str]]]:
    return [[(p.text, p.look, p.note) for p in one.pieces if p.look != "plain"] for one in examples]


def test_entities_are_marked_with_what_became_of_them(tmp_path):
    blocks = example_blocks(read_tables(of_tags(tmp_path / "run")))
    assert [block.fold for block in blocks] == ["", "Correct predictions"]
    wrong, right = (looks(block.examples) for block in blocks)
    assert wrong[0] == [("Lind", "differs", "PER, predicted LOC"), ("Reuters", "missed", "ORG, missed")]
    assert wrong[1] == [
        ("Anna", "right", "PER"),
        ("Bo Lind", "right", "PER"),
        ("Old", "differs", "LOC, predicted with other ends"),
        ("Town", "missed", "LOC, missed"),
    ]
    assert wrong[2] == [("Acme", "extra", "not ORG")]
    assert right == [[("<b>Oslo</b>", "right", "LOC")]]  # a sentence without entities shows nothing


def test_a_sentence_with_marks_reads_as_it_stands(tmp_path):
    for block in example_blocks(read_tables(of_tags(tmp_path / "run"))):
        for one in block.examples:
            words = "".join(piece.text for piece in one.pieces)
            assert words in {part[0] for part in TAGGED}


@pytest.mark.slow
def test_the_page_of_tags_has_their_figures_and_marks(tmp_path):
    text, page = page_of(of_tags(tmp_path / "run", breakdown=breakdown()))
    assert {"figure-confusion", "figure-by_entity_type"} <= set(page.ids)
    assert "figure-predicted_against_gold" not in page.ids
    assert '<mark class="missed">Reuters<small> ORG, missed</small></mark>' in text
    assert "&lt;b&gt;Oslo&lt;/b&gt;" in text
    assert "0.400 [0.370, 0.420]" in page.text
    assert page.tags.count("mark") == 8


def test_answers_are_marked_in_what_stands_around_them(tmp_path):
    run = read_tables(of_answers(tmp_path / "run"))
    wrong, right = example_blocks(run)
    assert [one.title for one in wrong.examples] == ["What flows?", "Where does it end?", "Who <i>lives</i> there?"]
    assert looks(right.examples) == [[("6,650 km", "right", "gold and predicted")]]
    assert looks(wrong.examples) == [
        [("The Nile", "missed", "gold"), ("the sea", "extra", "predicted")],
        [
            ("near ", "missed", "gold"),
            ("Cairo", "differs", "gold and predicted"),
            (", at the sea", "extra", "predicted"),
        ],
        [("many lands", "missed", "gold")],
    ]
    for one in (*wrong.examples, *right.examples):
        assert sum(len(piece.text) for piece in one.pieces) < 4 * CONTEXT_CHARACTERS + 80
        for part in "".join(piece.text for piece in one.pieces).split(" … "):
            assert part in CONTEXT
    assert wrong.examples[1].note == "predicted “Cairo, at the sea”, gold is “near Cairo”, F1 0.33"
    assert wrong.examples[2].note.startswith("predicted no answer")


@pytest.mark.slow
def test_the_page_of_answers_is_escaped_and_has_its_figure(tmp_path):
    _, page = page_of(of_answers(tmp_path / "run", breakdown=breakdown()))
    assert "figure-by_question_word" in page.ids
    assert not {"figure-confusion", "figure-predicted_against_gold"} & set(page.ids)
    assert "script" not in page.tags
    assert "Who <i>lives</i> there?" in page.text
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_a_gold_answer_is_marked_at_its_own_place_where_the_table_says_it(tmp_path):
    text = "The sea is cold. Few swim in the sea."
    told = {"question": "Where?", "context": text, "target": "the sea", "answer": "cold", "start": 11, "end": 15}
    table = pd.DataFrame([told | {"score": 1.0, "exact_match": 0, "f1": 0.0, "seed": 0}])
    table["context"], table["target"] = "sea, sea, sea and more", "sea"
    for where, expected in ((5, " "), (None, "sea, ")):
        more = {} if where is None else {"target_start": where}
        table["start"], table["end"], table["answer"] = 18, 22, "more"
        run = read_tables(of_answers(tmp_path / str(where), predictions=table.assign(**more)))
        pieces = example_blocks(run)[0].examples[0].pieces
        before = "".join(piece.text for piece in pieces[: [piece.look for piece in pieces].index("missed")])
        assert before == {5: "sea, ", None: "sea, sea, "}[where], expected


def test_around_an_answer_in_a_script_without_spaces_stands_as_much_as_in_others(tmp_path):
    text = "他们说了很多话，" * 40 + "野马队赢了比赛。" + "然后他们都走了。" * 40
    first = text.index("野马队")
    told = {
        "question": "谁？",
        "context": text,
        "target": "野马队",
        "answer": "比赛",
        "start": first + 5,
        "end": first + 7,
    }
    table = pd.DataFrame([told | {"score": 1.0, "exact_match": 0, "f1": 0.0, "seed": 0}])
    pieces = example_blocks(read_tables(of_answers(tmp_path / "run", predictions=table)))[0].examples[0].pieces
    assert 2 * CONTEXT_CHARACTERS < sum(len(piece.text) for piece in pieces) < 2 * CONTEXT_CHARACTERS + 30


def test_words_of_a_script_without_spaces_are_joined_without():
    words = ["Bei", "北", "京", ",", "ที่", "นี่", "है"]
    assert "".join(space_before(words, place) + word for place, word in enumerate(words)) == "Bei 北京 , ที่นี่ है"


def test_of_several_places_of_a_gold_answer_the_nearest_is_marked():
    text = "sea and sea and sea"
    assert nearest_span(text, "sea", 9) == (8, 11)
    assert nearest_span(text, "sea", 100) == (16, 19)
    assert nearest_span(text, "lake", 0) is None
    assert nearest_span(text, "", 0) is None


HOSTILE = {
    "no tag": (tagged().assign(label="<script>"), "expected an IOB2 tag as B-PER or O, got '<script>'"),
    "an empty tag": (tagged().assign(target=""), "expected an IOB2 tag"),
    "no sentences": (tagged().drop(columns="sentence"), "no column 'sentence'"),
    "no context": (answered().drop(columns="context"), "no column 'context'"),
    "a word for a place": (answered().assign(start="there"), "expected a number, got 'there'"),
    "a word for a score": (predictions().assign(target="good"), "expected a number, got 'good'"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_predictions_that_are_none_of_their_kind_are_one_clear_line(tmp_path, fault):
    table, message = HOSTILE[fault]
    folder = write_tables(tmp_path / "run", {"metrics": metrics(), "predictions": table}, record())
    with pytest.raises(ReportError, match=re.escape(message)) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [-5, 1e9, None, float("inf")])
def test_answers_may_stand_anywhere(tmp_path, place):
    table = answered().assign(start=place, end=place, f1=None, score=None)
    page_of(write_tables(tmp_path / "run", {"metrics": metrics(True), "predictions": table}, record(True)))


def test_a_page_shows_some_examples_of_many(tmp_path):
    many = pd.concat([tagged().assign(sentence=tagged()["sentence"] + 9 * n) for n in range(40)])
    long = pd.DataFrame(
        {"sentence": 0, "word": "w" * 900, "target": "B-PER", "label": "O", "seed": range(1)}, range(500)
    )
    text, page = page_of(
        write_tables(tmp_path / "run", {"metrics": metrics(True), "predictions": pd.concat([long, many])}, record(True))
    )
    assert page.tags.count("li") < 40
    assert len(text) < 300_000


def test_a_breakdown_of_anything_is_drawn(tmp_path):
    groups = [f"<i>{n}</i> $x" for n in range(60)]
    table = pd.concat([breakdown().assign(group=group, value=np.nan, n=None) for group in groups])
    kept = breakdown().assign(low=None, high=1e300, split="<script>")
    _, page = page_of(write_tables(tmp_path / "run", {"metrics": metrics(), "breakdown": pd.concat([table, kept])}, {}))
    assert "more groups are in breakdown.csv" in page.text
    assert "script" not in page.tags


def test_figures_of_groups_stand_in_tables_the_scored_split_first(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": metrics(True), "breakdown": breakdown()}, record(True))
    text, page = page_of(folder)
    assert [name for name in page.ids if name.startswith("by-")] == [
        "by-class", "by-label", "by-entity-type", "by-question-word", "by-pattern",
    ]  # fmt: skip
    assert text.index("On test; in brackets") < text.index("<summary>On validation</summary>")
    assert "share of mistakes" in page.text
    assert "how many/how much" in page.text


def test_tasks_by_layer_have_a_page_of_their_own(tmp_path):
    _, page = page_of(write_layers(tmp_path / "run"))
    assert [name for name in page.ids if name.startswith("figure-")] == ["figure-layer_map", "figure-layer_curves"]
    assert "ner <b>" in page.text
    assert "On test, 64 lines" in page.text
    assert "On train, 64 lines" in page.text
    assert "Chosen on validation" not in page.text
    assert "chosen" not in page.text


def test_a_run_of_layers_is_drawn_from_its_one_table(tmp_path):
    _, page = page_of(write_tables(tmp_path / "run", {"metrics": by_layer()}, {"experiment": "layers"}))
    assert "figure-layer_map" in page.ids


@pytest.mark.parametrize("selection", ["validation", "held-out"])
def test_the_best_layer_is_chosen_where_epochs_are_and_stands_beside_the_last_and_the_controls(tmp_path, selection):
    table = by_layer()
    table = pd.concat([table, table[table["split"] == "test"].assign(split=selection)], ignore_index=True)
    own = table["control"] == ""
    table.loc[(table["layer"] == 2) & own & (table["split"] == selection), "value"] = 0.99
    table.loc[(table["layer"] == 2) & own & (table["split"] == "test"), "value"] = 0.75
    table.loc[(table["layer"] == 1) & own & (table["split"] == "test"), "value"] = 0.95  # which chooses nothing
    about = {"experiment": "layers", "costs": {"ner <b>": {"seconds": 12.5}}}
    tasks, layers = result_grids(write_tables(tmp_path / "run", {"metrics": table}, about))
    row = tasks.rows[0]
    assert row[3:6] == [("0.750", "layer 2"), ("0.800", "layer 6"), "0.500"]
    assert row[6:] == [("0.600", "layer 6"), "+0.200", "12.5\u00a0s"]
    line = ["ner <b>, f1", "trained backbone", "test"]
    assert [cells[3:] for cells in layers.rows if cells[:3] == line] == [
        ["0.500", "0.950", "0.750", "0.650", "0.700", "0.750", "0.800", "0.500"]
    ]


def test_every_subset_of_an_ablation_has_a_line_with_its_metric_its_difference_and_its_size(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": ablation()}, {"experiment": "ablation"})
    first, train = subset_grids(read_tables(folder))
    assert result_grids(folder) == [first]
    assert list(first.heads) == ["backbone", "subset", "control", "pearson", "difference", "p", "rows", "parameters"]
    assert first.rows[0] == [
        "all-MiniLM-L6-v2", "all", "", ("0.7000", "[0.670, 0.730]"), ("-0.014", "[-0.030, +0.000]"), "0.010", "300",
        "385",
    ]  # fmt: skip
    table = ablation()
    measured = table[(table["against"] == "") & table["seed"].isna()]
    assert len(first.rows) == (measured["split"] == "test").sum()
    assert len(train.rows) == (measured["split"] == "train").sum()
    assert "“single 6”" in first.caption


def test_what_is_said_of_the_probe_is_in_its_diagram(tmp_path):
    about = record(True)
    about["probes"][SELECTED] |= {"head": "tags", "context": "bilstm", "mixer": "concat", "sides": 1}
    folder = write_tables(tmp_path / "run", {"metrics": metrics(True), "predictions": tagged()}, about)
    text, _ = page_of(folder)
    diagram = text[text.index('id="figure-diagram"') :]
    diagram = diagram[: diagram.index("</svg>")]
    for words in ("BiLSTM", "tag head", "side by side", "tags, as IOB2"):
        assert words in diagram


def test_tagged_sentences_are_compared_as_wholes(tmp_path):
    about = record(True) | {"metric": "f1"}
    rows = metrics(True).replace({"metric": {"accuracy": "f1"}})
    perfect = tagged().assign(label=tagged()["target"])
    folders = [
        write_tables(tmp_path / name, {"metrics": rows, "predictions": table}, about)
        for name, table in (("one", tagged()), ("two", perfect), ("other", perfect[perfect["sentence"] < 4]))
    ]
    found = comparison(folders)
    assert found["difference"][1] == pytest.approx(1 - (1 + 2 * 3 / (6 + 6)) / 2)  # the first seed has 3 of 6
    assert found["note"].tolist() == ["", "", "not the same rows: no paired test"]


def test_runs_that_tell_two_classes_are_compared_by_the_f1_of_the_second(tmp_path):
    about, rows = record(True) | {"metric": "f1"}, metrics(True).replace({"metric": {"accuracy": "f1"}})
    gold = ["question"] * 4 + ["statement"] * 16
    said = {"one": ["statement"] * 4 + gold[4:], "two": ["question"] * 3 + ["statement"] * 17}
    columns = {"sentence": [f"text {n}" for n in range(20)], "target": gold, "seed": 0}
    columns |= {"probability_statement": 0.5, "probability_question": 0.5}  # the corpus's order
    folders = [
        write_tables(
            tmp_path / name, {"metrics": rows, "predictions": pd.DataFrame(columns | {"label": labels})}, about
        )
        for name, labels in said.items()
    ]
    assert comparison(folders)["difference"][1] == pytest.approx(2 * 3 / (3 + 4))


def test_answers_are_compared_question_by_question(tmp_path):
    about = record(True) | {"metric": "f1"}
    rows = metrics(True).replace({"metric": {"accuracy": "f1"}})
    better = answered().sample(frac=1, random_state=0)
    better["f1"] = 1.0
    folders = [
        write_tables(tmp_path / name, {"metrics": rows, "predictions": table}, about)
        for name, table in (("one", answered()), ("two", better), ("tags", tagged()))
    ]
    found = comparison(folders)
    assert found["difference"][1] == pytest.approx(1 - answered()["f1"].mean())
    assert found["note"][2] == "not the same rows: no paired test"


def test_a_hostile_context_is_only_a_text(tmp_path):
    table = answered().assign(answer=EVIL, target=EVIL, question=EVIL)
    _, page = page_of(write_tables(tmp_path / "run", {"metrics": metrics(True), "predictions": table}, record(True)))
    assert not {"script", "img"} & set(page.tags)
