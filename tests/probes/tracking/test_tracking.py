"""What trackers hold of a run equals the tables of the run, and nothing of the run depends on them."""

import csv
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from permafrost import api
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError, flatten_settings, plain
from permafrost.named_runs import PlannedRun
from permafrost.probes.config.load import load_recipe
from permafrost.probes.config.train import TRACKERS as NAMES
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.read_result import read_recipe
from permafrost.probes.results.run_folder import RunError, RunFolder
from permafrost.probes.search.trials import study_identity
from permafrost.probes.tracking import registry, tracking
from permafrost.probes.tracking.series import Series, TrackedRun
from permafrost.probes.tracking.tensorboard import TensorBoard
from tests.probes.tracking.event_files import Scalars, scalars
from tests.support.bench import Bench
from tests.support.marks import slow_but_first

VARIANTS = """
[[variants]]
name = "linear, with seeds"
set = { "probe.encoder" = "linear" }
[[variants]]
name = "none"
set = { "probe.encoder" = "none", "probe.mixer" = "softmax" }
"""


class Recorded(NoProgress):
    """Keeps notes and events; raises what it is given when the epoch of that number is told."""

    def __init__(self, at: int = 0, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.notes: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._at, self._error = at, error

    def note(self, message: str) -> None:
        self.notes.append(message)

    def event(self, name: str, **facts: Any) -> None:
        self.events.append((name, facts))
        if name == "epoch" and facts["epoch"] == self._at:
            raise self._error


@pytest.fixture
def bench(tiny, tmp_path, quick):
    return Bench(tmp_path, tiny("bert"))


def recipe_of(bench: Bench) -> str:
    path = bench.folder / "two.toml"
    path.write_text(VARIANTS)
    return str(path)


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def close(values: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [step for step, _ in values] == [step for step, _ in expected]
    assert [value for _, value in values] == pytest.approx([value for _, value in expected], rel=1e-6)


def check_against_tables(run: Path, found: Scalars, clean: Any) -> None:
    """Compare series by name with training.csv and metrics.csv; ``clean`` makes names as the tracker has them."""
    epochs = sorted(rows(run, "training.csv"), key=lambda row: (row["variant"], row["seed"]))
    for (variant, seed), lines in groupby(epochs, key=lambda row: (row["variant"], row["seed"])):
        series, steps = found[clean(f"{variant}-seed{seed}")], list(lines)
        close(series["train/loss"], [(int(row["epoch"]), float(row["loss"])) for row in steps])
        close(series["validation/spearman"], [(int(row["epoch"]), float(row["value"])) for row in steps])
        assert all(0 < value < 0.1 for _, value in series["train/learning_rate"])
        final = [
            row
            for row in rows(run, "metrics.csv")
            if (row["variant"], row["seed"], row["split"]) == (variant, seed, "test")
        ]
        assert {row["metric"] for row in final} >= {"pearson", "spearman"}
        for row in final:
            close([(0, series[f"test/{row['metric']}"][-1][1])], [(0, float(row["value"]))])


def test_event_files_hold_the_numbers_of_the_tables_and_change_none_of_them(bench):
    settings = bench.of_pairs("train.seeds=0,1", "train.patience=1", "train.epochs=4")
    plain_run = api.run(recipe_of(bench), settings, bench.runs).path
    progress = Recorded()
    run = api.run(recipe_of(bench), [*settings, "train.track=tensorboard"], bench.runs, progress).path
    for table in ("metrics.csv", "training.csv", "predictions.csv"):
        assert (run / table).read_bytes() == (plain_run / table).read_bytes()
    assert not (plain_run / "tensorboard").exists()
    assert not list((bench.runs / "unfinished").glob("*"))
    found = scalars(run)
    assert len(found) == 1 + 4
    check_against_tables(run, found, lambda name: name.replace(", ", "_").replace(" ", "_"))
    whole = {row["metric"]: row for row in rows(run, "metrics.csv") if row["variant"] == "none" and not row["seed"]}
    assert found["."]["none/test/spearman"][0][1] == pytest.approx(float(whole["spearman"]["value"]), rel=1e-6)
    together = [facts["members"] for name, facts in progress.events if name == "epoch"]
    assert {len(members) for members in together} == {2}
    for number, variant in enumerate(("linear_with_seeds", "none")):  # each ends apart, and is not told of afterwards
        lengths = [len(found[f"{variant}-seed{seed}"]["train/loss"]) for seed in (0, 1)]
        assert max(lengths) == [members[0]["variant"].startswith("none") for members in together].count(bool(number))
    RunFolder(run, RunError)


def test_a_run_that_was_stopped_goes_on_in_its_series(bench):
    settings = bench.of_pairs("train.track=tensorboard", "train.epochs=4")
    with pytest.raises(KeyboardInterrupt):
        api.run("pairs", settings, bench.runs, Recorded(at=3), only=["linear"])
    (left,) = (bench.runs / "unfinished").glob("*/tensorboard")
    assert [step for step, _ in scalars(left.parent)["linear-seed0"]["train/loss"]] == [1, 2]
    run = api.run("pairs", settings, bench.runs, only=["linear"]).path
    found = scalars(run)
    assert list(found) == [".", "linear-seed0"]
    for tag, values in found["linear-seed0"].items():
        assert [step for step, _ in values] == ([1, 2, 3, 4] if tag.startswith(("train/", "validation/")) else [4])
    check_against_tables(run, found, str)


class Failing(TensorBoard):
    """A tracker whose disk is full from its second epoch on."""

    def log(self, name: str, step: int, values: Any) -> None:
        if step > 1:
            raise OSError(28, "No space left on device")
        super().log(name, step, values)


@pytest.mark.parametrize("failing", slow_but_first([Failing, lambda run: 1 / 0]))
def test_a_tracker_that_fails_is_left_out_with_one_note_and_the_run_goes_on(failing, bench, monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", failing)
    settings, progress = bench.of_pairs("train.track=mlflow,tensorboard", "train.seeds=0,1"), Recorded()
    run = api.run("pairs", settings, bench.runs, progress, only=["linear"]).path
    (note,) = [note for note in progress.notes if "mlflow" in note]
    assert "mlflow no longer follows this run (" in note
    if failing is not Failing:  # which writes the same files
        check_against_tables(run, scalars(run), str)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_runs(bench, monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()  # such as wandb leaves in a working folder
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    for command in ("run", "ablate"):
        code, _, err = bench.command(command, "pairs", settings=bench.of_pairs("train.track=wandb"))
        assert code == 2
        assert "train.track names 'wandb', which is not installed: pip install 'permafrost[wandb]'" in err
    assert not (bench.folder / "cache").exists()
    code, _, err = bench.command("run", "pairs", settings=bench.of_pairs("train.track=tensorbord"))
    assert code == 2
    assert "track: there is no tracker 'tensorbord'. Known: tensorboard, wandb, mlflow." in err
    for key in ('variants=[{name="a",set={"train.track"=["wandb"]}}]', 'tasks.a.train.track=["wandb"]'):
        with pytest.raises(SpecError, match=r"train.track is of the whole run"):
            api.run("pairs", bench.of_pairs(key), bench.runs)
    assert tuple(registry.TRACKERS) == NAMES


def test_a_run_with_a_tracker_is_the_same_run(bench):
    settings = bench.of_pairs()
    api.run("pairs", settings, bench.runs, only=["linear"], name="first")
    again = Recorded()
    api.run("pairs", [*settings, "train.track=tensorboard"], bench.runs, again, only=["linear"], name="first")
    assert [name for name, _ in again.events] == ["skipped"]
    tracked, untracked = (load_recipe("quickstart", [f"train.track={names}"])[1] for names in ("wandb", ""))
    assert study_identity(tracked) == study_identity(untracked)
    assert tracked.relevant_settings() == untracked.relevant_settings()
    assert PlannedRun(Destination(bench.runs, "first"), read_recipe(RunFolder(bench.runs / "first", RunError)), "run")


def test_an_ablation_has_a_series_for_each_subset_and_seed(bench):
    controls = ["ablation.kinds=single,prefix", "ablation.controls=random_targets", "train.epochs=2"]
    settings = bench.of_pairs("variants=[]", "train.track=tensorboard", *controls)
    progress = Recorded()
    run = api.ablate("pairs", settings, bench.runs, progress).path
    found = scalars(run)
    names = {name.partition("-seed")[0] for name in found} - {"."}
    layers = ["0", "1", "2", "3"]
    assert {"all", *(f"single_{layer}" for layer in layers), "prefix_0-1", "prefix_0-2"} <= names
    assert {"random_targets-all", *(f"random_targets-single_{layer}" for layer in layers)} <= names
    table = {
        row["subset"]: float(row["value"])
        for row in rows(run, "metrics.csv")
        if (row["split"], row["metric"], row["against"], row["control"]) == ("test", "spearman", "", "")
    }
    for subset, value in table.items():
        assert found["."][f"{subset}/test/spearman"][0][1] == pytest.approx(value, rel=1e-6)
    assert found["single_1-seed0"]["test/spearman"][0][1] == pytest.approx(table["single 1"], rel=1e-6)
    assert found["."]["test/spearman"] == found["."]["all/test/spearman"]
    assert {name for name, _ in progress.events} == {"extracted", "epoch", "trained", "measured"}


def test_a_study_has_a_series_for_each_trial_and_its_best_a_run(bench):
    space = 'study.space={"train.learning_rate"={low=1e-4,high=1e-2}}'
    settings = bench.of_pairs("variants=[]", "train.track=tensorboard", "train.epochs=2", "study.seeds=0", space)
    progress = Recorded()
    study, best = api.study("pairs", settings, "s", 2, 1, runs=bench.runs, progress=progress)
    study, best = api.study("pairs", settings, "s", 3, 1, runs=bench.runs, progress=progress)
    found = scalars(study.folder)
    assert list(found) == [".", "trial-0", "trial-1", "trial-2"]
    values = {row["number"]: float(row["value"]) for row in rows(study.folder, "trials.csv")}
    by_epoch = rows(study.folder, "intermediate.csv")
    for number, value in values.items():
        series = found[f"trial-{number}"]
        expected = [(int(row["step"]) + 1, float(row["value"])) for row in by_epoch if row["trial"] == number]
        close(series["validation/spearman"], expected)
        assert series["value"][0][1] == pytest.approx(value, rel=1e-6)
    assert set(scalars(best.path)) == {".", "probe-seed0"}
    states = [facts["state"] for name, facts in progress.events if name == "trial"]
    assert states == ["running", "complete"] * 3
    assert all(name != "epoch" or "training" in facts for name, facts in progress.events)


@pytest.mark.slow
def test_several_tasks_with_fine_tuned_blocks_are_series_of_their_own(bench):
    tasks = {"likeness": bench.of_pairs(), "sameness": bench.of_topics()}
    settings = bench.settings(
        "train.track=tensorboard", "plan.views=mean", "finetune.cut=2", "multitask.schedule=joint"
    )
    for task, of_task in tasks.items():
        settings += [f"tasks.{task}.{setting}" for setting in of_task if setting.startswith("corpus.")]
    path = bench.folder / "tasks.toml"
    path.write_text('[tasks.likeness.corpus]\ntarget = "score"\n[tasks.sameness.corpus]\ntarget = "class"\n')
    run = api.run(str(path), settings, bench.runs).path
    found = scalars(run)
    assert list(found) == [".", "probe-seed0"]
    series, epochs = found["probe-seed0"], rows(run, "epochs.csv")
    for task, metric in (("likeness", "spearman"), ("likeness", "pearson"), ("sameness", "accuracy")):
        told = [row for row in epochs if (row["task"], row["metric"]) == (task, metric) and row["epoch"] != "0"]
        close(series[f"validation/{task}/{metric}"], [(int(row["epoch"]), float(row["value"])) for row in told])
        final = [row for row in rows(run, "metrics.csv") if (row["task"], row["metric"], row["split"], row["seed"])
            == (task, metric, "test", "") and row["variant"] == "probe" and not row["against"]]  # fmt: skip
        assert found["."][f"probe/test/{task}/{metric}"][0][1] == pytest.approx(float(final[0]["value"]), rel=1e-6)
    assert len(series["train/sameness/loss"]) == len(series["train/learning_rate.backbone"]) == 3


@pytest.mark.slow
def test_trials_of_workers_are_told_by_the_process_of_the_study(bench):
    space = 'study.space={"train.learning_rate"={low=1e-4,high=1e-2}}'
    settings = bench.of_pairs("variants=[]", "train.track=tensorboard", "train.epochs=2", "study.seeds=0", space)
    study, _ = api.study("pairs", settings, "s", 4, 2, runs=bench.runs)
    found = scalars(study.folder)
    assert list(found) == [".", *(f"trial-{number}" for number in range(4))]
    assert all(len(found[f"trial-{number}"]["train/loss"]) == 2 for number in range(4))


@contextmanager
def without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
def test_mlflow_holds_parameters_metrics_and_figures_of_a_run_that_was_stopped(bench, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    settings = bench.of_pairs("train.track=mlflow", "train.seeds=0,1", "train.epochs=4")
    with pytest.raises(KeyboardInterrupt):
        api.run(recipe_of(bench), settings, bench.runs, Recorded(at=3))
    with without_warnings():
        from mlflow import MlflowClient

        client = MlflowClient()
        (experiment,) = [each for each in client.search_experiments() if each.name == "permafrost"]
        assert {each.info.status for each in client.search_runs([experiment.experiment_id])} == {"KILLED"}
    run = api.run(recipe_of(bench), settings, bench.runs).path
    with without_warnings():
        found = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
        assert len(found) == 5
        assert {each.info.status for each in found.values()} == {"FINISHED"}
        parent = found.pop(run.name)
        series = {
            name: {
                key: [(each.step, each.value) for each in client.get_metric_history(found[name].info.run_id, key)]
                for key in found[name].data.metrics
            }
            for name in found
        }
    check_against_tables(run, series, str)
    assert [step for step, _ in series["none-seed0"]["validation/pearson"]] == [1, 2, 3, 4]
    recipe = dict(flatten_settings(plain(read_recipe(RunFolder(run, RunError)))))
    as_text = {key: text if text[:1] in "[{" else str(json.loads(text)) for key, text in recipe.items()}
    assert parent.data.params == {re.sub(r"[^\w./ -]", "_", key): text for key, text in as_text.items()}
    assert found["none-seed1"].data.params["seed"] == "1"
    assert found["none-seed1"].data.params["probe.mixer"] == "softmax"
    assert found["none-seed1"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["run_folder"] == str(run)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_what_a_killed_process_left_running_in_mlflow_ends_with_the_run(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    about = {"name": "study-s", "kind": "study", "token": "t", "folder": tmp_path, "recipe": ""}
    with without_warnings():
        from mlflow import MlflowClient

        for trials in (["trial-0", "trial-1"], ["trial-1", "trial-2"]):  # the first process is killed
            tracker = registry.TRACKERS["mlflow"](TrackedRun(**about))
            for name in ("", *trials):
                tracker.begin(Series(name=name, parameters={}))
        for name in ("trial-1", "trial-2", ""):
            tracker.finish(name, {}, {}, "finished")
        client = MlflowClient()
        runs = client.search_runs([client.get_experiment_by_name("permafrost").experiment_id])
    ended = {each.info.run_name: each.info.status for each in runs}
    assert ended == {"study-s": "FINISHED", "trial-0": "KILLED", "trial-1": "FINISHED", "trial-2": "FINISHED"}


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_offline(bench, monkeypatch, tmp_path, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    settings = bench.of_pairs("train.track=wandb", "train.epochs=3")
    plain_run = api.run("pairs", bench.of_pairs("train.epochs=3"), bench.runs, only=["linear"]).path
    progress = Recorded()
    run = api.run("pairs", settings, bench.runs, progress, only=["linear"]).path
    assert not [note for note in progress.notes if "wandb" in note]
    assert (run / "metrics.csv").read_bytes() == (plain_run / "metrics.csv").read_bytes()
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    content = [path.read_bytes() for path in files]
    assert sum(b"validation/spearman" in each for each in content) == 1
    assert all(b"test/spearman" in each and b"plan.backbone" in each for each in content)
    assert capfd.readouterr() == ("", "")
