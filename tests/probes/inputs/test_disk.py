"""What is trained from disk is what is trained from memory, to the last digit, and nothing stays on the disk."""

import os
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from permafrost.data.errors import MachineError
from permafrost.data.scratch import record_file
from permafrost.data.scratch.record_file import RecordFile
from permafrost.data.spec import SpecError
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.inputs import latents as latents_module
from permafrost.probes.inputs.disk import DiskInputs
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.inputs.token_inputs import read_inputs
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives.base import untrained_cosines
from permafrost.probes.objectives.heads import predictions
from permafrost.probes.training import row_order
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import pretrain
from permafrost.probes.training.step import StepRunner
from permafrost.probes.variants.caches import InputCache
from permafrost.probes.variants.members import initial_probe, stackable_groups
from permafrost.probes.variants.train_group import train_group
from tests.support.stored import both, limited, of_two_plans
from tests.support.synthetic import classed, inputs, labelled, layout, ranked, scored, sentences
from tests.support.trainings import member_config

TRAIN = TrainSpec(epochs=3, batch_rows=4, learning_rate=0.01)
KINDS = {"score": scored, "class": lambda source: classed(source, sides=1), "labels": labelled, "rank": ranked}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A few rows are many."""
    monkeypatch.setattr(row_order, "BLOCK_ROWS", 8)
    monkeypatch.setattr(row_order, "PIECE_ROWS", 2)
    monkeypatch.setattr(latents_module, "WHOLE_TEXTS", 10)
    monkeypatch.setattr(latents_module, "SUMMED_TEXTS", 4)


def trained(recipe: Recipe, found: ProbeInputs, corpus, subsets=((0, 1, 2, 3),), checkpoint=None):
    """The members of a training that has one for each seed and subset of layers, side by side."""
    configs = [member_config(recipe, found, corpus, seed, layers) for layers in subsets for seed in recipe.train.seeds]
    (group,) = stackable_groups(configs)
    return train_group({PROBE: group}, recipe, checkpoint=checkpoint).members[PROBE]


def assert_same(members, others, corpus) -> None:
    for one, other in zip(members, others, strict=True):
        assert one.history == other.history
        for name, value in one.probe.state_dict().items():
            assert torch.equal(value, other.probe.state_dict()[name]), name
        for split in corpus.splits.values():
            said = [predictions(member.probe, member.config.inputs, split) for member in (one, other)]
            np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("seeds", [(0,), (0, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_from_disk_is_that_from_memory(kind, seeds, tmp_path):
    memory, disk = both(tmp_path, inputs())
    corpus = KINDS[kind](memory)
    recipe = Recipe(probe=ProbeSpec(encoder="linear", noise=0.1), train=replace(TRAIN, seeds=seeds))
    assert_same(*(trained(recipe, found, corpus) for found in (memory, disk)), corpus)
    if kind == "score":
        said = [untrained_cosines(found, corpus.split("train")) for found in (memory, disk)]
        np.testing.assert_array_equal(*said)


def test_members_that_read_some_of_the_layers_end_as_from_memory(tmp_path):
    memory, disk = both(tmp_path, inputs())
    corpus, recipe = scored(memory), Recipe(train=replace(TRAIN, seeds=(0, 1)))
    subsets = [(0, 3), (2,), (1, 2, 3)]
    assert_same(*(trained(recipe, found, corpus, subsets) for found in (memory, disk)), corpus)


@pytest.mark.parametrize("task", ["autoencoder", "classes"])
def test_an_encoder_pretrained_from_disk_is_that_from_memory(task, tmp_path):
    memory, disk = both(tmp_path, inputs())
    corpus = sentences(memory) if task == "autoencoder" else classed(memory)
    spec = PretrainingSpec(task=task, train=replace(TRAIN, batch_rows=8))
    ends = []
    for found in (memory, disk):
        probe = initial_probe(member_config(Recipe(train=TRAIN), found, scored(memory)))
        ends.append(pretrain(probe, spec, corpus, found, seed=0))
    one, other = ends
    assert (one.histories, one.layers) == (other.histories, other.layers)
    for states in zip(one.by_layer, other.by_layer, strict=True):
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_training_from_disk_that_is_killed_ends_as_one_that_was_not(tmp_path, monkeypatch):
    memory, disk = both(tmp_path, inputs())
    corpus, recipe = scored(memory), Recipe(train=replace(TRAIN, seeds=(0, 1)))
    whole = trained(recipe, memory, corpus)
    checkpoint = Checkpoint(tmp_path / "training.safetensors", {}, 0.0)
    run, steps = StepRunner.run, iter(range(100))

    def killed_in_step_7(self, *arguments):
        if next(steps) == 7:
            raise KeyboardInterrupt
        return run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "run", killed_in_step_7)
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, disk, corpus, checkpoint=checkpoint)
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    _, again = both(tmp_path / "again", inputs())
    assert_same(whole, trained(recipe, again, corpus, checkpoint=checkpoint), corpus)


@pytest.mark.parametrize("dtypes", [("bfloat16", "float16"), ("float32", "int8"), ("int8", "int8")])
def test_plans_of_any_width_and_dtype_are_the_same_from_disk(dtypes, tmp_path):
    plans, texts, columns = of_two_plans(tmp_path, dtypes)
    memory, disk = (read_inputs(plans, texts, columns, limit) for limit in (None, limited(tmp_path)))
    assert isinstance(disk, DiskInputs)
    assert (disk.widths, disk.columns) == (memory.widths, memory.columns) == ((6, 3, 3, 6), tuple(columns))
    rows = np.random.default_rng(1).integers(0, len(texts), (2, 9, 2))
    for members, orders in (([(0, 1, 2, 3)], [0]), ([(3, 1), (2,)], [0, 1]), ([(1, 2), (0, 1)], [1, 0])):
        reads = shared_reads(layout(members, disk.widths), np.array(orders))
        for one, other in zip(memory.text_states(reads, rows), disk.text_states(reads, rows), strict=True):
            assert torch.equal(one, other)
            assert one.stride() == other.stride()


@pytest.mark.parametrize("scale", ["layer", "dimension"])
@pytest.mark.parametrize("center", [True, False])
def test_moments_of_many_texts_are_sums_over_parts_wherever_the_latents_are(scale, center, tmp_path, monkeypatch):
    memory, disk = both(tmp_path, inputs((8, 8, 6, 4)))
    texts = np.arange(5, 50)
    found = [one.moments(texts, center, scale) for one in (memory, disk)]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    monkeypatch.setattr(latents_module, "WHOLE_TEXTS", 1 << 16)
    memory._moments.clear()
    for parts, whole in zip(found[0], memory.moments(texts, center, scale), strict=True):
        torch.testing.assert_close(parts, whole)


def test_rows_are_read_from_what_was_announced_piece_by_piece(tmp_path, monkeypatch):
    _, disk = both(tmp_path, inputs(texts=240))
    announced, read = list[tuple[int, int]](), list[np.ndarray]()
    size = disk.latents.file.record_bytes
    monkeypatch.setattr(record_file, "NEAR_RECORDS", 4)
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, at, length, advice: announced.append((at // size, (at + length) // size))
    )
    original = RecordFile.read

    def noted(self, indices, start=0, stop=None):
        covered = np.concatenate([np.arange(*part) for part in announced]) if announced else []
        read.append(np.isin(indices, covered))
        return original(self, indices, start, stop)

    corpus = classed(disk_values(disk), sides=1)
    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "read", noted)
        recipe = Recipe(train=replace(TRAIN, epochs=1))
        configs = [member_config(recipe, disk, corpus)]
        group = [next(iter(stackable_groups(configs)))[0]]
        read.clear()
        train_group({PROBE: group}, recipe)
    steps = -(-len(corpus.split("train")) // TRAIN.batch_rows)
    assert all(part.all() for part in read[:steps])


def disk_values(disk: DiskInputs) -> SimpleNamespace:
    """What corpora of made-up latents are drawn from."""
    return SimpleNamespace(values=torch.stack(list(disk.pooled_layers(np.arange(disk.latents.file.records)))))


def test_an_error_of_the_thread_is_that_of_the_training(tmp_path, monkeypatch):
    memory, disk = both(tmp_path, inputs())
    corpus = scored(memory)
    configs = [member_config(Recipe(train=TRAIN), disk, corpus)]
    (group,) = stackable_groups(configs)

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(MachineError, match=r"temporary file of latents cannot be read \(Input/output error\)"):
        train_group({PROBE: group}, Recipe(train=TRAIN))
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_nothing_is_left_in_the_cache_and_a_full_disk_is_one_line(tmp_path, monkeypatch):
    plans, texts, columns = of_two_plans(tmp_path)
    stores = sorted(path.name for path in tmp_path.iterdir())
    leftover = tmp_path / f".records-{'0' * 32}.tmp"
    leftover.touch()
    os.utime(leftover, (0, 0))
    kept = read_inputs(plans, texts, columns, limited(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == stores
    assert isinstance(kept, DiskInputs)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
        with pytest.raises(MachineError, match=r"a temporary file of [\d,]+ bytes is needed there, and 100 bytes are"):
            read_inputs(plans, texts, columns, limited(tmp_path))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match=r"No space left on device.*set extract.cache to another disk, or raise"):
        read_inputs(plans, texts, columns, limited(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == stores


def test_workers_share_one_file_of_what_does_not_fit(tmp_path):
    memory, disk = both(tmp_path / "stores", inputs((8, 8, 6, 4)))
    folder = tmp_path / "shared"
    folder.mkdir()
    made = list[int]()

    def make() -> DiskInputs:
        made.append(1)
        return disk

    first, second = (SharedInputs(folder)("key", make) for _ in range(2))
    texts = np.array([7, 3, 3, 50])
    for layer in range(4):
        for found in (first, second):
            assert torch.equal(found.pooled(layer, texts), memory.pooled(layer, texts))
    assert made == [1]


def test_less_memory_than_a_batch_takes_is_refused(tmp_path):
    memory, _ = both(tmp_path, inputs())
    recipe = Recipe(train=replace(TRAIN, memory="1000"))
    expected = "train.memory = 1000 is less than one batch of 4 rows takes, 1,024 bytes: raise it, or lower train.batch"
    with pytest.raises(SpecError, match=expected):
        trained(recipe, memory, scored(memory))
    trained(replace(recipe, train=replace(recipe.train, memory="1024")), memory, scored(memory))


def test_inputs_that_are_kept_make_room_for_others_and_those_in_use_count(tmp_path):
    cache, sizes = InputCache(), inputs().values.nbytes
    kept = cache("kept", inputs)
    assert cache.make_room(sizes, 3 * sizes) == 2 * sizes
    assert cache.make_room(sizes, sizes) == 0  # it is in use
    del kept
    assert cache("kept", inputs) is cache("kept", inputs)
    assert cache.make_room(sizes, sizes) == sizes
