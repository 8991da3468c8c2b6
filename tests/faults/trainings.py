"""Runs, pretrainings and studies that are killed, or whose checkpoints are damaged, and then go on and end the same."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from permafrost.data.progress import NoProgress
from permafrost.extract.pretraining import trainer
from permafrost.probes.search.journal import Journal
from permafrost.probes.training.checkpoint import Checkpoint
from tests.faults.campaign import Fault, Outcome
from tests.faults.damaged import DAMAGES
from tests.faults.process import Injection, Started, in_process
from tests.faults.runs import Command, Pretraining, Run
from tests.faults.workspace import Workspace, told
from tests.support.studies import search
from tests.support.toys import hill, searching

TRIALS = 6
"""Of a study."""

Kind = Callable[[Workspace, Path], Command]


def killed_at_a_call(kind: Kind, workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill a command just before one of the calls that change files, or that sync them, or just after it."""
    command = kind(workspace, folder)
    at = rng.randrange(len(command.points))
    ended = in_process(command.work, lambda: command.plant(Injection(command.bench.folder, at)))
    return _as_undisturbed(command, ended.was_killed, f"killed at call {at}, {command.points[at]}")


def killed_at_random(kind: Kind, workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill a command after a random time."""
    longest = 5.0
    while True:
        command = kind(workspace, folder / f"within {longest}")
        started, after = Started(command.work, command.plant), rng.uniform(0, longest)
        time.sleep(after)
        started.kill()
        if started.wait().was_killed:
            return _as_undisturbed(command, True, f"killed after {after:.3f} s")
        longest /= 2  # it had ended


def _as_undisturbed(command: Command, was_killed: bool, what: str) -> Outcome:
    """Run a command again to its end: nothing committed runs again, and its files are those of an undisturbed one."""
    before = command.committed()
    again = in_process(command.work, partial(command.plant, is_drawn=False))
    if again.code:
        return Outcome(False, note=f"{what}; then: {told(again)}")
    finished = command.compared(before, again.said)
    held = was_killed and not finished.lost and not finished.wrong and not finished.left
    return Outcome(held, finished.lost, finished.wrong, f"{what}; killed {was_killed}; {finished}")


def damaged_checkpoint(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Damage a file that a killed training has left: it ends as an undisturbed one, or the file is refused by name."""
    command = rng.choice([Run, Pretraining])(workspace, folder)
    saves = rng.randrange(1, 5)
    killed = in_process(command.work, partial(_kill_after, saves))
    files = [path for path in sorted(command.unfinished.rglob("*")) if path.is_file() and path.stat().st_size]
    if not killed.was_killed or not files:
        return Outcome(False, note=f"no checkpoint to damage: {told(killed)}")
    chosen = rng.choice(files)
    what = f"{type(command).__name__}: {rng.choice(DAMAGES)(chosen, rng)}"
    ended = in_process(command.work, partial(command.plant, is_drawn=False))
    refused = ""
    if ended.code:
        named = [path for path in (chosen, *chosen.parents) if path != command.bench.folder and str(path) in ended.said]
        if not ended.is_one_line or not named or command.bench.folder not in named[0].parents:
            return Outcome(False, note=f"{what}: {told(ended)}")
        refused = ", refused"
        place = command.unfinished if f"delete {command.unfinished}" in ended.said else named[0]  # as it advises
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        ended = in_process(command.work, partial(command.plant, is_drawn=False))
        if ended.code:
            return Outcome(False, note=f"{what}{refused}, removed: {told(ended)}")
    finished = command.compared(None, ended.said)
    held = not finished.wrong and not finished.left
    return Outcome(held, 0, finished.wrong, f"{what}{refused}; {finished}")


def _kill_after(saves: int) -> None:
    """Have this process killed once some checkpoints are written."""
    written = 0

    def counting(save: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            nonlocal written
            save(*arguments)
            written += 1
            if written == saves:
                os.kill(os.getpid(), signal.SIGKILL)

        return counted

    Checkpoint.save = counting(Checkpoint.save)  # type: ignore[method-assign]
    trainer.mark_complete = counting(trainer.mark_complete)


def equal_runs_at_once(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Start three equal runs: the second and the third say that one is under way, and each writes a run of its own."""
    command = Run(workspace, folder)
    started = []
    for _ in range(3):
        started.append(Started(command.work))
        time.sleep(rng.uniform(0, 0.4))
    ended = [one.wait() for one in started]
    saying = sum("an equal run is under way" in one.said for one in ended)
    finished = command.compared(None, "")
    runs = len(command.runs)
    held = not any(one.code for one in ended) and saying == 2 and runs == 3 and not finished.wrong and not finished.left
    others = [told(one) for one in ended if one.code]
    return Outcome(held, 0, finished.wrong, f"{runs} runs, {saying} say that one is under way; {finished} {others}")


def study_killed(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    """Kill the search of a study once or twice, at a call or after a random time: its finished trials stay, and count.

    A trial is lost if it had ended and is gone; its value is wrong if it is not that of its parameters.
    """
    wanted, kills, longest, lost, note = rng.choice([1, 1, 2]), 0, 1.0, 0, list[str]()
    while kills < wanted:
        before = in_process(partial(_trials, folder)).result
        at = int(rng.uniform(0, longest) * 300) if rng.random() < 0.5 else -1
        started = Started(partial(_search, folder), Injection(folder, at).plant)
        if at < 0:
            time.sleep(rng.uniform(0, longest))
            started.kill()
        if not started.wait().was_killed:  # it had ended: begin anew, and kill sooner
            folder, kills, longest = folder / "sooner", 0, longest / 2
            continue
        kills += 1
        note.append(f"killed at call {at}" if at >= 0 else "killed at random")
        lost += len(before.keys() - in_process(partial(_trials, folder)).result.keys())
    before = in_process(partial(_trials, folder)).result
    evaluated = folder / "study-s" / "evaluated"
    began = len(evaluated.read_text().splitlines()) if evaluated.exists() else 0
    ended = in_process(partial(_search, folder))
    after = in_process(partial(_trials, folder)).result
    if ended.code or after is None:
        return Outcome(False, lost, note=f"{note}: {told(ended)}")
    ran = len(evaluated.read_text().splitlines()) - began
    lost += len(before.keys() - after.keys()) + max(0, len(before) + ran - TRIALS)
    wrong = sum(
        before.get(number, trial) != trial or trial["value"] != trial["right"] for number, trial in after.items()
    )
    held = not lost and not wrong and len(after) == TRIALS
    return Outcome(held, lost, wrong, f"{note}; {len(before)} of {TRIALS} before, {ran} ran, {len(after)} after")


def _search(folder: Path) -> None:
    spec = searching(trials=TRIALS, pruner="NopPruner")
    search(spec, "s", folder, partial(hill, pause=0.02), progress=NoProgress())


def _trials(folder: Path) -> dict[str, dict[str, float]]:
    """Number of each finished trial -> its value, and that which its parameters give."""
    import math

    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.trial import TrialState

    journal = folder / "study-s" / "journal.log"
    if not journal.exists() or not list(Journal(journal).read_logs(0)):
        return {}
    found = {}
    storage = JournalStorage(Journal(journal))  # type: ignore[arg-type]
    for study in storage.get_all_studies():
        for trial in load_study(study_name=study.study_name, storage=storage).get_trials(states=[TrialState.COMPLETE]):
            rate, decay = (trial.params[f"train.{name}"] for name in ("learning_rate", "weight_decay"))
            right = 1 - (math.log10(rate) + 3) ** 2 - decay
            assert trial.value is not None
            found[str(trial.number)] = {"value": round(trial.value, 9), "right": round(right, 9)}
    return found


FAULTS = (
    Fault("kill -9 at a call that changes files, in run", 80, partial(killed_at_a_call, Run)),
    Fault("kill -9 at random, in run", 40, partial(killed_at_random, Run)),
    Fault("kill -9 at a call that changes files, in pretrain", 50, partial(killed_at_a_call, Pretraining)),
    Fault("kill -9 at random, in pretrain", 30, partial(killed_at_random, Pretraining)),
    Fault("kill -9 at a call or at random, in a study", 40, study_killed),
    Fault("damaged checkpoints of killed runs and pretrainings", 60, damaged_checkpoint),
    Fault("three equal runs at once", 12, equal_runs_at_once),
)
