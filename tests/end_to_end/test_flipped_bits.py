"""No bit that flips in a run folder changes an answer or a figure unseen, nor does a file that goes, comes or changes
places: the reader names the file, or what it reads is the same.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from permafrost import api
from permafrost.data.digests import DIGEST, DIGESTS, DamageError
from permafrost.data.errors import InputError
from permafrost.probes.config.load import load_recipe
from permafrost.probes.reports.compare import comparison
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.run_folder import ReportError, RunError
from permafrost.probes.results.run_tables import read_tables
from tests.support.damage import loaded, outcomes, resealed
from tests.support.example_run import every_table, metrics, predictions, record, write_tables, write_together
from tests.support.studies import search
from tests.support.toys import hill, searching


def reported(folder: Path) -> str:
    """All that a report is drawn from, as text."""
    run = read_tables(folder)
    frames = [run.frames, *run.tasks.values()]
    texts = [f"{name}\n{table.to_csv()}" for tables in frames for name, table in tables.items()]
    return "\n".join([run.name, run.recipe, repr(run.record), repr(list(run.tasks)), *texts])


@pytest.fixture
def run(finished, tmp_path):
    """A finished run, to be broken."""
    return Path(shutil.copytree(finished[1].path, tmp_path / "pairs-1"))


@pytest.mark.slow
def test_no_flipped_bit_of_a_run_changes_an_answer_or_a_table(run, finished):
    shutil.rmtree(run / "figures")
    counted = outcomes(run, 120, loaded, reported)
    assert counted["reported refused"] > 60
    assert counted["loaded refused"] > 30
    for name in ("metrics.csv", "report.html"):  # of which no answer is made
        (run / name).write_bytes(b"x" + (run / name).read_bytes())
    asked = [("the dog", "it sleeps")]
    assert api.load(run).predict(asked) == api.load(finished[1].path).predict(asked)


@pytest.mark.slow
def test_no_flipped_bit_of_several_tasks_changes_a_table(tmp_path):
    counted = outcomes(
        write_together(tmp_path / "run", {"ner": "tags", "topic": "class"}, ["one", "both"]), 60, reported
    )
    assert counted["reported refused"] == 60


@pytest.mark.slow
def test_no_flipped_bit_of_a_study_changes_a_table_or_its_best_recipe(tmp_path, quick):
    folder = search(searching(trials=4), "s", tmp_path, hill).folder

    def best(folder: Path) -> str:
        return repr(load_recipe(str(folder / "best.toml")))

    counted = outcomes(folder, 60, reported, best)
    assert counted["reported refused"] > 30
    assert counted["best refused"] > 5


@pytest.mark.slow
def test_no_flipped_bit_of_a_comparison_of_sentences_changes_a_cosine(tmp_path):
    cosines = pd.DataFrame([("a", 1, 2, 0.5), ("b", 1, 2, 0.75)], columns=["backbone", "first", "second", "cosine"])
    sentences = pd.DataFrame({"sentence": [1, 2], "text": ["The dog runs.", "It sleeps."]})
    maps = pd.DataFrame(columns=["map", "backbone", "method", "sentence", "x", "y", "z"])
    tables = {"cosines": cosines, "sentences": sentences, "maps": maps}
    folder = write_tables(tmp_path / "run", tables, record() | {"experiment": "similarity"})
    counted = outcomes(folder, 60, reported)
    assert counted["reported refused"] == 60


def another_table(run: Path) -> str:
    frame = pd.read_csv(run / "metrics.csv")
    frame.assign(value=frame["value"] + 0.01).to_csv(run / "metrics.csv", index=False)
    return r"metrics\.csv is not as the run wrote it"


def further_table(run: Path) -> str:
    write_tables(run.parent / "other", {"autoencoder": every_table()["autoencoder"]}, record())
    shutil.copy(run.parent / "other" / "autoencoder.csv", run)
    return r"autoencoder\.csv was not written by the run"


def further_page(run: Path) -> str:
    (run / "cosines.csv").write_text("backbone,first,second,cosine\na,1,2,0.5\n")
    return r"cosines\.csv was not written by the run"


def further_task(run: Path) -> str:
    (run / "tasks" / "mine").mkdir(parents=True)
    return r"tasks/mine was not written by the run"


def no_table(run: Path) -> str:
    (run / "predictions.csv").unlink()
    return r"predictions\.csv is missing, which the run wrote"


def another_record(run: Path) -> str:
    about = json.loads((run / "record.json").read_text("utf-8"))
    (run / "record.json").write_text(json.dumps(about | {"selected": "mine"}), "utf-8")
    return r"record\.json is not as it was written"


def other_digests(run: Path) -> str:
    about = json.loads((run / "record.json").read_text("utf-8"))
    del about[DIGESTS]["metrics.csv"]
    (run / "record.json").write_text(json.dumps(about), "utf-8")
    return r"record\.json is not as it was written"


@pytest.mark.parametrize(
    "change", [another_table, further_table, further_page, further_task, no_table, another_record, other_digests]
)
def test_a_run_folder_that_is_not_as_the_run_left_it_draws_no_report(change, run):
    page, message = (run / "report.html").read_bytes(), change(run)
    with pytest.raises(DamageError, match=message) as caught:
        write_report(run)
    assert caught.value.exit_code == 3
    assert "again" in str(caught.value)
    with pytest.raises(DamageError, match=message):
        comparison([run, run])
    assert (run / "report.html").read_bytes() == page


@pytest.mark.parametrize("change", ["no digest", "no digests", "another format", "no record"])
def test_a_run_without_a_record_of_this_version_is_not_read(change, run, finished):
    about = json.loads((run / "record.json").read_text("utf-8"))
    if change == "no digests":  # as runs were before
        (run / "record.json").write_text(json.dumps({k: v for k, v in about.items() if k not in (DIGEST, DIGESTS)}))
    elif change == "no digest":
        (run / "record.json").write_text(json.dumps({k: v for k, v in about.items() if k != DIGEST}))
    elif change == "another format":
        resealed(run, about | {"format": 99})
    else:
        (run / "record.json").unlink()
    message = (
        "it has no record.json"
        if change == "no record"
        else "of another version of permafrost .*run the recipe again with this version"
    )
    for read, error in ((api.load, RunError), (write_report, ReportError)):
        with pytest.raises(error, match=message) as caught:
            read(run)
        assert caught.value.exit_code == 2
    expected = load_recipe(str(finished[1].path / "recipe.toml"))
    if change != "another format":  # the way out that is told
        assert load_recipe(str(run / "recipe.toml")) == expected


def test_files_of_somebody_that_nobody_reads_may_lie_in_a_run(run):
    (run / "notes.csv").write_text("a,b\n")
    (run / "tasks" / ".hidden").mkdir(parents=True)
    assert read_tables(run).name == "pairs-1"
    assert api.load(run)


def test_a_recipe_that_changed_in_a_run_folder_runs_from_elsewhere_only(run, tmp_path):
    text = (run / "recipe.toml").read_text("utf-8").replace("epochs = 3", "epochs = 2")
    (run / "recipe.toml").write_text(text, "utf-8")
    with pytest.raises(
        DamageError, match=r"recipe\.toml is not as the run wrote it: copy the run again, or recipe\.toml"
    ):
        load_recipe(str(run / "recipe.toml"))
    shutil.copy(run / "recipe.toml", tmp_path / "own.toml")
    assert load_recipe(str(tmp_path / "own.toml"))[1].train.epochs == 2


@pytest.mark.slow
def test_a_study_that_is_being_written_again_has_no_record(tmp_path, monkeypatch):
    folder = search(searching(trials=3), "s", tmp_path, hill).folder
    monkeypatch.setattr("permafrost.probes.runs.write.write_tables", lambda *_, **__: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        search(searching(trials=3), "s", tmp_path, hill, trials=5)
    with pytest.raises(ReportError, match=r"no record\.json\. Run the study again"):
        read_tables(folder)
    monkeypatch.undo()
    search(searching(trials=3), "s", tmp_path, hill, trials=5)
    assert len(read_tables(folder)["trials"]) == 5


def test_a_table_of_another_run_is_refused(tmp_path):
    tables = {"metrics": metrics(), "predictions": predictions()}
    one, other = (write_tables(tmp_path / name, tables, record()) for name in ("one", "other"))
    shutil.copy(one / "metrics.csv", other)  # the same bytes are the same table
    assert reported(other).replace("other", "one", 1) == reported(one)
    write_tables(tmp_path / "third", {"metrics": metrics(), "predictions": predictions(rows=90)}, record())
    shutil.copy(tmp_path / "third" / "predictions.csv", other)
    with pytest.raises((DamageError, InputError), match=r"predictions\.csv is not as the run wrote it"):
        comparison([one, other])
