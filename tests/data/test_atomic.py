"""Atomic writes: a file or folder is there as a whole or not at all, and nothing else is left."""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from permafrost.data.atomic import (
    file_lock,
    folder_lock,
    move_into_place,
    open_regular,
    remove_leftovers,
    temporary_path,
    write_atomically,
)
from permafrost.data.errors import MachineError
from permafrost.data.memo import Memo


def made(path, content):
    """A file of this content, or a folder with such files."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    path.mkdir()
    for name, inner in content.items():
        made(path / name, inner)


def found(path):
    """The content that :func:`made` makes."""
    return path.read_bytes() if path.is_file() else {inner.name: found(inner) for inner in path.iterdir()}


@pytest.mark.parametrize("content", [b"", b"text", {}, {"a": b"1", "inner": {"b": b"2"}}], ids=str)
def test_what_is_moved_into_place_is_there_as_it_was_made_and_alone(tmp_path, content):
    with temporary_path(tmp_path / "new") as temporary:
        made(temporary, content)
        move_into_place(temporary, tmp_path / "new" / "target")
    assert found(tmp_path / "new") == {"target": content}


@pytest.mark.parametrize("content", [b"text", {"a": b"1", "inner": {"b": b"2"}}], ids=str)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_leaves_what_was_there_before(tmp_path, monkeypatch, content, call):
    made(tmp_path / "target", content)
    monkeypatch.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with temporary_path(tmp_path) as temporary:
        made(temporary, content)
        with pytest.raises(OSError, match="disk"):
            move_into_place(temporary, tmp_path / "target")
    assert found(tmp_path) == {"target": content}


def test_every_file_and_folder_is_synced_before_the_rename(tmp_path, monkeypatch):
    events, sync, replace = [], os.fsync, os.replace

    def noted(handle):
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    with temporary_path(tmp_path) as temporary:
        made(temporary, {"a": b"1", "inner": {"b": b"2"}})
        parts = [temporary, *temporary.rglob("*")]
        move_into_place(temporary, tmp_path / "target")
    assert events == [*map(str, parts), "rename", str(tmp_path)]


def test_a_check_that_fails_keeps_the_file_before(tmp_path):
    write_atomically(tmp_path / "file", b"before")
    with pytest.raises(ValueError, match="wrong"):
        write_atomically(tmp_path / "file", b"after", lambda path: (_ for _ in ()).throw(ValueError("wrong")))
    assert found(tmp_path) == {"file": b"before"}


def temporary_name(prefix: str = "", digits: str = "0" * 32, owner: str = "") -> str:
    return f".{prefix}{digits}{owner and '.' + owner}.tmp"


def test_leftovers_of_a_prefix_are_removed_and_no_others(tmp_path):
    left = [temporary_name("a[1].", digit * 32) for digit in "0f"]
    others = [temporary_name("a1."), ".a[1].replaced.tmp", temporary_name("a[1].")[1:], temporary_name("a[1].")[:-4]]
    for name in [*left, *others]:
        (tmp_path / name).mkdir()
    assert {path.name for path in remove_leftovers(tmp_path, "a[1].", alone=True)} == set(left)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_leftover_is_judged_by_its_owner_and_only_of_another_host_by_its_age(tmp_path):
    with temporary_path(tmp_path, "p~") as mine:
        owner = mine.name.split(".")[-2]
        assert mine.name == temporary_name("p~", mine.name[3:35], owner)
        pid, _, since = owner.partition("-")
        reused, ended = f"{pid}-1@{since.partition('@')[2]}", f"999999999-{since}"
        old, new = "1-1@elsewhere", "2-1@elsewhere"
        names = {who: temporary_name("p~", owner=who) for who in (reused, ended, old, new, "")}
        for who, name in names.items():
            (tmp_path / name).touch()
            if who in (old, ""):
                os.utime(tmp_path / name, (0, 0))
        mine.touch()
        os.utime(mine, (0, 0))
        removed = {path.name for path in remove_leftovers(tmp_path)}
        assert removed == {names[who] for who in (reused, ended, old, "")}
        assert mine.exists()


def test_a_lock_is_taken_also_while_others_remove_the_empty_folder(tmp_path):
    held, ends = [0], time.monotonic() + 0.5

    def work(_: int) -> None:
        while time.monotonic() < ends:
            lock = tmp_path / "folder" / "lock"
            with file_lock(lock):
                held[0] += 1
                assert held[0] == 1
                held[0] -= 1
                lock.unlink()
                with contextlib.suppress(OSError):
                    lock.parent.rmdir()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_a_folder_is_held_by_one_and_nothing_is_put_in_it(tmp_path):
    folder = tmp_path / "a" / "b"
    with folder_lock(folder) as first, folder_lock(folder) as second:
        assert (first, second) == (True, False)
        assert not list(folder.iterdir())
    assert not folder.exists()
    folder.mkdir()
    for _ in range(2):
        with folder_lock(folder) as again:
            assert again
    assert folder.exists()
    with folder_lock(tmp_path / "file" / "x") as free, folder_lock(Path("/proc/none")) as nowhere:
        assert (free, nowhere) == (True, True)


@pytest.mark.parametrize("mode", ["rb", "ab", "r+b"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, mode, kind):
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "loop" else "/dev/zero")
    with pytest.raises(MachineError, match=f"{path} is no regular file"):
        open_regular(path, mode)
    with pytest.raises(MachineError, match="no regular file"), file_lock(path):
        pass
    memo = Memo(path)
    if kind != "folder":
        assert memo.get("key", lambda: "value") == memo.read("key") == "value"
