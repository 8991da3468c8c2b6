"""A corpus with more texts than a block is a stream for "extract", and gives the store that a run reads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from permafrost import api
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import NoProgress
from permafrost.data.store.store import LatentStore
from permafrost.data.streams.texts import TextStream
from permafrost.probes.config.load import load_recipe
from permafrost.probes.variants.latent_workspace import LatentWorkspace
from permafrost.stage_one import PROVIDER
from tests.support.bench import Bench

ROOT = Path(__file__).parents[2]

LAYERS = range(4)


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def settings(bench: Bench, name: str, *more: str) -> list[str]:
    dtypes = "plan.compute_dtype=float32", "plan.stored_dtype=float32"
    return bench.of_pairs("extract.block_texts=30", f"extract.cache={bench.folder / name}", *dtypes, *more)


def bits(store: LatentStore, texts: tuple[str, ...]) -> bytes:
    return bytes(store.read(texts, "mean", LAYERS).tobytes())


def test_a_stream_and_a_corpus_in_memory_give_the_same_bits(bench):
    (stream,), (extracted,) = api.extract("pairs", settings(bench, "stream"))
    assert isinstance(stream, TextStream)
    (corpus,), _ = api.extract("pairs", settings(bench, "stream", "extract.block_texts=1000"))
    assert isinstance(corpus, Corpus)
    assert set(stream.texts) == set(corpus.texts)
    assert (stream.text_count, stream.texts_distinct) == (corpus.text_count, corpus.texts_distinct)
    _, recipe = load_recipe("pairs", settings(bench, "memory"))
    workspace = LatentWorkspace(PROVIDER, NoProgress())
    workspace.prepare([recipe])
    (in_memory,) = workspace.stored.values()
    assert in_memory.texts_run == extracted.texts_run == corpus.texts_distinct
    assert bits(in_memory.store, corpus.texts) == bits(extracted.store, corpus.texts)
    again = LatentWorkspace(PROVIDER, NoProgress())
    again.prepare([load_recipe("pairs", settings(bench, "stream"))[1]])
    assert next(iter(again.stored.values())).texts_run == 0


PROGRAM = """
import os, signal, sys
from permafrost import api
from permafrost.data.store.store import LatentStore
real, commits = LatentStore.append, []
def append(*given):
    path = real(*given)
    commits.append(path)
    if len(commits) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return path
LatentStore.append = append
api.extract("pairs", sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_three_times_nothing_committed_runs_again(bench):
    """Each process commits two shards and is killed -9; texts of a block are on one line of a file."""
    lines = bench.folder / "lines.txt"
    texts = [f"the dog {'runs ' * (number % 7)}over stove {number}" for number in range(300)]
    lines.write_text("\n".join(texts))

    def of(name: str) -> list[str]:
        own = f"corpus.path={lines}", "corpus.columns=sentence", "corpus.target=none"
        return [*settings(bench, name), *own]

    held = [0]
    for _ in range(3):
        killed = subprocess.run(
            [sys.executable, "-c", PROGRAM, *of("killed")], cwd=ROOT, capture_output=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-500:]
        (folder,) = {path.parent for path in (bench.folder / "killed").rglob("*.h5")}
        held.append(sum(shard.texts for shard in LatentStore.open(folder).shards))
    assert held == [0, 60, 120, 180]
    _, (done,) = api.extract("pairs", of("killed"))
    assert done.texts_run == len(texts) - 180
    assert sum(shard.texts for shard in done.store.shards) == len(texts)
    _, (whole,) = api.extract("pairs", of("whole"))
    assert bits(done.store, tuple(texts)) == bits(whole.store, tuple(texts))


def test_texts_alone_are_extracted_from_files_of_a_pattern_by_the_command_line(bench):
    texts = bench.folder / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.csv").write_text(
            "id,text\n" + "".join(f"{row},the dog {number} runs {row}\n" for row in range(40))
        )
    command = [sys.executable, "pipeline.py", "extract", "pairs", "--data", f"{texts}/*.csv", "--json"]
    for change in bench.settings("extract.block_texts=50"):
        command += ["--set", change]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})
    facts = json.loads(done.stdout)
    assert (facts["texts"], facts["texts_distinct"], facts["texts_run"]) == (120, 120, 120)
    assert "read as a stream, 120 train rows; 120 texts, 120 distinct" in done.stderr
