"""Studies: what is proposed, what is kept, and what crashes cost. Trainings are toys; all else is real."""

import contextlib
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from functools import partial
from pathlib import Path

import optuna
import pytest
import torch

from permafrost.data.atomic import file_lock
from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.probes.config.columns import Column
from permafrost.probes.config.load import load_recipe
from permafrost.probes.inputs.latents import PooledInputs
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.search.journal import Journal
from permafrost.probes.search.samplers import make_pruner, make_sampler
from permafrost.probes.search.storage import open_study
from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import TrialResult
from tests.support.marks import slow_but_first
from tests.support.studies import search
from tests.support.toys import SPACE, broken, hill, mapped, refusing, searching, sharing

ROOT = Path(__file__).parents[3]
OPTIONS = {
    "PartialFixedSampler": {"fixed_params": {"train.loss": "mse"}},
    "PercentilePruner": {"percentile": 25.0},
    "PatientPruner": {"patience": 1},
    "ThresholdPruner": {"lower": -100.0},
}
STEPS = {**SPACE, "train.learning_rate": {"low": 0.001, "high": 0.009, "step": 0.001}}


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Studies draw no figures, which take longer than all else of a small one."""
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)


def rows(folder: Path, name: str = "trials") -> list[dict[str, str]]:
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def params(folder: Path) -> list[tuple[str, ...]]:
    """What every trial that finished was given, in order."""
    return [tuple(row[key] for key in sorted(SPACE)) for row in rows(folder) if finished(row)]


def finished(row: dict[str, str]) -> bool:
    return row["state"] in ("COMPLETE", "PRUNED") or bool(row["reason"])


def evaluated(folder: Path) -> Counter[str]:
    """How often each set of values was trained."""
    return Counter(line.rsplit(maxsplit=1)[0] for line in (folder / "evaluated").read_text().splitlines())


class Interrupted(BaseException):
    """As Ctrl-C, but not pytest's."""


class Stopping(NoProgress):
    """Progress that ends the program when it shows the n-th step."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    @contextlib.contextmanager
    def bar(self, what: str, total: int):
        def advance(steps: int) -> None:
            self.left -= steps
            if steps and self.left == 0:
                raise Interrupted

        yield advance


def test_a_study_leaves_tables_and_a_recipe_that_runs(tmp_path):
    done = search(searching(trials=12), "s", tmp_path, hill)
    table = rows(done.folder)
    assert [row["number"] for row in table] == [str(n) for n in range(12)]
    assert {"state", "value", "seconds", "unexplained", *SPACE} <= set(table[0])
    complete = [row for row in table if row["state"] == "COMPLETE"]
    assert max(float(row["value"]) for row in complete) == pytest.approx(done.value)
    assert (done.trials, done.refused) == (12, 0)
    reports = rows(done.folder, "intermediate")
    assert {row["trial"] for row in reports} == {row["number"] for row in table}
    shares = {row["parameter"]: float(row["importance"]) for row in rows(done.folder, "importances")}
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1)
    _, best = load_recipe(str(done.recipe))
    assert best.train.seeds == (0, 1, 2)
    assert best.train.learning_rate == done.params["train.learning_rate"]
    record = json.loads((done.folder / "record.json").read_text())
    assert (record["trials"], record["metric"], record["best"]["number"]) == (12, "spearman", done.number)
    assert tomllib.loads((done.folder / "recipe.toml").read_text())["study"]["trials"] == 12
    assert not (done.folder / "shared").exists()


@pytest.mark.parametrize("sampler", slow_but_first(["TPESampler", "RandomSampler", "QMCSampler"]))
def test_same_seed_same_trials_stopped_and_resumed_or_not(tmp_path, sampler):
    recipe = searching(STEPS, trials=20, sampler=sampler)
    first = search(recipe, "a", tmp_path, hill)
    with pytest.raises(Interrupted):
        search(recipe, "b", tmp_path, hill, progress=Stopping(5))
    with pytest.raises(Interrupted):
        search(recipe, "b", tmp_path, partial(interrupted, at=15))
    second = search(recipe, "b", tmp_path, hill)
    assert params(first.folder) == params(second.folder)
    assert len(params(first.folder)) == 20
    assert len(rows(second.folder)) == 21


@pytest.mark.parametrize("sampler", slow_but_first(["CmaEsSampler", "GridSampler", "NSGAIISampler", "GPSampler"]))
def test_same_seed_same_trials_with_a_stop_between_two(tmp_path, sampler):
    recipe = searching(STEPS, trials=14, sampler=sampler)
    first = search(recipe, "a", tmp_path, hill)
    with pytest.raises(Interrupted):
        search(recipe, "b", tmp_path, hill, progress=Stopping(9))
    assert params(first.folder) == params(search(recipe, "b", tmp_path, hill).folder)


def interrupted(recipe, folder, receive, at):
    """A hill on which Ctrl-C comes in the middle of a training."""
    train = hill(recipe, folder, receive)

    def evaluate(recipe, after_epoch):
        def stop(epoch, value):
            if len((folder.parent / "evaluated").read_text().splitlines()) == at:
                raise Interrupted
            after_epoch(epoch, value)

        return train(recipe, stop)

    return evaluate


def test_another_seed_proposes_other_trials(tmp_path):
    first, second = (search(searching(seed=seed), f"s{seed}", tmp_path, hill) for seed in (0, 1))
    assert params(first.folder) != params(second.folder)


def test_a_study_goes_on_where_it_stopped_and_no_further(tmp_path):
    search(searching(), "s", tmp_path, hill, trials=4)
    done = search(searching(), "s", tmp_path, hill)
    assert (done.trials, sum(evaluated(done.folder).values())) == (6, 6)
    again = search(searching(), "s", tmp_path, hill)
    assert (again.trials, sum(evaluated(done.folder).values())) == (6, 6)


def test_pruning_stops_trials_and_none_of_them_wins(tmp_path):
    done = search(searching(trials=25, sampler="RandomSampler"), "s", tmp_path, hill)
    states = Counter(row["state"] for row in rows(done.folder))
    assert states["PRUNED"] >= 5
    assert states["PRUNED"] + states["COMPLETE"] == 25
    assert rows(done.folder)[done.number]["state"] == "COMPLETE"
    everything = search(searching(trials=25, pruner="NopPruner"), "n", tmp_path, hill)
    assert {row["state"] for row in rows(everything.folder)} == {"COMPLETE"}


def test_settings_that_cannot_be_trained_are_refused_once_and_counted(tmp_path):
    recipe = searching({"train.weight_decay": [0.0, 0.1, 0.2, 0.3]}, sampler="GridSampler", trials=50)
    done = search(recipe, "s", tmp_path, refusing)
    assert (done.trials, done.refused, done.value) == (2, 2, 1.0)
    assert {row["reason"] for row in rows(done.folder) if row["state"] == "FAIL"} == {
        "weight_decay is too large for it.", "its validation metric is nan.",
    }  # fmt: skip
    assert not rows(done.folder, "importances")
    with pytest.raises(SpecError, match="no trial of study 'n' could be completed; the last: weight_decay is too"):
        search(searching({"train.weight_decay": [0.4, 0.3]}, trials=2), "n", tmp_path, refusing)


def test_a_study_with_another_space_or_recipe_is_refused(tmp_path):
    search(searching(), "s", tmp_path, hill)
    for other, key in (
        (searching({"train.epochs": [1, 2]}), "study.space.train.epochs"),
        (searching({**SPACE, "train.loss": ["mse", "auto"]}), "study.space.train.loss"),
    ):
        with pytest.raises(InputError, match=f"begun with another recipe or space: '{key}.*differs") as caught:
            search(other, "s", tmp_path, hill)
        assert caught.value.exit_code == 2
    changed = searching(trials=7, sampler="RandomSampler")
    assert search(changed, "s", tmp_path, hill).trials == 7


def test_a_study_runs_once_at_a_time(tmp_path):
    def inner(recipe, folder, receive):
        with pytest.raises(InputError, match=r"study 's' is running already.*--dashboard shows it"):
            search(recipe, "s", tmp_path, hill)
        return hill(recipe, folder, receive)

    search(searching(trials=1), "s", tmp_path, inner)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_a_name_must_make_a_folder(tmp_path, name):
    with pytest.raises(SpecError, match="a study's name is made of"):
        search(searching(), name, tmp_path, hill)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("nonsense", "expected an address such as"),
        ("mongo://a/b", "expected an address such as"),
        ("sqlite:////nowhere/at/all.db", "cannot be reached"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/x", "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_reached_is_refused_without_its_password(tmp_path, storage, said):
    with pytest.raises(InputError, match=said) as caught:
        search(searching(), "s", tmp_path, hill, storage)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_may_be_a_file(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    first = search(searching(), "s", tmp_path / "db", hill, url)
    assert params(first.folder) == params(search(searching(), "s", tmp_path, hill).folder)
    assert not (first.folder / "journal.log").exists()
    assert search(searching(), "s", tmp_path / "db", hill, url, trials=8).trials == 8


def test_a_study_that_somebody_else_made_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    study.add_trial(optuna.create_trial(value=1.0))
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(InputError, match="was not created by permafrost"):
        search(searching(), "s", tmp_path, hill, url)


NAMES = {
    "sampler": [name for name in optuna.samplers.__all__ if name[0].isupper() and not name.startswith("Base")],
    "pruner": [name for name in optuna.pruners.__all__ if not name.startswith("Base")],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_every_sampler_and_pruner_of_optuna_conducts_a_study(tmp_path, kind, name):
    settings = {kind: name, f"{kind}_options": OPTIONS.get(name, {})}
    done = search(searching(STEPS, trials=12, **settings), "s", tmp_path, hill)
    assert done.trials == 12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "TPESampelr"}, "study.sampler = 'TPESampelr': Did you mean 'TPESampler'?"),
        ({"pruner": "median"}, "study.pruner = 'median': .*MedianPruner"),
        ({"sampler": "BaseSampler"}, "study.sampler = 'BaseSampler'"),
        ({"sampler": "GridSampler"}, "give 'train.learning_rate' a step, or choices"),
        ({"pruner": "PercentilePruner"}, "needs 'percentile': set it in study.pruner_options"),
        ({"sampler_options": {"n_startup": 1}}, "TPESampler has no 'n_startup'. Did you mean 'n_startup_trials'?"),
        ({"pruner_options": {"n_startup_trials": -1}}, "study.pruner = 'MedianPruner' cannot be made"),
    ],
)
def test_a_sampler_or_pruner_that_cannot_be_is_refused(settings, said):
    spec = searching(**settings).study
    make = (
        make_pruner
        if any(key.startswith("pruner") for key in settings)
        else partial(make_sampler, ranges=spec.ranges(), turn=0)
    )
    with pytest.raises(SpecError, match=said.replace("?", r"\?")):
        make(spec)


def test_a_sampler_whose_library_is_missing_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    monkeypatch.setattr("optuna.samplers._cmaes.cmaes", optuna._imports._LazyImport("cmaes"))
    with pytest.raises(InputError, match=r"study.sampler = 'CmaEsSampler': .*cmaes"):
        search(searching(sampler="CmaEsSampler"), "s", tmp_path, hill)


# ------------------------------------------------------------------------------------------------- workers and crashes


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(tmp_path):
    notes = Stopping(0)
    done = search(searching(trials=16), "s", tmp_path, partial(hill, pause=0.02, kill_at=5), workers=2, progress=notes)
    assert_nothing_lost(done.folder, 16)
    assert any("a worker died (signal 9) at trial" in note for note in notes.notes)


def assert_nothing_lost(folder: Path, trials: int) -> None:
    """As many trials finished as asked; the one that died was trained again with its values, all others once."""
    table = rows(folder)
    assert sum(map(finished, table)) == trials
    dead = [row for row in table if row["state"] == "FAIL"]
    assert len(dead) == 1
    again = [row for row in table if row["retry_of"]]
    assert [float(row["retry_of"]) for row in again] == [float(dead[0]["number"])]
    assert all(again[0][key] == dead[0][key] for key in SPACE)
    assert finished(again[0])
    assert sorted(evaluated(folder).values()) == [1] * (trials - 1) + [2]
    processes = {line.split()[-1] for line in (folder / "evaluated").read_text().splitlines()}
    assert len(processes) == 3


@pytest.mark.slow
def test_a_trial_that_kills_every_worker_is_given_up(tmp_path):
    recipe = searching({"train.weight_decay": [0.0, 0.3]}, trials=2, sampler="GridSampler")
    done = search(recipe, "s", tmp_path, partial(hill, lethal=0.3), workers=2)
    assert (done.trials, done.refused) == (1, 1)
    assert rows(done.folder)[-1]["reason"] == "3 workers died of it."


@pytest.mark.slow
def test_an_error_of_the_machine_ends_the_study_and_can_be_resumed(tmp_path):
    with pytest.raises(MachineError, match="the disk is full"):
        search(searching(), "s", tmp_path, broken, workers=2)
    assert search(searching(), "s", tmp_path, hill).trials == 6


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent_and_the_study_goes_on(tmp_path, how):
    program = (
        "import signal, sys; sys.path[:0] = ['.']\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from functools import partial; from pathlib import Path\n"
        "from tests.support.studies import search; from tests.support.toys import hill, searching\n"
        f"search(searching(trials=40), 's', Path({str(tmp_path)!r}), partial(hill, pause=0.1), workers=2)"
    )
    log = tmp_path / "study-s" / "evaluated"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as parent:
        while not log.exists() or len(log.read_text().splitlines()) < 6:
            assert parent.poll() is None
            time.sleep(0.02)
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as a terminal does: to all of them
        else:
            parent.kill()
        _, said = parent.communicate(timeout=20)
    assert said.count("KeyboardInterrupt") == (1 if how == signal.SIGINT else 0)
    workers = {int(line.split()[-1]) for line in log.read_text().splitlines()}
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)
    done = search(searching(), "s", tmp_path, hill, trials=20)
    table = rows(done.folder)
    assert done.trials == 20
    cut = [row for row in table if row["state"] == "FAIL"]
    assert 1 <= len(cut) <= 2
    assert len(cut) == sum(bool(row["retry_of"]) for row in table)
    assert 20 <= sum(evaluated(done.folder).values()) <= 20 + len(cut)  # one may be cut before it begins


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_inputs_are_made_once_over_all_workers(tmp_path):
    recipe = searching({"plan.max_tokens": [32, 64]}, trials=10, sampler="RandomSampler", pruner="NopPruner")
    done = search(recipe, "s", tmp_path, sharing, workers=2)
    assert sorted((done.folder / "made").read_text().split()) == ["32", "64"]
    assert done.value == 64
    values = {(row["plan.max_tokens"], float(row["value"])) for row in rows(done.folder)}
    assert values == {("32", 32.0), ("64", 64.0)}


def test_inputs_that_are_there_are_mapped_and_not_made_again(tmp_path):
    made = PooledInputs(
        values=torch.arange(24.0).view(2, 3, 4),
        columns=(Column("", "mean", 3), Column("echo", "cls", 0)),
        widths=(4, 2),
    )
    first = SharedInputs(tmp_path)("key", lambda: made)
    again = SharedInputs(tmp_path)("key", lambda: pytest.fail("made again"))
    assert mapped(tmp_path / "key.npy")
    for inputs in (first, again):
        assert torch.equal(inputs.values, made.values)
        assert (inputs.columns, inputs.widths) == (made.columns, made.widths)
    again.values.add_(1)  # private to whoever writes
    assert torch.equal(first.values, made.values)
    assert not list(tmp_path.glob("*.tmp"))


# -------------------------------------------------------------------------------------------------------- the journal


@pytest.fixture
def journal(tmp_path):
    """The journal of a study of three trials, and what it takes to read it."""
    search(searching(trials=3), "s", tmp_path, hill)
    return tmp_path / "study-s" / "journal.log"


def values(journal: Path) -> list[float]:
    with open_study("s", searching(), None, journal) as trial_log:
        return [row["value"] for row in trial_log.rows() if finished({**row})]


def test_optuna_itself_reads_the_journal(journal):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.value for trial in trials if trial.state.name == "COMPLETE"] == values(journal)
    ours = optuna.storages.JournalStorage(Journal(journal))
    assert trials == optuna.load_study(study_name="s", storage=ours).trials


def test_what_optuna_itself_appends_is_not_believed(journal):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    optuna.load_study(study_name="s", storage=storage).ask()
    with pytest.raises(MachineError, match=r"has no checksum: it is damaged, or written by Optuna itself"):
        values(journal)


def records(journal: Path) -> list[dict[str, object]]:
    return list(Journal(journal).read_logs(0))


def test_a_record_that_is_cut_anywhere_is_cut_off_and_the_rest_kept(journal):
    content, whole = journal.read_bytes(), records(journal)
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start, len(content)):
        journal.write_bytes(content[:end])
        assert records(journal) == whole[:-1]
        Journal(journal).append_logs([{"op_code": 3}])
        assert journal.read_bytes()[:start] == content[:start]
        assert records(journal) == [*whole[:-1], {"op_code": 3}]


@pytest.mark.parametrize("garbage", [b"{", b"\x00" * 5000, b'{"op_code":3,"checksum":"0'])
def test_garbage_behind_the_last_newline_loses_no_trial(journal, garbage):
    whole, kept = journal.read_bytes(), values(journal)
    journal.write_bytes(whole + garbage)
    assert values(journal) == kept
    Journal(journal).append_logs([{"op_code": 10}])
    assert journal.read_bytes().startswith(whole + b'{"op_code":10,')
    done = search(searching(), "s", journal.parent.parent, hill)
    assert done.trials == 6


@pytest.mark.parametrize(
    "garbage", [b'{"op_code"\n', b"\xff\xfe\n", b"[1]\n", b"{\n\n{\n", b"\n" * 3, b'{"op_code":3}\n']
)
def test_a_whole_line_that_is_no_record_is_told_and_not_cut(journal, garbage):
    whole, kept = journal.read_bytes(), values(journal)
    journal.write_bytes(whole + garbage)
    with pytest.raises(MachineError, match=r"journal\.log:\d+ has no checksum: .* Optuna itself") as caught:
        search(searching(), "s", journal.parent.parent, hill)
    with pytest.raises(MachineError, match="has no checksum"):
        Journal(journal).append_logs([{"op_code": 10}])
    assert journal.read_bytes() == whole + garbage
    assert caught.value.exit_code == 3
    os.truncate(journal, int(re.search(r"'truncate -s (\d+) ", str(caught.value))[1]))  # the way out that it names
    assert values(journal) == kept


def test_damage_in_the_middle_is_named(journal):
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], lines[4].replace(b"0", b"1", 1), *lines[5:]]))
    with pytest.raises(MachineError, match=r"journal.log:5 is not as it was written") as caught:
        search(searching(), "s", journal.parent.parent, hill)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("change", ["lost", "doubled", "swapped", "of another study"])
def test_a_line_that_is_whole_and_out_of_its_place_is_told(journal, change, tmp_path):
    lines = journal.read_bytes().splitlines(keepends=True)
    match change:
        case "lost":
            lines[4:5] = []
        case "doubled":
            lines[4:5] = [lines[4]] * 2
        case "swapped":
            lines[4:6] = lines[5], lines[4]
        case _:
            search(searching(trials=3, seed=1), "t", tmp_path, hill)
            lines[4] = (tmp_path / "study-t" / "journal.log").read_bytes().splitlines(keepends=True)[4]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(MachineError, match=r"journal\.log:[56] .*does not follow the line before it"):
        records(journal)


def test_no_flipped_bit_of_a_journal_is_another_record(tmp_path):
    """300 flips over a dozen trials: told by file and line, or the last record is as if it had never been written."""
    search(searching(trials=12), "s", tmp_path, hill)
    journal, rng = tmp_path / "study-s" / "journal.log", random.Random(0)
    content, whole = journal.read_bytes(), records(journal)
    last = 8 * (len(content) - 1)
    for place in [*rng.sample(range(8 * len(content)), 300), *range(last, last + 8)]:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        journal.write_bytes(changed)
        line = content[: place // 8].count(b"\n") + 1
        with pytest.raises(MachineError) as caught:
            records(journal)
        assert str(caught.value).startswith(f"{journal}:{line} ")
        assert "\n" not in str(caught.value)
        with pytest.raises(MachineError):
            Journal(journal).append_logs([{"op_code": 10}])
        assert journal.read_bytes() == changed
    journal.write_bytes(content)
    assert records(journal) == whole


def test_a_journal_that_shrinks_under_its_reader_is_told(journal):
    reader = Journal(journal)
    list(reader.read_logs(0))
    os.truncate(journal, 10)
    with pytest.raises(MachineError, match="shorter than it was"):
        reader.append_logs([{"op_code": 10}])
    assert journal.stat().st_size == 10


def test_a_full_disk_leaves_the_journal_whole(journal):
    whole = journal.read_bytes()
    program = (
        "import resource, signal, sys; sys.path[:0] = ['.']\n"
        "from pathlib import Path; from permafrost.data.errors import MachineError\n"
        "from permafrost.probes.search.journal import Journal\n"
        f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); path = Path({str(journal)!r})\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 20}, {len(whole) + 20}))\n"
        "try: Journal(path).append_logs([{'op_code': 3, 'much': 'x' * 99}])\n"
        "except MachineError as error: print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert "File too large; every finished trial in it is safe" in said
    assert journal.read_bytes() == whole


def test_a_trial_cut_between_failing_and_queueing_is_queued_once(tmp_path, monkeypatch):
    journal, recipe = tmp_path / "journal.log", searching()
    with open_study("s", recipe, None, journal) as trial_log:
        _, params = trial_log.ask()
        monkeypatch.setattr(trial_log._study, "add_trial", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trial_log.abandon()
    with open_study("s", recipe, None, journal):
        pass
    with open_study("s", recipe, None, journal) as trial_log:
        states = [row["state"] for row in trial_log.rows()]
        assert states == ["FAIL", "WAITING"]
        again, same = trial_log.ask()
        assert same == params
        trial_log.record(again, TrialResult("complete", 1.0))
        assert again == 1
        assert trial_log.finished == 1


def test_a_lock_ends_with_its_holder(tmp_path):
    program = "from pathlib import Path; from permafrost.data.atomic import file_lock; import time\n"
    program += f"with file_lock(Path({str(tmp_path / 'lock')!r})): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with file_lock(tmp_path / "lock", wait=False) as free:
            assert not free
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with file_lock(tmp_path / "lock", wait=False) as free:
        assert free


def test_a_trial_log_counts_what_is_finished(tmp_path):
    with open_study("s", searching(), None, tmp_path / "journal.log") as trial_log:
        assert isinstance(trial_log, TrialLog)
        number, _ = trial_log.ask()
        assert not trial_log.report(number, 0, 0.5)
        assert trial_log.finished == 0
        trial_log.record(number, TrialResult("pruned"))
        assert trial_log.finished == 1
        assert trial_log.best() is None
