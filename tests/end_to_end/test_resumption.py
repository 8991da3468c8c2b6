"""A command that trains is killed in the middle: run again it goes on, trains nothing twice, and ends the same."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.probes.tracking.event_files import scalars
from tests.support.bench import Bench, pairs, write

WATCHED = """
import time
from permafrost.probes.runs import write
from permafrost.probes.metrics import bootstrap
from permafrost.probes.training import checkpoint, step
write.write_report = lambda folder: None
bootstrap.RESAMPLES = 50
written, trained = checkpoint.Checkpoint.save, step.StepRunner.run
def save(self, state):
    written(self, state)
    time.sleep({pause})
def run(self, *batch):
    with open({steps!r}, "a") as file:
        file.write(".")
    return trained(self, *batch)
checkpoint.Checkpoint.save, step.StepRunner.run = save, run
"""
"""Counts the steps of all trainings in a file, and pauses after each checkpoint, so that a kill comes in between."""

TASKS = """
[tasks.likeness]
corpus = {{ path = "{pairs}", columns = ["first", "second", "score"], target = "score" }}

[tasks.sameness]
corpus = {{ path = "{topics}", columns = ["sentence", "label"], target = "class" }}
"""


def command(bench: Bench, words: Sequence[str], settings: Sequence[str], steps: Path, kill_at: str = "") -> None:
    """Run a command as a process of its own; kill it once a training whose checkpoint is of that name has begun."""
    before = WATCHED.format(steps=str(steps), pause=0.1 if kill_at else 0)
    process = bench.process(*words, settings=settings, before=before)
    deadline = time.monotonic() + 240
    try:
        while kill_at and not any(bench.runs.glob(f"unfinished/*/{kill_at}")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.01)
        if kill_at:
            os.kill(process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if kill_at else 0), errors


def recipe_of(name: str, bench: Bench) -> tuple[str, list[str]]:
    """A recipe and settings for a command: of pairs, or of two tasks on every layer."""
    small = [
        "train.track=tensorboard",
        "train.batch_rows=16",
        "train.epochs=2",
        "train.checkpoint_seconds=0",
        "plan.stored_dtype=float32",
    ]
    if name == "run":
        bench.of_pairs()
        rows = [(row[0], "same" if row[2] > 0.4 else "other", row[3]) for row in pairs()]
        topics = write(bench.folder / "topics.csv", ["sentence", "label", "split"], rows)
        path = bench.folder / "two.toml"
        path.write_text(TASKS.format(pairs=bench.folder / "pairs.csv", topics=topics))
        return str(path), bench.settings("plan.views=mean", *small)
    searched = ['study.space={"train.learning_rate"={low=0.001,high=0.01}}', "study.trials=2", "study.seeds=0,1"]
    return "quickstart", bench.of_pairs(
        "corpus.name=", "corpus.target=score", "ablation.kinds=single,greedy", "variants=[]", *searched, *small
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """The tables of a run folder, byte for byte."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.csv")}
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "kill_at", "folder"),
    [
        ("ablate", "*random_targets*", "ablate-quickstart-1"),
        ("run", "sameness*", "two-1"),
        ("study", "*", "quickstart-best-1"),
    ],
)
def test_a_killed_command_goes_on_trains_nothing_twice_and_ends_with_the_same_tables(
    tmp_path, tiny, verb, kill_at, folder
):
    bench, whole = Bench(tmp_path / "killed", tiny("bert")), Bench(tmp_path / "whole", tiny("bert"))
    steps = {}
    for each in (bench, whole):
        recipe, settings = recipe_of(verb, each)
        steps[each] = each.folder / "steps.txt"
        if each is bench:
            command(each, [verb, recipe], settings, steps[each], kill_at)
            assert not (each.runs / folder).exists()
        command(each, [verb, recipe], settings, steps[each])
    assert files_of(bench.runs / folder) == files_of(whole.runs / folder)
    assert scalars(bench.runs / folder) == scalars(whole.runs / folder) != {}
    assert 0 <= steps[bench].stat().st_size - steps[whole].stat().st_size <= 1  # the step that the kill cut short
    assert not (bench.runs / "unfinished").exists()
