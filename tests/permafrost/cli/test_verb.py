"""Options of every command: a log of events, and silence."""

import json
import os
from datetime import datetime

import pytest

from permafrost.cli.main import app
from tests.support.bench import Bench


def events(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_command_has_the_options_that_are_declared_once():
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    commands = [command for group in groups for command in group.registered_commands]
    assert len(commands) > 12
    assert all({"quiet", "log"} <= set(command.callback.__annotations__) for command in commands)


def test_a_log_tells_what_happened_in_order_and_quiet_tells_nothing_else(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    bench, log = Bench(tmp_path, tiny("bert")), tmp_path / "logs" / "a.jsonl"
    words = ("run", "pairs", "--only", "linear", "--quiet", "--json", "--log", str(log))
    code, out, err = bench.command(*words, settings=bench.of_pairs("train.epochs=2"))
    assert (code, err) == (0, "")
    told = events(log)
    names = [event["event"] for event in told]
    assert names == ["started", "extracted", "epoch", "epoch", "trained", "measured", "done"]
    assert told[0]["given"]["recipe"] == "pairs"
    assert told[1]["texts_run"] == told[1]["texts"] > 0
    assert [event["epoch"] for event in told if event["event"] == "epoch"] == [1, 2]
    assert told[-2]["run"] == json.loads(out)["run"]
    moments = [datetime.fromisoformat(event["time"]) for event in told]
    assert moments == sorted(moments)
    assert all(moment.tzinfo for moment in moments)


@pytest.mark.parametrize("words", [("run", "no-such"), ("predict", "no-such-run", "a text"), ("config", "no-such")])
def test_a_failure_is_logged_after_what_is_there_and_told_even_if_quiet(tmp_path, words):
    log = tmp_path / "a.jsonl"
    log.write_text('{"event": "earlier"}\n')
    code, _, err = Bench(tmp_path, tmp_path).command(*words, "--quiet", "--log", str(log))
    assert code == 2
    assert [event["event"] for event in events(log)] == ["earlier", "started", "failed"]
    assert events(log)[-1]["exit_code"] == 2
    assert events(log)[-1]["message"] in err


def test_a_log_that_is_a_folder_is_refused(tmp_path):
    code, _, err = Bench(tmp_path, tmp_path).command("recipes", "--log", str(tmp_path))
    assert code == 2
    assert "a file is needed" in err


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_log_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path, put):
    put(tmp_path / "a.jsonl")
    code, _, err = Bench(tmp_path, tmp_path).command("recipes", "--log", str(tmp_path / "a.jsonl"))
    assert (code, "a file is needed" in err) == (2, True)


def test_what_steers_a_terminal_is_escaped_in_refusals_of_options(tmp_path):
    for words in (("recipes", "--x\u202e\x1b[31m"), ("\u2066x",), ("recipes", "\u202ey\r")):
        code, out, err = Bench(tmp_path, tmp_path).command(*words)
        assert code == 2
        assert not {"\u202e", "\u2066", "\x1b", "\r"} & {*out, *err}
