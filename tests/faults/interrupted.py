"""Commands that are killed, or refused the disk, and then run again: nothing committed is lost, no number differs."""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path

from tests.faults.campaign import Fault, Outcome
from tests.faults.process import REFUSALS, Injection, in_process, kill, refuse
from tests.faults.workspace import Workspace, compared, told

YEAR = 365.25 * 86400

SMALL_DISK = "a full disk in memory (tmpfs), which is then made larger"


def killed_at_a_call(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill an extraction just before one of the calls that change files, or that sync them, or just after it."""
    cache = workspace.cache(folder)
    at = rng.randrange(_points(workspace))
    return _interrupted(workspace, cache, Injection(cache, at), f"killed at call {at}")


def killed_at_random(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill an extraction once or several times, after a random time."""
    cache, lost, kills, longest = workspace.cache(folder), 0, 0, 4.0
    wanted = rng.choice([1, 1, 2, 4])
    while kills < wanted:
        before = workspace.stored(cache).result
        started = workspace.start_extract(cache)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, longest))
        else:
            _wait_for_a_shard(cache, len([*cache.rglob("*.h5")]), longest)
        started.kill()
        if not started.wait().was_killed:  # it had ended: begin anew, and kill sooner
            cache, kills, longest = workspace.cache(folder / f"sooner than {longest}"), 0, longest / 2
            continue
        kills += 1
        lost += len(before.keys() - workspace.stored(cache).result.keys())
    outcome = _finished(workspace, cache, f"killed {kills} times after a random time")
    return Outcome(outcome.held and not lost, lost + outcome.lost, outcome.wrong, outcome.note)


def _wait_for_a_shard(cache: Path, before: int, longest: float) -> None:
    """Return once a cache has one more shard, or after some seconds."""
    end = time.monotonic() + longest
    while len([*cache.rglob("*.h5")]) <= before and time.monotonic() < end:
        time.sleep(0.002)


def refused_a_call(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Let one of those calls, or all from one on, fail as on a full or broken disk or without permission."""
    cache = workspace.cache(folder)
    at, refusal, lasting = rng.randrange(_points(workspace)), rng.choice(REFUSALS), rng.random() < 0.5
    what = f"{os.strerror(refusal)} at call {at}{' and all later ones' if lasting else ''}"
    return _interrupted(workspace, cache, Injection(cache, at, partial(refuse, refusal), lasting), what)


def folder_vanishes(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Remove the cache, or a folder in it, while an extraction runs; what is gone runs again."""
    cache, at = workspace.cache(folder), rng.randrange(_points(workspace))
    is_store = rng.random() < 0.5

    def vanish(path: str) -> None:
        stores = [path.parent for path in cache.rglob("*.h5")]
        shutil.rmtree(stores[0] if is_store and stores else cache, ignore_errors=True)

    what = f"{'store' if is_store else 'cache'} removed at call {at}"
    return _interrupted(workspace, cache, Injection(cache, at, vanish), what)


def clock_jumps(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Let the clock jump by years while an extraction runs, which may be killed; then change the times of all files."""
    cache, at = workspace.cache(folder), rng.choice([-1, rng.randrange(_points(workspace))])
    jumps = [rng.uniform(-10, 10) * YEAR for _ in range(7)]
    injection = Injection(cache, at)

    def before() -> None:
        real, turn = time.time, count()
        time.time = lambda: max(0.0, real() + jumps[next(turn) % len(jumps)])
        injection.plant()

    ended = workspace.start_extract(cache, before).wait()
    for path in cache.rglob("*"):
        moment = max(0.0, time.time() + rng.choice(jumps))
        os.utime(path, (moment, moment))
    outcome = _finished(workspace, cache, f"clock jumps, killed at call {at}")
    told_well = ended.was_killed if at >= 0 else ended.code == 0
    return Outcome(outcome.held and told_well, outcome.lost, outcome.wrong, f"{outcome.note} {told(ended)}")


def disk_is_small(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Extract on a real disk in memory that is too small, then make it larger."""
    disk, pages = folder / "disk", rng.randrange(4, 160)
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", disk)
    try:
        cache = disk / "cache"
        ended = workspace.start_extract(cache).wait()
        _mount("-o", "remount,size=64m", disk)
        outcome = _finished(workspace, cache, f"disk of {4 * pages} kB")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    told_well = ended.code == 0 or ended.is_one_line
    return Outcome(
        outcome.held and told_well, outcome.lost, outcome.wrong, f"{outcome.note} {ended.code} {told(ended)}"
    )


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def can_mount() -> bool:
    """Return whether this process may mount a disk in memory."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def several_at_once(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Start three equal extractions; one may be killed. All texts are there, with the same latents."""
    cache = workspace.cache(folder)
    started = [workspace.start_extract(cache) for _ in range(3)]
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 1.0))
        started.pop().kill()
    ended = [one.wait() for one in started]
    outcome = _finished(workspace, cache, "three at once")
    bad = [told(one) for one in ended if one.code]
    return Outcome(outcome.held and not bad, outcome.lost, outcome.wrong, f"{outcome.note} {bad}")


def _points(workspace: Workspace) -> int:
    return len(json.loads(workspace.points("extract").read_text()))


def _interrupted(workspace: Workspace, cache: Path, injection: Injection, what: str) -> Outcome:
    ended = workspace.start_extract(cache, injection.plant).wait()
    told_well = ended.was_killed if injection.fault is kill else ended.code == 0 or ended.is_one_line
    outcome = _finished(workspace, cache, what)
    note = outcome.note if told_well else f"{what}: {told(ended)}"
    return Outcome(outcome.held and told_well, outcome.lost, outcome.wrong, note)


def _finished(workspace: Workspace, cache: Path, what: str) -> Outcome:
    """Run the extraction again to its end; what had been committed does not run, and all is as without a fault."""
    before = workspace.stored(cache).result
    first_wrong = compared(before, workspace.reference)
    again = in_process(lambda: {"run": _texts_run(workspace, cache)})
    if again.result is None:
        return Outcome(False, note=f"{what}; then: {told(again)}")
    after = workspace.stored(cache).result
    run = again.result["run"]
    missing = workspace.reference.keys() - after.keys()
    lost = len(before.keys() - after.keys()) + max(0, len(before) + run - len(workspace.reference))
    left = [path.name for path in cache.rglob("*.tmp")]
    wrong = first_wrong + compared(after, workspace.reference)
    return Outcome(
        not (missing or lost or wrong or left), lost, wrong, f"{what}; {run} ran, {len(missing)} missing, left {left}"
    )


def _texts_run(workspace: Workspace, cache: Path) -> int:
    with redirect_stdout(StringIO()) as printed:
        code = workspace.extract(cache, None, "--json")
    if code:
        raise RuntimeError(f"exit code {code}")
    texts: int = json.loads(printed.getvalue())["texts_run"]
    return texts


FAULTS = (
    Fault("kill -9 at a call that changes files, in extract", 120, killed_at_a_call),
    Fault("kill -9 at random, in extract", 100, killed_at_random),
    Fault("full or broken disk, no permission, at such a call", 80, refused_a_call),
    Fault("folders that vanish while extract runs", 30, folder_vanishes),
    Fault("clocks that jump and files of other times, in extract", 30, clock_jumps),
    Fault(SMALL_DISK, 30, disk_is_small),
    Fault("three equal extractions at once", 12, several_at_once),
)
