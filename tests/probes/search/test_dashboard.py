"""The real optuna-dashboard answers HTTP with the trials of a study, running or done, and changes nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from permafrost.data.errors import InputError
from permafrost.probes.search import dashboard
from permafrost.probes.search.dashboard import serve_study
from tests.support.bench import Bench
from tests.support.studies import search
from tests.support.toys import hill, searching

SPACE = 'study.space={"train.learning_rate"={low=1e-4,high=1e-2}}'


def ask(address: str, method: str = "GET") -> tuple[int, str]:
    """Status and text of a request; an address that nobody answers yet is asked again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def trials(address: str) -> list[dict[str, Any]]:
    """The trials of the only study, as the dashboard tells them."""
    (study,) = json.loads(ask(f"{address}api/studies")[1])["study_summaries"]
    status, text = ask(f"{address}api/studies/{study['study_id']}?after=0")
    assert status == 200
    found: list[dict[str, Any]] = json.loads(text)["trials"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite:///{}"])
def test_the_dashboard_shows_the_trials_of_the_journal_or_the_database_and_changes_none(storage, tmp_path):
    url = storage and storage.format(tmp_path / "studies.db")
    journal = tmp_path / "study-s" / "journal.log"
    with serve_study(journal, url, 0) as address:
        status, text = ask(address)
        assert status == 503
        assert "has not begun" in text
        done = search(searching(trials=4), "s", tmp_path, hill, url)
        found = trials(address)
        assert [trial["state"] for trial in found] == ["Complete"] * 4
        assert max(trial["values"][0] for trial in found) == done.value
        assert ask(f"{address}api/studies/0", "DELETE")[0] == 403
        assert "<title>Optuna Dashboard</title>" in ask(f"{address}dashboard/")[1]
        assert search(searching(trials=6), "s", tmp_path, hill, url).trials == 6
        deadline = time.monotonic() + 60
        while len(trials(address)) < 6:  # it reads the storage anew every ten seconds
            assert time.monotonic() < deadline
            time.sleep(0.5)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_a_port_in_use_and_a_missing_package_are_refused_in_one_line(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} cannot be used .*set it to another, or to 0"):
            serve_study(tmp_path / "journal.log", None, port).__enter__()
    with pytest.raises(InputError, match="--port 70000: a port is a number from 0 to 65535"):
        serve_study(tmp_path / "journal.log", None, 70000).__enter__()
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install 'permafrost[dashboard]'")):
        serve_study(tmp_path / "journal.log", None, 0).__enter__()


def line_with(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.slow
def test_the_command_shows_a_study_while_it_runs_and_afterwards_and_a_finished_one_alone(tiny, tmp_path):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs("variants=[]", "study.seeds=0", "train.epochs=2", SPACE)
    words = ("study", "pairs", "--trials", "3", "--dashboard", "--port", "0", "--json")
    for runs in (["pairs-best-1", "study-pairs"], ["pairs-best-1", "study-pairs"]):
        process = bench.process(*words, settings=settings)
        try:
            address = line_with(process, "dashboard: http").split()[-1]
            assert "until Ctrl-C" in line_with(process, "stays at")
            assert [trial["state"] for trial in trials(address)] == ["Complete"] * 3
            os.kill(process.pid, signal.SIGINT)
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        assert json.loads(out)["run"] == str(Path(bench.runs) / "pairs-best-1")
        assert sorted(path.name for path in bench.runs.iterdir() if not path.name.startswith(".")) == runs
