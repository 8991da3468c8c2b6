"""Unfinished trainings: what changes a weight is another one, what does not is the same, and a kill costs nothing."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from permafrost import api, stage_one
from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.errors import CheckpointError
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import fingerprint, plain
from permafrost.data.text import Segments
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe, Variant
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.workspace import Workspace
from tests.probes.variants.test_multitask import Tasks
from tests.support.bench import Bench, pairs, write

RECIPE = Recipe(train=TrainSpec(epochs=3))
SIDES = np.array([[0, 1], [1, 2]])
CORPUS = Corpus(
    name="toy",
    texts=("a", "b", "c"),
    splits={"train": Rows(SIDES, np.array([0.0, 1.0]))},
    labels=(),
    score_range=(0.0, 1.0),
    kind="score",
)


class Heard(NoProgress):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def kept(unfinished: UnfinishedTrainings, recipe: Recipe = RECIPE, seeds=(0,), corpus: Corpus = CORPUS, latents="one"):
    return unfinished.checkpoint_for("probe", recipe, seeds, {"probe": corpus}, {"plan": latents})


def saved(unfinished: UnfinishedTrainings) -> None:
    kept(unfinished).save({"epoch": 1})


def found(unfinished: UnfinishedTrainings, *of, **changes):
    return kept(unfinished, *of, **changes).load()


CHANGES = {
    "epochs": {"train": TrainSpec(epochs=4)},
    "rates": {"train": TrainSpec(epochs=3, rates={"backbone": 1e-4})},
    "cut": {"finetune": FinetuneSpec(2)},
    "dropout": {"finetune": FinetuneSpec(dropout=0.2)},
    "probe": {"probe": ProbeSpec(encoder="mlp")},
    "balancing": {"balancing": BalancingSpec(balancer="uncertainty")},
    "variants": {"variants": (Variant("other"),)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_are_another_training_and_what_they_left_is_said(change, tmp_path):
    saved(UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress()))
    heard = Heard()
    other = replace(RECIPE, **CHANGES[change])
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", other, heard)
    assert found(unfinished, other) is None
    (note,) = heard.notes
    left = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress()).path
    assert note.startswith(f"{left} holds an unfinished training of this recipe with other settings")
    assert note.endswith(f"rm -r {left}")
    UnfinishedTrainings.of(tmp_path, "sts", other, heard)
    assert heard.notes == [note]  # said once
    assert found(UnfinishedTrainings.of(tmp_path, "sts", RECIPE, heard)) == {"epoch": 1}


def test_a_training_with_other_settings_that_is_under_way_is_not_called_unfinished(tmp_path):
    running, heard = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress()), Heard()
    other = replace(RECIPE, train=TrainSpec(epochs=4))
    with running.held() as free:
        assert free
        saved(running)
        UnfinishedTrainings.of(tmp_path, "sts", other, heard)
        assert heard.notes == []
    UnfinishedTrainings.of(tmp_path, "sts", other, heard)
    assert len(heard.notes) == 1


@pytest.mark.parametrize(
    "same",
    [
        replace(RECIPE, summary="said otherwise"),
        replace(RECIPE, train=replace(RECIPE.train, checkpoint_seconds=5.0)),
        replace(RECIPE, extract=replace(RECIPE.extract, cache="/elsewhere", batch_tokens=64)),
    ],
)
def test_what_changes_no_weight_is_the_same_training(same, tmp_path):
    saved(UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress()))
    heard = Heard()
    assert found(UnfinishedTrainings.of(tmp_path, "sts", same, heard), same) == {"epoch": 1}
    assert heard.notes == []


def test_the_folder_is_named_by_recipe_and_settings_and_another_recipes_is_not_its_own(tmp_path):
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    assert unfinished.path.parent == tmp_path / "unfinished"
    assert unfinished.path.name.startswith("sts-")
    saved(UnfinishedTrainings.of(tmp_path, "sts-large", RECIPE, NoProgress()))
    (tmp_path / "unfinished" / "sts-0123456789abcdef").write_text("a file of somebody's", "utf-8")
    heard = Heard()
    UnfinishedTrainings.of(tmp_path, "sts", RECIPE, heard)
    assert heard.notes == []


def test_other_seeds_are_another_training_and_the_first_stays(tmp_path):
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    saved(unfinished)
    assert found(unfinished, seeds=(1,)) is None
    assert found(unfinished, seeds=(0, 1)) is None
    assert found(unfinished) == {"epoch": 1}


OTHER = {
    "a text": replace(CORPUS, texts=("a", "b", "C")),
    "where texts part": replace(CORPUS, texts=("ab", "", "c")),
    "a target": replace(CORPUS, splits={"train": Rows(SIDES, np.array([0.0, 0.9]))}),
    "a row": replace(CORPUS, splits={"train": Rows(SIDES[::-1].copy(), np.array([0.0, 1.0]))}),
    "a split": replace(CORPUS, splits={"train": CORPUS.split("train"), "validation": CORPUS.split("train")}),
    "a label": replace(CORPUS, labels=("yes", "no")),
    "label sets": replace(CORPUS, splits={"train": Rows(SIDES, np.array([[0.0, 1.0], [1.0, 1.0]]))}),
    "other label sets": replace(CORPUS, splits={"train": Rows(SIDES, np.array([[1.0, 0.0], [1.0, 1.0]]))}),
    "two segments": replace(CORPUS, texts=(Segments("a", "b"), "b", "c")),
    "a word": replace(
        CORPUS,
        splits={
            "train": replace(CORPUS.split("train"), spans=Spans(np.zeros((1, 2), int), np.zeros(1, int), SIDES[0]))
        },
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_another_corpus_is_refused_and_nothing_is_lost(what, tmp_path):
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    saved(unfinished)
    with pytest.raises(CheckpointError, match=r"is of another training \(corpora\.probe = "):
        found(unfinished, corpus=OTHER[what])
    assert found(unfinished) == {"epoch": 1}


def test_latents_of_other_weights_are_refused(tmp_path):
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    saved(unfinished)
    with pytest.raises(CheckpointError, match=r"is of another training \(latents\.plan = "):
        found(unfinished, latents="other")


def test_the_same_corpus_read_again_is_the_same():
    again = replace(CORPUS, splits={"train": Rows(SIDES.copy(), np.array([0.0, 1.0]))}, notes=("read twice",))
    assert again.digest == CORPUS.digest
    assert len({one.digest for one in OTHER.values()} | {CORPUS.digest}) == len(OTHER) + 1


def test_variants_with_like_names_have_places_of_their_own(tmp_path):
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    paths = {
        unfinished.checkpoint_for(name, RECIPE, [0], {}, {}).path for name in ("a b", "a_b", "a/b", "a" * 90, "a" * 91)
    }
    assert len(paths) == 5
    assert {path.parent for path in paths} == {unfinished.path}


def test_what_is_kept_goes_when_the_run_is_written_and_the_folder_with_the_last(tmp_path):
    first, second = (UnfinishedTrainings.of(tmp_path, name, RECIPE, NoProgress()) for name in ("sts", "nli"))
    saved(first)
    saved(second)
    first.remove()
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == [second.path.name]
    second.remove()
    assert not (tmp_path / "unfinished").exists()
    second.remove()  # where nothing was kept, nothing is there


def test_another_run_that_puts_something_there_meanwhile_is_no_error(tmp_path, monkeypatch):
    first, second = (UnfinishedTrainings.of(tmp_path, name, RECIPE, NoProgress()) for name in ("sts", "nli"))
    saved(first)
    removed = type(tmp_path).rmdir

    def too_late(path):
        if path == first.path.parent:
            saved(second)
        removed(path)

    monkeypatch.setattr(type(tmp_path), "rmdir", too_late)
    monkeypatch.setattr(
        "permafrost.probes.training.resume.shutil.rmtree", lambda path, **_: [one.unlink() for one in path.iterdir()]
    )
    (first.path / "empty").touch()
    first.remove()
    assert found(second) == {"epoch": 1}


def of_text(backbone, cache) -> dict[str, str]:
    """What a training from the text on says that it depends on."""
    plan = CapturePlan(backbone=str(backbone), views=("mean",), max_tokens=32, compute_dtype="float32")
    recipe = replace(
        RECIPE, plan=plan, extract=ExtractSpec(cache=str(cache), device="cpu"), finetune=FinetuneSpec("none")
    )
    return Workspace(stage_one.PROVIDER, NoProgress()).latent_identities(recipe)


def test_a_training_from_the_text_on_knows_its_backbone(tmp_path, tiny):
    one, wide = (of_text(tiny("bert", width), tmp_path) for width in (32, 16))
    assert one == of_text(shutil.copytree(tiny("bert"), tmp_path / "copy"), tmp_path)
    assert one["tokenizer"] == wide["tokenizer"]
    assert one["weights"] != wide["weights"]
    unfinished = UnfinishedTrainings.of(tmp_path, "sts", RECIPE, NoProgress())
    unfinished.checkpoint_for("probe", RECIPE, [0], {}, one).save({})
    with pytest.raises(CheckpointError, match=r"is of another training \(latents\.weights = "):
        unfinished.checkpoint_for("probe", RECIPE, [0], {}, wide).load()


def test_every_setting_is_told_apart_by_the_fingerprint_that_names_the_folder():
    assert fingerprint(plain(RECIPE)) != fingerprint(plain(replace(RECIPE, train=TrainSpec(epochs=4))))


QUICK = (
    "from permafrost.probes.reports import report; from permafrost.probes.metrics import bootstrap\n"
    "report.write_report = lambda folder: None; bootstrap.RESAMPLES = 50"
)
SLOW = (
    "; import time, permafrost.probes.training.checkpoint as kept; written = kept.Checkpoint.save\n"
    "def save(one, state):\n"
    "    written(one, state)\n"
    "    time.sleep(0.3)\n"
    "kept.Checkpoint.save = save"
)
"""Every step takes so long that a kill comes between two of them."""


def killed(bench: Bench, recipe: str, settings: list[str], after: Callable[[str], bool]) -> None:
    """Run as a process of its own, and kill it in the middle of a training whose checkpoint is one of those wanted."""
    process = bench.process("run", recipe, settings=settings, before=QUICK + SLOW)
    deadline = time.monotonic() + 120
    try:
        while not any(after(path.name) for path in bench.runs.glob("unfinished/*/*.safetensors")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in bench.runs.iterdir()] == ["unfinished"]


def same_but_for_time(first, second) -> None:
    """Every table of two run folders, without what was measured of the machine."""
    names = {path.relative_to(first) for path in first.rglob("*.csv")}
    assert names == {path.relative_to(second) for path in second.rglob("*.csv")}
    for name in names:
        one, other = (
            pd.read_csv(run / name).drop(columns=["seconds", "memory"], errors="ignore") for run in (first, second)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_run_of_blocks_that_is_killed_and_run_again_ends_with_the_same_figures(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    path = write(tmp_path / "topics.csv", ["sentence", "label", "split"],
                 [(row[0], "same" if row[2] > 0.4 else "other", row[3]) for row in pairs()])  # fmt: skip
    settings = bench.settings(
        f"corpus.path={path}", "corpus.name=", "corpus.columns=sentence,label", "corpus.target=class", "finetune.cut=1",
        "plan.max_tokens=32", "plan.stored_dtype=float32", "train.epochs=2", "train.batch_rows=16",
        "train.compute_dtype=float32", "train.checkpoint_seconds=0",
    )  # fmt: skip
    killed(bench, "sentiment-tuned", settings, lambda name: True)
    resumed = api.run("sentiment-tuned", settings, bench.runs, heard := Heard())
    assert any("resuming after" in note for note in heard.notes)
    whole = api.run("sentiment-tuned", settings, bench.folder / "whole")
    assert resumed.metrics == whole.metrics
    same_but_for_time(resumed.path, whole.path)
    assert [one.name for one in bench.runs.iterdir()] == [resumed.path.name]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_run_of_tasks_that_is_killed_in_its_second_variant_ends_with_the_same_figures(tmp_path, tiny):
    tasks = Tasks(Bench(tmp_path, tiny("bert")))
    variants = (("cut", '"finetune.cut" = 2'), ("all", '"finetune.cut" = "none", "multitask.keep" = "one"'))
    recipe = tasks.recipe(*variants)
    settings = tasks.bench.settings("train.epochs=2", "balancing.balancer=pcgrad", "train.checkpoint_seconds=0",
                                    "train.batch_rows=16")  # fmt: skip
    killed(tasks.bench, recipe, settings, lambda name: name.startswith("all-"))
    resumed = api.run(recipe, settings, tasks.bench.runs, heard := Heard())
    assert any("training cut, seed 0: already finished, after 2 epochs" in note for note in heard.notes)
    assert any("training all, seed 0: resuming after" in note for note in heard.notes)
    whole = api.run(recipe, settings, tasks.bench.folder / "whole")
    assert resumed.metrics == whole.metrics
    same_but_for_time(resumed.path, whole.path)
    assert [one.name for one in tasks.bench.runs.iterdir()] == [resumed.path.name]
