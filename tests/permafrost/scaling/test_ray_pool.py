"""Extraction on a Ray cluster of this machine: actors that die or fail, and addresses where nobody answers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.cli.exit_codes import run_guarded
from permafrost.cli.main import app
from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress
from permafrost.scaling import ray_address, ray_pool
from permafrost.scaling.ray_pool import extract_on_ray
from permafrost.scaling.request import ExtractionRequest
from tests.support import ray_workers

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
TEXTS = 20_000
WORDS = ["dog", "grass", "stove", "winter", "small", "brown", "runs", "over", "green", "then"]


class Notes(NoProgress):
    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PERMAFROST_TEST_FOLDER", str(tmp_path))
    monkeypatch.setattr(ray_pool, "UNIT_SECONDS", 0.05)


@pytest.fixture
def request_for(tiny: Any, tmp_path: Path) -> Any:
    def make(texts: int, name: str) -> ExtractionRequest:
        file = tmp_path / f"{texts}.csv"
        lines = [
            f"{' '.join(WORDS[int(digit)] for digit in str(i))}{' and' * (i % 6)},{'ab'[i % 2]}" for i in range(texts)
        ]
        file.write_text("\n".join(["text,label", *lines]))
        settings = [
            f"plan.backbone={tiny('llama')}", f"extract.cache={tmp_path / name}", "plan.compute_dtype=float32",
            "plan.stored_dtype=float32", "plan.views=mean", "extract.block_texts=6000", "extract.batch_tokens=512",
            "device=cpu",
        ]  # fmt: skip
        return ExtractionRequest("classify", settings, data=str(file))

    return make


def read(extracted: Any) -> np.ndarray:
    texts = [text for corpus in extracted.corpora for text in dict.fromkeys(corpus)]
    return extracted.latents[0].store.read(texts, "mean", (0, 1))


def test_two_actors_one_killed_in_the_middle_one_before_its_answer(on_path, request_for, tmp_path):
    alone = request_for(TEXTS, "alone").run(NoProgress())
    told = Notes()
    extracted = extract_on_ray(request_for(TEXTS, "ray"), "local", 2, told, ray_workers.KilledTwice)
    assert {"in the middle", "after the commit", "committed"} <= {path.name for path in tmp_path.iterdir()}
    assert extracted.texts_run == alone.texts_run == TEXTS
    assert extracted.missing == 0
    store = extracted.latents[0].store
    assert store.count_texts() == sum(len(shard.keys) for shard in store.shards) == TEXTS, "a text is stored once"
    np.testing.assert_array_equal(read(extracted), read(alone))
    assert sum("tried elsewhere" in note for note in told.notes) >= 2


def test_a_unit_that_fails_three_times_is_told_and_the_others_go_on(on_path, request_for):
    told = Notes()
    extracted = extract_on_ray(request_for(3000, "ray"), "local", 2, told, ray_workers.FailsOnce)
    failed = [note for note in told.notes if "failed 3 times" in note]
    assert len(failed) == 1
    assert extracted.missing > 0
    assert extracted.texts_run + extracted.missing == 3000
    assert request_for(3000, "ray").run(NoProgress()).texts_run == extracted.missing


def test_an_address_where_nobody_answers_is_refused_in_one_line(on_path, request_for, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        command = ["extract", "quickstart", "--ray", address]
        assert run_guarded(lambda: app(command, standalone_mode=False)) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for address, message in (("nowhere", "expected HOST:PORT"), ("auto", "Start a cluster")):
        with pytest.raises(InputError, match=message):
            extract_on_ray(request_for(10, "none"), address, 1, NoProgress())


def test_a_port_of_something_else_is_refused_soon(on_path, request_for, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(ray_address, "SECONDS_TO_ANSWER", 0.5)
        with pytest.raises(InputError, match="ray start --head"):
            extract_on_ray(request_for(10, "none"), address, 1, NoProgress())


TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def cluster(on_path: None, tmp_path: Path) -> Iterator[str]:
    """The address of a cluster with a token, which runs as a process of its own and ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, log = tempfile.mkdtemp(prefix="ray-", dir="/tmp"), tmp_path / "ray.log"  # its sockets need a short path
    options = [f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--block"]
    program = "from ray.scripts.scripts import main; main()"
    with log.open("w") as output:
        head = subprocess.Popen(
            [sys.executable, "-c", program, "start", "--head", *options, f"--temp-dir={folder}"],
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)  # it ends what it started
        try:
            head.wait(timeout=30)
        finally:
            os.killpg(head.pid, signal.SIGKILL) if head.poll() is None else None
            shutil.rmtree(folder, ignore_errors=True)


def test_a_running_cluster_is_joined_with_its_token_and_predicts(cluster, request_for, finished, monkeypatch, tmp_path):
    for mode, token, message in (
        ("", "", "the cluster asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"),
        ("token", TOKEN[::-1], "is not that of the cluster: set RAY_AUTH_MODE=token"),
    ):
        monkeypatch.setenv("RAY_AUTH_MODE", mode or "disabled")
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        with pytest.raises(InputError, match=message) as caught:
            extract_on_ray(request_for(10, "none"), cluster, 1, NoProgress())
        assert "\n" not in str(caught.value)
    bench, done = finished
    file, words = tmp_path / "pairs.csv", ["predict", str(done.path), "--file", str(tmp_path / "pairs.csv"), "--out"]
    file.write_text("sentence1,sentence2\na dog runs,the grass\n")
    program = "from permafrost.cli.main import main; main()"  # Ray reads the token once a process
    command = [sys.executable, "-c", program, *words, str(tmp_path / "ray.jsonl"), "--ray", cluster, "--workers", "1"]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert bench.command(*words, str(tmp_path / "alone.jsonl"))[0] == 0
    answers = [json.loads((tmp_path / name).read_text()) for name in ("ray.jsonl", "alone.jsonl")]
    assert answers[0]["score"] == pytest.approx(answers[1]["score"], abs=1e-4)
