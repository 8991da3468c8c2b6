"""Files that are damaged after they were written, shards, run folders, journals: what is read is right, or refused."""

import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from permafrost.data.errors import PermafrostError
from permafrost.data.progress import NoProgress
from permafrost.probes.search.journal import Journal
from tests.faults.campaign import Fault, Outcome
from tests.faults.process import Ended, in_process, run_command
from tests.faults.workspace import Workspace, compared, told
from tests.support.damage import attempted, loaded
from tests.support.studies import search
from tests.support.toys import hill, searching

Damage = Callable[[Path, random.Random], str]


def flip_a_bit(path: Path, rng: random.Random) -> str:
    """Turn one bit."""
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"bit {bit} of {path.name}"


def overwrite(path: Path, rng: random.Random) -> str:
    """Write zeros, or random bytes, over a stretch."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    size = min(len(content) - start, rng.choice([1, 8, 512, 4096]))
    content[start : start + size] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    path.write_bytes(content)
    return f"{size} bytes from {start} of {path.name}"


def move_bytes(path: Path, rng: random.Random) -> str:
    """Let two stretches change places."""
    content = bytearray(path.read_bytes())
    size = max(1, min(len(content) // 3, rng.choice([4, 16, 128, 1024])))
    first = rng.randrange(len(content) - 2 * size + 1)
    second = rng.randrange(first + size, len(content) - size + 1)
    one, other = content[first : first + size], content[second : second + size]
    content[first : first + size], content[second : second + size] = other, one
    path.write_bytes(content)
    return f"{size} bytes from {first} and {second} of {path.name}"


def cut(path: Path, rng: random.Random) -> str:
    """Cut the end off."""
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name} cut to {size}"


def lengthen(path: Path, rng: random.Random) -> str:
    """Append bytes, or the file itself."""
    with open(path, "ab") as file:
        file.write(path.read_bytes() if rng.random() < 0.5 else rng.randbytes(rng.choice([1, 100, 4096])))
    return f"{path.name} lengthened"


def replace_it(path: Path, rng: random.Random) -> str:
    """Put something else in its place: nothing, an empty file, a pipe, a folder, a link, or another file beside it."""
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    what = rng.choice(["nothing", "empty", "pipe", "folder", "link", "other"])
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what in ("link", "other") and others:
        (path.symlink_to if what == "link" else partial(shutil.copy2, dst=path))(rng.choice(others))
    return f"{path.name} is {what}"


DAMAGES: tuple[Damage, ...] = (flip_a_bit, flip_a_bit, overwrite, move_bytes, cut, lengthen, replace_it)


def damaged_shard(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Damage a shard: nothing wrong is served, it is found, and the store is whole after repair and a run."""
    cache = workspace.full_cache(folder)
    shard = rng.choice(sorted(cache.rglob("*.h5")))
    before = shard.read_bytes()
    note = rng.choice(DAMAGES)(shard, rng)
    is_same = shard.is_file() and not shard.is_symlink() and shard.read_bytes() == before
    served = workspace.stored(cache)
    wrong = compared(served.result or {}, workspace.reference)
    verified = in_process(lambda: run_command("cache", "verify", "--cache", cache))
    repaired = in_process(lambda: run_command("cache", "repair", "--cache", cache))
    again = in_process(lambda: workspace.extract(cache))
    whole = workspace.stored(cache).result
    wrong += compared(whole or {}, workspace.reference)
    is_gone = "is nothing" in note
    told_so = is_same or is_gone or verified.code == 3
    held = told_so and not wrong and not again.code and whole == workspace.reference and served.result is not None
    ends = [told(one) for one in (served, verified, repaired, again) if one.code not in (0, 2, 3)]
    return Outcome(held, 0, wrong, f"{note}; verify {verified.code}, repair {repaired.code}, again {again.code} {ends}")


def damaged_run(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Damage a file of a run; its answers and its tables are the same, or it is refused by name."""
    from tests.end_to_end.test_flipped_bits import reported

    source = workspace.run
    run = Path(shutil.copytree(source, folder / source.name))
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.stat().st_size]
    chosen = rng.choice([path for path in files if path.suffix != ".svg"] or files)
    note, wrong = rng.choice(DAMAGES)(chosen, rng), 0
    for read in (loaded, reported):
        ended = in_process(partial(_read, read, run))
        expected = in_process(partial(_read, read, source))
        if ended.result is None or (ended.result.get("value") is None and not ended.result.get("is_line")):
            return Outcome(False, 0, 0, f"{note}: {told(ended)} {ended.result}")
        wrong += ended.result["value"] not in (None, expected.result["value"])
    return Outcome(not wrong, 0, wrong, note)


def flipped_metrics(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Turn a bit of metrics.csv: ``report`` and a comparison refuse it by name, and draw nothing."""
    run = Path(shutil.copytree(workspace.run, folder / workspace.run.name))
    (run / "report.html").unlink()
    note = flip_a_bit(run / "metrics.csv", rng)
    page, others = folder / "comparison.html", [run, workspace.run]
    words = rng.choice([("report", run), ("report", *others, "--out", page)])
    ended = in_process(partial(run_command, *words))
    wrong = int((run / "report.html").exists() or page.exists())
    return _refused_by_name(ended, "metrics.csv", note, wrong)


def flipped_probe(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Turn a bit of probe.safetensors: ``predict`` refuses it by name, and answers nothing."""
    run = Path(shutil.copytree(workspace.run, folder / workspace.run.name))
    note = flip_a_bit(run / "probe.safetensors", rng)
    ended = in_process(partial(run_command, "predict", run, "the dog runs", "a cat sleeps", "--json"))
    return _refused_by_name(ended, "probe.safetensors", note, int("prediction" in ended.said or ended.code == 0))


def _refused_by_name(ended: Ended, name: str, note: str, wrong: int) -> Outcome:
    held = ended.is_one_line and ended.code == 3 and name in ended.said and not wrong
    return Outcome(held, 0, wrong, f"{note}: {ended.code} {told(ended)}")


def _read(read: Callable[[Path], str], folder: Path) -> dict[str, object]:
    found = attempted(read, folder)
    if isinstance(found, PermafrostError):
        return {"value": None, "is_line": "\n" not in str(found) and found.exit_code in (2, 3), "said": str(found)}
    return {"value": found.replace(folder.name, "")}


def damaged_journal(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Cut or damage the journal of a study: what is read begins as it did, or is refused."""
    ended = in_process(partial(_journal, rng.randrange(2**32), folder))
    found = ended.result or {"held": False, "lost": 0, "wrong": 0, "note": told(ended)}
    return Outcome(**found)


def _journal(seed: int, folder: Path) -> dict[str, object]:
    rng = random.Random(seed)
    search(searching(trials=4), "s", folder, hill, progress=NoProgress())
    journal = folder / "study-s" / "journal.log"
    whole = list(Journal(journal).read_logs(0))
    content = journal.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    if rng.random() < 0.4:
        end = rng.randrange(last, len(content))
        journal.write_bytes(content[:end])
        found = list(Journal(journal).read_logs(0))
        return {"held": found == whole[: len(found)] and len(found) >= len(whole) - 1, "lost": 0, "wrong": 0,
                "note": f"cut at {end}"}  # fmt: skip
    note = rng.choice([flip_a_bit, overwrite, move_bytes])(journal, rng)
    if journal.read_bytes() == content:
        return {"held": True, "lost": 0, "wrong": 0, "note": note}
    try:
        found = list(Journal(journal).read_logs(0))
    except PermafrostError as error:
        return {"held": "\n" not in str(error), "lost": 0, "wrong": 0, "note": f"{note}: {error}"}
    is_cut = not journal.read_bytes().endswith(b"\n")  # what is damaged to its end is as if it had been cut there
    is_start = found == whole[: len(found)] and (is_cut or len(found) >= len(whole) - 1)
    return {"held": is_start, "lost": 0, "wrong": 0 if is_start else 1, "note": note}


FAULTS = (
    Fault("damaged shards", 300, damaged_shard),
    Fault("damaged run folders", 150, damaged_run),
    Fault("bits flipped in metrics.csv, then report", 60, flipped_metrics),
    Fault("bits flipped in probe.safetensors, then predict", 60, flipped_probe),
    Fault("damaged journals of studies", 150, damaged_journal),
)
