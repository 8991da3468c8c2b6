"""Studies in a real PostgreSQL: killed workers and hosts, several sessions at once, a server that goes away."""

import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import NoProgress
from permafrost.probes.search import session
from permafrost.probes.search.storage import open_study
from permafrost.probes.search.trials import StudyElsewhere, TrialResult
from tests.probes.search.test_session import assert_nothing_lost, evaluated, finished, rows
from tests.support.servers.postgresql import running
from tests.support.studies import search
from tests.support.toys import SPACE, hill, searching

ROOT = Path(__file__).parents[3]
GRID = {"train.weight_decay": [0.0, 0.1, 0.2], "train.epochs": [1, 2, 3, 4]}


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Studies draw no figures, which take longer than all else of a small one."""
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)


@pytest.fixture(scope="module")
def server():
    if not os.environ.get("PERMAFROST_POSTGRESQL"):
        pytest.importorskip("psycopg")
    with running() as found:
        yield found


@pytest.fixture
def name():
    """A study's name that no earlier session used."""
    return uuid.uuid4().hex[:8]


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_the_study_goes_on_by_name(server, name, tmp_path):
    recipe = searching(trials=16)
    done = search(recipe, name, tmp_path, partial(hill, pause=0.02, kill_at=5), server.url, workers=2)
    assert_nothing_lost(done.folder, 16)
    elsewhere = search(recipe, name, tmp_path / "elsewhere", hill, server.url, trials=18)
    assert elsewhere.trials == 18
    assert rows(elsewhere.folder)[:17] == rows(done.folder)


@pytest.fixture
def host(server, name, tmp_path):
    """Starts a session on a host of a name; all are killed at the end."""
    started = []

    def start(host, folder="", space=None, pause=0.05, **given):
        study = {"trials": 12} | given.pop("study", {})
        runs = tmp_path / (folder or host)
        asked = {"name": name, "runs": str(runs), "storage": server.url, "space": space, "study": study}
        program = [sys.executable, "-m", "tests.support.study_host", host]
        process = subprocess.Popen(
            [*program, json.dumps(asked | {"hill": {"pause": pause}} | given)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process, runs / f"study-{name}"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(happened, *processes):
    while not happened():
        assert all(process.poll() is None for process in processes), "a session ended early"
        time.sleep(0.02)


def trained(*folders):
    """How often each set of values was trained, over the folders of all hosts."""
    return sum((evaluated(folder) for folder in folders if (folder / "evaluated").exists()), Counter())


@pytest.mark.slow
def test_a_killed_host_loses_one_trial_which_another_takes_over(host):
    """Three hosts of one study, one of them killed in a trial and one that comes late; one writes the end."""
    (first, one), (killed, two) = host("host-a", workers=2), host("host-b", pause=0.4)
    wait_until(lambda: len(trained(two)) >= 2, first, killed)
    killed.kill()
    late, three = host("host-c")
    said = [process.communicate(timeout=120)[0] for process in (first, late)]
    written = [folder for folder in (one, two, three) if (folder / "record.json").exists()]
    assert len(written) == 1
    table = rows(written[0])
    assert sum(map(finished, table)) == 12
    cut = [row for row in table if row["state"] == "FAIL"]
    assert [row["host"] for row in cut] == ["host-b"]
    assert [float(row["retry_of"]) for row in table if row["retry_of"]] == [float(row["number"]) for row in cut]
    assert {row["host"] for row in table if finished(row)} >= {"host-a", "host-b"}
    assert sorted(trained(one, two, three).values()) == [1] * 11 + [2]
    assert sorted("wrote 12" in words for words in said) == [False, True]
    assert sum(f"results: {written[0]}" in words or f"again: {written[0]}" in words for words in said) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["GridSampler", "TPESampler"])
def test_two_hosts_never_run_the_same_point(host, sampler):
    space = SPACE if sampler == "TPESampler" else GRID
    study = {"sampler": sampler, "trials": 12}
    sessions = [host(f"host-{name}", space=space, pause=0.3, study=study) for name in "ab"]
    assert all(process.wait(timeout=120) == 0 for process, _ in sessions)
    found = next(rows(folder) for _, folder in sessions if (folder / "record.json").exists())
    points = Counter(tuple(row[key] for key in space) for row in found)
    assert len(found) == 12
    assert set(points.values()) == {1}
    assert {row["host"] for row in found} == {"host-a", "host-b"}


@pytest.mark.slow
def test_hosts_with_one_folder_write_one_end_and_a_death_in_it_is_made_good(host):
    started = [host(name, "both", stays_at_end=True, study={"trials": 4}) for name in ("host-a", "host-b")]
    sessions, folder, ended = [process for process, _ in started], started[0][1], []
    wait_until(lambda: ended.extend(p for p in sessions if p.poll() is not None) or ended)
    (writer,) = set(sessions) - set(ended)
    assert "is about to write its results" in ended[0].stdout.read()
    assert not (folder / "record.json").exists()
    writer.kill()
    writer.wait()
    again, _ = host("host-b", "both", study={"trials": 4})
    assert "wrote 4" in again.communicate(timeout=60)[0]
    assert sum(trained(folder).values()) == 4
    assert not list(folder.glob("shared-host-b*"))


@pytest.mark.slow
def test_sessions_at_once_share_the_trials_and_only_one_writes(server, name, tmp_path, monkeypatch):
    best = TrialResult("complete", 9.0)
    monkeypatch.setattr(platform, "node", lambda: "other")
    with open_study(name, searching(), server.url, tmp_path / "unused") as other:
        number, params = other.ask(6)
        monkeypatch.undo()
        monkeypatch.setattr(session, "POLL_SECONDS", 0)
        progress = NoProgress()
        progress.note = lambda said: "waits for 1 trial of other" in said and other.record(number, best)
        done = search(searching(), name, tmp_path, hill, server.url, progress=progress)  # runs five, then waits
    assert (done.trials, done.number, done.params) == (6, number, params)
    assert sum(evaluated(done.folder).values()) == 5
    assert search(searching(), name, tmp_path, hill, server.url).trials == 6  # where it was written
    with pytest.raises(StudyElsewhere, match="--if-done again writes them here too"):
        search(searching(), name, tmp_path / "elsewhere", hill, server.url)
    assert search(searching(), name, tmp_path / "elsewhere", hill, server.url, again=True).trials == 6
    with pytest.raises(InputError, match="begun with another recipe or space"):
        search(searching(GRID), name, tmp_path, hill, server.url)


def cut_connections(server):
    """End the connections that hold advisory locks, as a server does that starts again."""
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        held = "select distinct pid from pg_locks where locktype = 'advisory'"
        connection.execute(text(f"select pg_terminate_backend(pid) from ({held}) held"))
        wait_until(lambda: not connection.execute(text(held)).all())
    engine.dispose()


@pytest.mark.slow
def test_a_trial_whose_lock_was_lost_ends_once(server, name, tmp_path):
    with (
        open_study(name, searching(), server.url, tmp_path) as one,
        open_study(name, searching(), server.url, tmp_path) as other,
    ):
        kept, _ = one.ask()
        cut_connections(server)
        assert not one.report(kept, 0, 0.5)  # takes its locks again
        taken, params = one.ask()
        cut_connections(server)
        assert not one.report(kept, 1, 0.5)
        assert other.ask(2) is None
        cut_connections(server)
        again, same = other.ask(2)
        assert (again, same, other.elsewhere) == (2, one._trials()[kept].params, [])
        last, same = other.ask(2)
        assert (last, same) == (3, params)
        assert one.report(taken, 0, 0.5), "no epoch more is worth its time"
        assert not one.record(taken, TrialResult("complete", 1.0))
        assert one.requeue(kept), "it is not given up, for it is another's"
        assert other.record(again, TrialResult("complete", 1.0))
        assert other.record(last, TrialResult("complete", 2.0))
        assert one.ask(2) is None
        assert [row["state"] for row in one.rows()] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
        assert one.finished == other.finished == 2


@pytest.mark.slow
def test_a_server_that_goes_away_is_said_and_nothing_is_lost(tmp_path, capfd):
    with running() as server:
        if server.folder is None:
            pytest.skip("this server is not ours to stop")

        def stopping(recipe, folder, receive):
            train = hill(recipe, folder, receive)

            def evaluate(recipe, after_epoch):
                if len((folder.parent / "evaluated").read_text().splitlines() if started(folder) else []) == 3:
                    server.stop()
                return train(recipe, after_epoch)

            return evaluate

        with pytest.raises(MachineError, match=r"no longer answers.*its 3 finished trials are safe there") as caught:
            search(searching(), "s", tmp_path, stopping, server.url)
        assert caught.value.exit_code == 3
        with pytest.raises(InputError, match="cannot be reached"):
            search(searching(), "s", tmp_path, hill, server.url)
        server.start()
        assert search(searching(), "s", tmp_path, hill, server.url).trials == 6
    assert capfd.readouterr().err == ""


def started(folder) -> bool:
    return (folder.parent / "evaluated").exists()
