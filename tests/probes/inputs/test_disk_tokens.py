"""What is trained on tokens from disk is what is trained on those in memory, and their reads are announced."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from permafrost.data.errors import MachineError
from permafrost.data.ragged import TokenLatents
from permafrost.data.scratch.record_file import RecordFile
from permafrost.data.store.block import Block
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.store.token_reader import TokenReader
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs import disk_tokens
from permafrost.probes.inputs.disk_tokens import DiskTokens
from permafrost.probes.inputs.read_ahead import ReadAhead
from permafrost.probes.inputs.token_inputs import TokenInputs, stored_tokens
from permafrost.probes.objectives.heads import predictions
from permafrost.probes.training import row_order
from permafrost.probes.variants.members import stackable_groups
from permafrost.probes.variants.train_group import train_group
from tests.support.stored import IDENTITY
from tests.support.synthetic import answered, tagged
from tests.support.trainings import member_config

RECIPE = Recipe(probe=ProbeSpec(encoder="none", mixer="softmax"), train=TrainSpec(epochs=2, batch_rows=4))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A few rows are many."""
    monkeypatch.setattr(row_order, "BLOCK_ROWS", 8)
    monkeypatch.setattr(row_order, "PIECE_ROWS", 2)


def reader_of(folder: Path, held: TokenInputs) -> TokenReader:
    """A reader of the same states from a store in whose shards the windows are in another order."""
    windows, layers = len(held.tokens.lengths), range(len(held.columns))
    store, names = LatentStore.at(folder, "model", IDENTITY), [str(window) for window in range(windows)]
    for part in np.array_split(np.random.default_rng(5).permutation(windows), 3):
        tokens = held.tokens.tokens_of(part)
        lengths = held.tokens.lengths[part]
        latents = TokenLatents(
            held.read(part, layers).numpy(),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.zeros(len(tokens), np.int32),
            held.tokens.spans[tokens].astype(np.int32),
        )
        keys = text_keys([names[window] for window in part])
        columns = {"tokens": tuple(layers)}
        block = Block(keys=keys, lengths=lengths.astype(np.int32), columns=columns, latents={}, tokens=latents)
        store.append(block, {"layers": len(layers)})
    return store.token_reader(names, layers)


def from_disk(folder: Path, held: TokenInputs) -> TokenInputs:
    reader = reader_of(folder, held)
    disk = DiskTokens.write(folder, reader, held.tokens)
    return stored_tokens(reader.read, held.tokens, held.columns, held.width, disk)


@pytest.mark.parametrize("made", [tagged, answered])
def test_a_training_on_tokens_from_disk_is_that_from_memory(made, tmp_path, monkeypatch):
    memory, corpus = made()
    disk, ends = from_disk(tmp_path, memory), []
    monkeypatch.setattr(TokenReader, "read", lambda *given: pytest.fail("the store is read"))
    for inputs in (memory, disk):
        (group,) = stackable_groups([member_config(RECIPE, inputs, corpus)])
        ends.append(train_group({PROBE: group}, RECIPE).members[PROBE][0])
    assert ends[0].history == ends[1].history
    for name, value in ends[0].probe.state_dict().items():
        assert torch.equal(value, ends[1].probe.state_dict()[name]), name
    for split in corpus.splits.values():
        np.testing.assert_array_equal(*(predictions(end.probe, end.config.inputs, split) for end in ends))


@pytest.mark.parametrize("made", [tagged, answered])
def test_windows_are_announced_before_they_are_read_and_a_large_block_is_not(made, tmp_path, monkeypatch):
    memory, corpus = made()
    disk = from_disk(tmp_path, memory)
    assert disk.disk
    announced, read = list[tuple[int, int]](), list[bool]()
    size, original = disk.disk.latents.file.record_bytes, RecordFile.read
    monkeypatch.setattr(ReadAhead, "start", lambda self, read: read())  # the thread itself may be late
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, at, length, advice: announced.append((at // size, (at + length) // size))
    )

    def noted(self, indices, start=0, stop=None):
        covered = np.concatenate([np.arange(*part) for part in announced]) if announced else []
        read.append(bool(np.isin(indices, covered).all()))
        return original(self, indices, start, stop)

    recipe = replace(RECIPE, train=replace(RECIPE.train, epochs=1))
    (group,) = stackable_groups([member_config(recipe, disk, corpus)])
    monkeypatch.setattr(RecordFile, "read", noted)
    train_group({PROBE: group}, recipe)
    steps = -(-len(corpus.split("train")) // recipe.train.batch_rows)
    assert all(read[:steps])
    monkeypatch.setattr(disk_tokens, "MOST_ANNOUNCED", size)
    announced.clear()
    disk.disk.will_need(np.arange(4))
    disk.disk.end_prefetch()
    assert not announced


def test_a_disk_without_room_for_the_tokens_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    reader = reader_of(tmp_path, tagged()[0])
    before = sorted(path.name for path in tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
        with pytest.raises(MachineError, match=r"a temporary file of [\d,]+ bytes is needed there, and 100 bytes are"):
            DiskTokens.write(tmp_path, reader, tagged()[0].tokens)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match=r"No space left on device.*set extract.cache to another disk, or raise"):
        DiskTokens.write(tmp_path, reader, tagged()[0].tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
