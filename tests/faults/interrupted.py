"""Commands that are killed, or refused the disk, and then run again: nothing committed is lost, no number differs."""

import json
import os
import random
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from tests.faults.campaign import Fault, Outcome
from tests.faults.injection import REFUSALS, Injection, counted
from tests.faults.process import Started, in_process
from tests.faults.workspace import Workspace, compared, told
from tests.support.bench import Bench


def killed_at_a_call(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill an extraction just before one of the calls that change files, or that sync them, or just after it."""
    cache = workspace.cache(folder)
    at = rng.randrange(_points_of_extract(workspace, folder))
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
    at, refusal, lasting = (
        rng.randrange(_points_of_extract(workspace, folder)),
        rng.choice(REFUSALS),
        rng.random() < 0.5,
    )
    what = f"{os.strerror(refusal)} at call {at}{' and all later ones' if lasting else ''}"
    return _interrupted(workspace, cache, Injection(cache, at, refusal, lasting), what)


def run_killed_at_a_call(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill a run of stage two at such a call; run again, it gives the same tables."""
    bench = Bench(folder / "bench", workspace.backbone)
    words = workspace.small(bench)
    work = partial(_run, bench, words)
    at = rng.randrange(_points_of_run(workspace, folder))
    ended = Started(work, Injection(bench.folder, at).plant).wait()
    again = in_process(work)
    if again.code:
        return Outcome(False, note=f"killed at call {at}: then {told(again)}")
    runs = sorted(path for path in bench.runs.iterdir() if not path.name.startswith("."))
    reference = workspace.folder / "bench" / "runs"
    whole = next(path for path in reference.iterdir() if path.name.startswith("sts"))
    wrong = 0
    for run in runs:
        for name in ("metrics.csv", "predictions.csv"):
            wrong += (run / name).read_bytes() != (whole / name).read_bytes()
    left = [path.name for path in bench.runs.iterdir() if path.name.startswith(".") and path.name.endswith(".tmp")]
    held = ended.was_killed and not wrong and not left and len(runs) in (1, 2)  # it may have been whole already
    return Outcome(
        held, 0, wrong, f"killed at call {at} ({ended.code}); runs {[run.name for run in runs]}, left {left}"
    )


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


def equal_runs_at_once(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Start three equal runs: each finishes, or says that one is under way; none removes what another writes."""
    bench = Bench(folder / "bench", workspace.backbone)
    words = workspace.small(bench)
    work = partial(_run, bench, words)
    started = []
    for _ in range(3):
        started.append(Started(work))
        time.sleep(rng.uniform(0, 0.5))
    ended = [one.wait() for one in started]
    finished = [one for one in ended if not one.code]
    refused = [one for one in ended if one.code in (2, 3) and "under way" in one.said]
    runs = [path for path in bench.runs.iterdir() if not path.name.startswith(".") and path.name != "unfinished"]
    whole = all((run / "metrics.csv").exists() for run in runs)
    held = bool(finished) and len(finished) + len(refused) == 3 and len(runs) == len(finished) and whole
    others = [told(one) for one in ended if one not in finished and one not in refused]
    return Outcome(held, note=f"{len(finished)} finished, {len(refused)} refused, {len(runs)} runs, others {others}")


def _run(bench: Bench, words: list[str]) -> int:
    code, _, said = bench.command("run", "sts", settings=words)
    print(said)
    return code


def _points_of_extract(workspace: Workspace, folder: Path) -> int:
    """Return the number of calls of an extraction that change files; counted once."""
    cache = folder / "counted" / "cache"
    return _points(workspace, "extract", cache, lambda: workspace.extract(workspace.cache(cache.parent)))


def _points_of_run(workspace: Workspace, folder: Path) -> int:
    """Return the number of calls of a run that change files; counted once."""
    bench = Bench(folder / "counted", workspace.backbone)
    return _points(workspace, "run", bench.folder, lambda: _run(bench, workspace.small(bench)))


def _points(workspace: Workspace, name: str, folder: Path, work: Callable[[], int]) -> int:
    known = workspace.folder / f"points-{name}.json"
    if not known.exists():
        ended = in_process(lambda: counted(folder, work))
        assert ended.result, ended.said
        known.write_text(json.dumps(ended.result))
    return len(json.loads(known.read_text()))


def _interrupted(workspace: Workspace, cache: Path, injection: Injection, what: str) -> Outcome:
    ended = workspace.start_extract(cache, injection.plant).wait()
    told_well = ended.was_killed if not injection.refusal else ended.code == 0 or ended.is_one_line
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
    Fault("kill -9 at a call that changes files, in run", 80, run_killed_at_a_call),
    Fault("full or broken disk, no permission, at such a call", 80, refused_a_call),
    Fault("three equal extractions at once", 12, several_at_once),
    Fault("three equal runs at once", 12, equal_runs_at_once),
)
