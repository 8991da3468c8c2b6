"""Studies in a real PostgreSQL: a killed worker, a second machine, a server that goes away."""

import os
import uuid
from functools import partial

import pytest

from permafrost.data.errors import InputError, MachineError
from permafrost.probes.search.storage import open_study
from tests.probes.search.test_session import assert_nothing_lost, rows
from tests.support.servers.postgresql import running
from tests.support.studies import search
from tests.support.toys import hill, searching


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


def test_another_machine_cannot_take_a_study_that_is_running(server, name, tmp_path):
    there = open_study(name, searching(), server.url, tmp_path / "unused")
    with there, pytest.raises(InputError, match="is running elsewhere"):
        search(searching(), name, tmp_path, hill, server.url)
    assert search(searching(), name, tmp_path, hill, server.url).trials == 6


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
