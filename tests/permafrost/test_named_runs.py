"""A run with a name: done, refused, replaced, and never lost."""

import json
import math
from pathlib import Path

import pytest

from permafrost import api
from permafrost.data.errors import InputError
from permafrost.probes.results.destination import Destination
from tests.support.bench import Bench, pairs


@pytest.fixture(scope="module")
def named(tmp_path_factory, tiny):
    """A bench with a finished run "mine", and what the command printed."""
    bench = Bench(tmp_path_factory.mktemp("named"), tiny("bert"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        code, out, err = bench.command("run", "pairs", "--name", "mine", "--json", settings=bench.of_pairs())
    assert code == 0, err
    return bench, out


def files_of(folder: Path) -> dict[str, tuple[float, bytes]]:
    return {str(path): (path.stat().st_mtime, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_done_run_prints_what_it_had_printed_and_writes_nothing(named, monkeypatch):
    bench, out = named
    before = files_of(bench.runs)
    monkeypatch.setattr("permafrost.stages.train_probes", None)
    again = bench.command(
        "run", "pairs", "--name", "mine", "--json", settings=bench.of_pairs("extract.batch_tokens=99")
    )
    assert again[:2] == (0, out)
    assert files_of(bench.runs) == before
    assert any(isinstance(row["value"], float) and row["n"] for row in json.loads(out)["metrics"])
    assert not any(math.isnan(row["value"]) for row in json.loads(out)["metrics"] if row["split"] == "")


@pytest.mark.parametrize(
    ("words", "more", "told"),
    [
        (("run", "pairs"), ("train.epochs=4",), "train.epochs = 3 there, 4 here"),
        (("ablate", "pairs"), (), "experiment = run there, ablation here"),
        (("run", "pairs", "--if-done", "again"), ("train.learning_rate=0.5",), "train.learning_rate"),
        (("run", "pairs", "--if-done", "fail"), (), "is done"),
    ],
)
def test_another_run_of_the_name_is_refused_and_the_first_is_kept(named, words, more, told):
    bench, _ = named
    before = files_of(bench.runs)
    code, _, err = bench.command(*words, "--name", "mine", settings=bench.of_pairs(*more))
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert files_of(bench.runs) == before


def test_other_data_under_the_same_path_are_told_and_made_anew_only_if_asked(tmp_path, tiny, quick):
    bench = Bench(tmp_path, tiny("bert"))
    first = api.run("pairs", bench.of_pairs("train.epochs=1"), bench.runs, name="mine")
    settings = bench.of_pairs("train.epochs=1", rows=pairs(seed=3))
    before = files_of(bench.runs)
    with pytest.raises(InputError, match=r"data of pairs.csv.*--if-done again"):
        api.run("pairs", settings, bench.runs, name="mine")
    assert files_of(bench.runs) == before
    second = api.run("pairs", settings, bench.runs, name="mine", if_done="again")
    assert second.path == first.path
    assert second.metrics != first.metrics
    assert [path.name for path in bench.runs.iterdir()] == ["mine"]


def test_an_older_run_survives_a_kill_between_the_two_renames(tmp_path):
    place = Destination(tmp_path, "mine")
    place.folder.mkdir()
    (place.folder / "record.json").write_text("old")
    place.folder.rename(tmp_path / ".mine~replaced.tmp")
    (tmp_path / f".mine~{'0' * 32}.tmp").mkdir()
    with place.held():
        assert (place.folder / "record.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_name_is_written_by_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("permafrost.probes.results.destination.SECONDS_TO_WAIT", 0.2)
    with (
        Destination(tmp_path, "mine").held(),
        Destination(tmp_path, "other").held(),
        pytest.raises(InputError, match="another process"),
        Destination(tmp_path, "mine").held(),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "unfinished", "a~b", "x" * 121, "a b"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(name, tmp_path):
    with pytest.raises(InputError, match="--name"):
        Destination(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "recipe", "more", "folder"),
    [
        ("ablate", "pairs", ("ablation.kinds=single", "ablation.controls="), "mine"),
        ("train", "pairs", (), "mine"),
        (
            "study",
            "pairs",
            ("study.trials=2", "study.seeds=0", 'study.space={"train.learning_rate"=[0.1, 0.01]}'),
            "mine-best",
        ),
        ("run", "similarity", (), "mine"),
    ],
)
def test_every_command_that_writes_a_run_skips_a_done_one(tmp_path, tiny, verb, recipe, more, folder):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs(*more)
    if recipe == "similarity":
        settings = [f"similarity.backbones={tiny('bert')}", f"extract.cache={tmp_path / 'cache'}"]
    if verb == "train":
        api.extract(recipe, settings)
    outs = []
    for _ in range(2):
        code, out, err = bench.command(verb, recipe, "--name", "mine", "--json", settings=settings)
        assert code == 0, err
        outs.append((out, files_of(bench.runs / folder)))
    assert outs[0] == outs[1]
    assert "is done" in err
