"""Checkpoints: what comes back is what went in; another training, a broken file and a full disk each say so."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from permafrost.data.digests import DamageError
from permafrost.data.errors import CheckpointError, MachineError
from permafrost.probes.training import checkpoint as checkpoint_module
from permafrost.probes.training.checkpoint import Checkpoint, flatten_state, unflatten_state

ORIGIN = {"recipe": {"train": {"epochs": 3, "rates": {}}, "tasks": [{"name": "topic"}]}, "seeds": (0, 1)}


def at(folder: Path, origin: dict = ORIGIN, seconds: float = 0) -> Checkpoint:
    return Checkpoint(folder / "made" / "both-0.safetensors", origin, seconds)


def same(found: object, expected: object) -> None:
    """Of one structure, of one type at every leaf, and to the last bit."""
    assert type(found) is type(expected)
    match expected:
        case dict():
            assert list(found) == list(expected)
            for key, value in expected.items():
                same(found[key], value)
        case list() | tuple():
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                same(one, other)
        case torch.Tensor() | np.ndarray():
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert bytes(np.asarray(found)) == bytes(np.asarray(expected))
        case float():
            assert found.hex() == expected.hex()
        case _:
            assert found == expected


STATES = {
    "tensors": {
        "nothing": torch.zeros(0, 3),
        "one": torch.tensor(3.5, dtype=torch.float64),
        "bits": torch.tensor([True, False]),
        "whole": torch.arange(6).reshape(2, 3),
        "nan": torch.tensor([math.nan, math.inf, -0.0]),
        "generator": torch.Generator().manual_seed(3).get_state(),
    },
    "arrays": {"one": np.array(2), "rows": np.arange(6, dtype=np.uint16).reshape(3, 2).T, "bits": np.array([True])},
    "plain": {"a": None, "b": True, "c": 1, "d": "ü\n\0", "e": (1, (2.0,)), "f": {}},
    "floats": {"a": [math.nan, math.inf, -math.inf, -0.0, 0.1, 5e-324]},
    "keys": {
        "a.b": torch.ones(1),
        "a": {"b": torch.zeros(1), "": torch.ones(2)},
        "__metadata__": torch.ones(3),
        0: {"tensor": 7},
    },
    "draws": {"generators": [np.random.default_rng(7).bit_generator.state]},
    "lists": {"": [torch.ones(2), [np.zeros(1), {"dict": []}]], "list": [[], ()]},
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back_as_it_was(name, tmp_path):
    at(tmp_path).save(STATES[name])
    same(at(tmp_path).load(), STATES[name])


def test_numbers_of_numpy_come_back_as_pythons(tmp_path):
    at(tmp_path).save({"a": np.float32(0.1), "b": [np.int64(3), np.bool_(True), np.float64("nan")]})
    same(at(tmp_path).load(), {"a": float(np.float32(0.1)), "b": [3, True, math.nan]})


def test_tensors_that_share_memory_or_show_a_part_of_it_come_back_apart(tmp_path):
    table = torch.arange(12.0).reshape(3, 4)
    state = {"table": table, "again": table, "turned": table.T, "row": table[1], "weight": nn.Parameter(table)}
    at(tmp_path).save(state)
    found = at(tmp_path).load()
    for name, value in state.items():
        assert torch.equal(found[name], value)
    found["table"].zero_()
    assert torch.equal(found["again"], table)
    assert at(tmp_path).path.stat().st_size < 4096  # a row does not bring its table along


def test_a_bfloat16_tensor_keeps_its_bits(tmp_path):
    value = torch.randn(5).bfloat16()
    at(tmp_path).save({"a": value})
    assert torch.equal(at(tmp_path).load()["a"], value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [object()]}}, "a.b.0: a checkpoint cannot hold object"),
        ({"a": np.array(["x"])}, "a: a checkpoint cannot hold <U1"),
        ({"a": {1.5: 0}}, "a: a key must be a string or an integer, got 1.5"),
        ({True: 0}, "the state: a key must be"),
    ],
)
def test_what_would_not_come_back_is_not_taken(state, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        at(tmp_path).save(state)
    assert not list(tmp_path.iterdir())


def training(steps: int, checkpoint: Checkpoint, stop: int | None = None) -> list[float]:
    """Losses of a small training that goes on from its checkpoint where there is one."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    draws = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    with torch.no_grad():
        for place, part in enumerate(model.parameters()):
            part.fill_(0.1 * place)
    losses = []
    if (state := checkpoint.load()) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        draws.bit_generator.state = state["draws"]
        losses = state["losses"]
    for _ in range(len(losses), stop or steps):
        x = torch.from_numpy(draws.normal(size=(16, 4)).astype(np.float32))
        loss = (model(x)[:, 0] - x.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "draws": draws.bit_generator.state}
    checkpoint.save({**state, "losses": losses})
    return losses


def test_a_training_goes_on_as_if_it_had_never_stopped(tmp_path):
    whole = training(12, at(tmp_path / "whole"))
    assert training(12, at(tmp_path), stop=5) == whole[:5]
    assert training(12, at(tmp_path)) == whole


def test_there_is_no_state_before_the_first_save(tmp_path):
    checkpoint = at(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save({"a": 1})
    assert checkpoint.load() == {"a": 1}


@pytest.mark.parametrize("saved", [True, False])
def test_what_a_killed_save_left_goes_when_the_state_is_asked_for_and_that_of_others_stays(saved, tmp_path):
    checkpoint = at(tmp_path)
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    if saved:
        checkpoint.save({"a": 1})
    digits = "0123456789abcdef" * 2
    killed = checkpoint.path.parent / f".both-0.safetensors.{digits}.tmp"
    other = checkpoint.path.parent / f".both-1.safetensors.{digits}.tmp"
    for folder in (killed, other):
        folder.mkdir()
        (folder / "part").touch()
    assert checkpoint.load() == ({"a": 1} if saved else None)
    assert set(checkpoint.path.parent.iterdir()) == {other, *([checkpoint.path] if saved else [])}


def test_a_state_is_due_when_the_seconds_have_passed_since_the_last(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now)
    checkpoint = at(tmp_path, seconds=10)
    seen = []
    for now in (100.0, 109.0, 110.0, 115.0):  # noqa: B007
        seen.append(checkpoint.due())
    checkpoint.save({})
    for now in (116.0, 124.0, 125.0):  # noqa: B007
        seen.append(checkpoint.due())
    assert seen == [False, False, True, True, False, False, True]
    assert at(tmp_path, seconds=0).due()
    assert not at(tmp_path, seconds=math.inf).due()


def test_the_state_is_in_a_safetensors_file_under_dotted_names(tmp_path):
    at(tmp_path).save({"weights": {"encoder.bias": torch.ones(2)}, "best": [{"value": np.zeros(3)}], "epoch": 2})
    with safe_open(at(tmp_path).path, "pt") as file:
        assert sorted(file.keys()) == ["best.0.value", "weights.encoder.bias"]
        assert json.loads(file.metadata()["origin"])["recipe.train.epochs"] == "3"


def test_a_checkpoint_of_another_training_names_three_settings_and_what_to_do(tmp_path):
    at(tmp_path).save({})
    train = {"epochs": 5, "rates": {"backbone": 2e-5}}
    with pytest.raises(CheckpointError) as caught:
        at(tmp_path, {"recipe": {"train": train, "tasks": [{"name": "tone"}]}, "seeds": [0]}).load()
    assert str(caught.value) == (
        f"{at(tmp_path).path} is of another training (recipe.train.epochs = 3 there, 5 here; "
        'recipe.train.rates.backbone = absent there, 2e-05 here; recipe.tasks.0.name = "topic" there, "tone" here; '
        "and 1 more); restore these settings to resume, or remove both-0.safetensors to start over."
    )


def test_long_and_unprintable_values_are_shown_in_one_short_line(tmp_path):
    at(tmp_path, {"a": "x" * 500, "b\n\x1b": "\x9b1m"}).save({})
    with pytest.raises(CheckpointError) as caught:
        at(tmp_path, {"a": "y"}).load()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


def test_an_origin_is_the_same_as_a_list_or_a_tuple_and_in_any_order(tmp_path):
    at(tmp_path, {"a": {"b": (1, 2), "c": math.nan}, "d": []}).save({"x": 1})
    assert at(tmp_path, {"d": (), "a": {"c": math.nan, "b": [1, 2]}}).load() == {"x": 1}


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[:-7])
        case "a flipped bit":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        case "text":
            path.write_text("loss 0.3 " * 50)
        case "weights from elsewhere":
            save_file({"a": torch.ones(2)}, path)


@pytest.mark.parametrize("how", ["empty", "truncated", "a flipped bit", "text", "weights from elsewhere"])
def test_a_broken_or_foreign_file_is_named_with_the_way_out(how, tmp_path):
    at(tmp_path).save({"a": torch.randn(50), "b": "text"})
    damaged(at(tmp_path).path, how)
    with pytest.raises(CheckpointError if how == "weights from elsewhere" else DamageError) as caught:
        at(tmp_path).load()
    message = str(caught.value)
    assert message.startswith(str(at(tmp_path).path))
    assert message.endswith("remove it to start over.")
    assert "\n" not in message
    assert at(tmp_path).path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "["},
        {"origin": "[]"},
        {"origin": '{"a": 1}'},
        {"state": "[" * 200_000},
        {"state": '{"dict": [["a", {"tensor": "absent"}]]}'},
        {"state": '{"dict": 3}'},
        {"state": '{"run": []}'},
        {"state": "{}"},
        {"state": "7"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_file_made_to_mislead_is_refused(changes, tmp_path, monkeypatch):
    at(tmp_path).save({})
    with safe_open(at(tmp_path).path, "pt") as file:
        told = file.metadata() | changes
    monkeypatch.setattr(checkpoint_module, "_digest", lambda *_: told["digest"])
    save_file({}, at(tmp_path).path, told)
    with pytest.raises((CheckpointError, DamageError), match="remove"):
        at(tmp_path).load()


def test_no_flipped_bit_of_a_checkpoint_is_resumed_from(tmp_path):
    """Of 400 flips in a small file, each is refused by a line that names it, or changes nothing that is read."""
    state = {"weights": torch.randn(3, 4), "best": [0.5, None, "text"], "epoch": 3}
    origin = {"recipe": {"epochs": 7}, "seeds": [0, 1]}
    at(tmp_path, origin).save(state)
    path, rng = at(tmp_path).path, random.Random(0)
    content = path.read_bytes()
    for _ in range(400):
        place = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        found = loaded(at(tmp_path, origin))
        if isinstance(found, str):
            assert found.startswith(str(path))
            assert "\n" not in found
        else:
            torch.testing.assert_close(found, state, rtol=0, atol=0)


def loaded(checkpoint):
    """Its state, or what is said in the place of it."""
    try:
        return checkpoint.load()
    except (CheckpointError, DamageError) as error:
        return str(error)


def test_a_save_that_fails_leaves_the_state_before_it(tmp_path, monkeypatch):
    checkpoint = at(tmp_path)
    for before in ("none was saved before", "the state saved before is safe in it"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", raising(OSError(28, "No space left on device")))
            with pytest.raises(MachineError, match=rf"cannot be written \(No space left on device\); {before}"):
                checkpoint.save({"a": 2})
        assert not list(checkpoint.path.parent.glob(".*"))
        checkpoint.save({"a": 1})
        assert checkpoint.load() == {"a": 1}


def raising(error: Exception):
    def call(*_: object) -> None:
        raise error

    return call


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from permafrost.probes.training.checkpoint import Checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    Checkpoint(Path(sys.argv[1]), {}, 0).save({"a": torch.zeros(100_000)})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_that_the_system_does_not_take_is_the_machines_fault(tmp_path):
    code = [sys.executable, "-c", FULL, str(tmp_path / "one")]
    found = subprocess.run(code, capture_output=True, text=True, timeout=120, check=True).stdout
    assert found.startswith(f"MachineError {tmp_path}/one cannot be written (I/O error: File too large")
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_or_no_file_is_the_machines_fault(tmp_path):
    (tmp_path / "made").write_text("a file")
    with pytest.raises(MachineError, match="cannot be written"):
        at(tmp_path).save({})
    (tmp_path / "made").unlink()
    at(tmp_path).path.mkdir(parents=True)
    with pytest.raises(MachineError, match="cannot be read"):
        at(tmp_path).load()


KILLED = """
import sys, torch
from pathlib import Path
from permafrost.probes.training.checkpoint import Checkpoint
checkpoint, number = Checkpoint(Path(sys.argv[1]), {}, 0), 0
while True:
    checkpoint.save({"number": number, "part": torch.full((200_000,), float(number))})
    print(number, flush=True)
    number += 1
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_kill_at_any_time_leaves_a_whole_state(tmp_path):
    path = tmp_path / "one.safetensors"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    saved = [int(process.stdout.readline()) for _ in range(5)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    state = Checkpoint(path, {}, 0).load()
    assert state["number"] >= saved
    assert (state["part"] == state["number"]).all()


def test_what_was_loaded_outlives_its_file(tmp_path):
    at(tmp_path).save({"a": torch.arange(1000), "b": np.arange(3)})
    state = at(tmp_path).load()
    at(tmp_path).save({"a": torch.zeros(1000)})
    shutil.rmtree(tmp_path / "made")
    assert state["a"].sum() == 499_500
    state["b"] += 1  # and may be written to


def test_a_tree_taken_apart_is_one_that_json_holds():
    tree, tensors = flatten_state(STATES["lists"])
    same(unflatten_state(json.loads(json.dumps(tree)), tensors), STATES["lists"])
