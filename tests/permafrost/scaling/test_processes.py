"""Extraction by several processes of this machine."""

import multiprocessing.reduction
import os
import signal
from typing import Any

import numpy as np
import pytest

from permafrost.data.errors import InputError
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.extract.distributed.shards import ShardOfPacks
from permafrost.probes.search.workers import WorkerPool
from permafrost.scaling import processes
from permafrost.scaling.processes import deal_devices, extract_in_processes, run_worker
from permafrost.scaling.request import ExtractionRequest
from tests.support.bench import Bench


class Told(NoProgress):
    def __init__(self) -> None:
        self.notes, self.events = list[str](), list[Any]()

    def note(self, message: str) -> None:
        self.notes.append(message)

    def event(self, name: str, **facts: Any) -> None:
        self.events.append((name, facts))


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


@pytest.fixture
def request_for(bench: Any) -> Any:
    def make(name: str, *more: str) -> ExtractionRequest:
        own = ("extract.block_texts=20", "extract.batch_tokens=64", f"extract.cache={bench.folder / name}", *more)
        return ExtractionRequest("pairs", bench.of_pairs(*own))

    return make


def latents(extracted: Any) -> np.ndarray:
    texts = list(dict.fromkeys(extracted.corpora[0].texts))
    (plan,) = extracted.latents[:1]
    view, layers = next(iter(plan.columns.items()))
    return plan.store.read(texts, view, layers)


def killed_once(pipe: Any) -> None:
    """A worker of shard 1 that is killed after it has committed its first pack; another goes on with the shard."""
    real = ShardOfPacks.own

    def own(self: Any, *given: Any) -> Any:
        if self.index == 1 and self.block == 1 and not os.path.exists(os.environ["KILLED"]):  # noqa: PTH110
            open(os.environ["KILLED"], "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *given)

    ShardOfPacks.own = own  # type: ignore[method-assign]
    run_worker(pipe)


@pytest.mark.slow
def test_processes_share_the_work_and_a_killed_one_is_replaced(request_for, monkeypatch, tmp_path):
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    monkeypatch.setattr(processes, "run_worker", killed_once)
    told = Told()
    alone = request_for("alone").run(NoProgress())
    extracted = extract_in_processes(request_for("shared"), 2, told)
    assert (tmp_path / "killed").exists()
    assert sum("worker 1 died (exit code -9)" in note for note in told.notes) == 1
    assert told.notes[-1].endswith("all are stored")
    np.testing.assert_array_equal(latents(extracted), latents(alone))
    store = extracted.latents[0].store
    assert store.count_texts() == sum(len(shard.keys) for shard in store.shards), "a text is stored once"
    assert {facts.get("worker") for name, facts in told.events if name == "extracted"} == {0, 1, None}


@pytest.mark.parametrize(
    ("found", "settings", "expected"),
    [
        (["cpu"], {}, ["", "", ""]),
        (["cpu", "cuda:0"], {}, ["cuda:0", "cuda:0", "cuda:0"]),
        (["cpu", "cuda:0", "cuda:1"], {}, ["cuda:0", "cuda:1", "cuda:0"]),
        (["cpu", "cuda:0", "cuda:1", "cuda:2", "cuda:3"], {"device": "cuda"}, ["cuda:0", "cuda:1", "cuda:2"]),
        (["cpu", "cuda:0", "cuda:1"], {"device": "cpu"}, ["", "", ""]),
        (["cpu", "cuda:0", "cuda:1"], {"device": "cuda:1"}, ["", "", ""]),
        (["cpu", "cuda:0", "cuda:1"], {"device_map": "auto"}, ["", "", ""]),
        (["cpu", "mps"], {}, ["", "", ""]),
    ],
)
def test_each_worker_has_a_gpu_of_its_own_as_far_as_there_are_some(found, settings, expected):
    dealt = deal_devices(3, found, ExtractSpec(**settings))
    assert dealt == expected


def test_an_error_of_a_worker_can_be_sent_whatever_its_fields(request_for):
    long = request_for("long", "plan.truncation=refuse", "plan.max_tokens=4")
    ended = multiprocessing.reduction.ForkingPickler.loads(
        multiprocessing.reduction.ForkingPickler.dumps(processes._end_of(long, (0, 2), Told()))
    )
    assert type(ended.error) is InputError
    assert "texts exceed plan.max_tokens" in str(ended.error)


def test_an_error_of_the_request_is_told_before_a_process_begins(request_for):
    with pytest.raises(InputError, match="at least 1"):
        extract_in_processes(request_for("none"), 0, Told())
    with pytest.raises(InputError, match="no-such"):
        extract_in_processes(ExtractionRequest("no-such"), 2, Told())


def threads_of_torch(pipe: Any) -> None:
    import torch

    pipe.send(torch.get_num_threads())
    pipe.recv()


def test_workers_share_the_cores_unless_the_environment_says_otherwise(monkeypatch):
    told = []
    for threads in (None, "1"):
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        else:
            monkeypatch.delenv("OMP_NUM_THREADS")
        with WorkerPool(threads_of_torch, (), 2) as pool:
            told.append([next(iter(pool.messages()))[1] for _ in range(2)])
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert told == [[share, share], [1, 1]]
