"""Some trials of every kind of fault hold; what does not is counted, and a campaign goes on where it stopped."""

import json
import os
import random
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Fault, Outcome
from tests.faults.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_some_trials_of_every_kind_of_fault_hold(tmp_path):
    """In a process that has computed nothing: a fork of one that has, on several threads, may wait for these."""
    command = [sys.executable, "-m", "tests.faults", "--seconds", "900", "--share", "0.01", "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr + done.stdout
    tried = {json.loads(line)["fault"] for line in (tmp_path / "trials-1.jsonl").read_text().splitlines()}
    assert len(tried) == len(done.stdout.splitlines()) - 2, done.stdout


def broken(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    if rng.random() < 0.5:
        raise ArithmeticError("planted")
    return Outcome(held=False, wrong=1)


def test_what_does_not_hold_is_counted_and_a_campaign_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(Workspace, "made", lambda folder: nullcontext(Workspace(folder)))
    faults = [Fault("broken", 6, broken)]
    first = list(Campaign(faults, tmp_path).run(60, share=0.5))
    campaign = Campaign(faults, tmp_path)
    second = list(campaign.run(60))
    assert [len(first), len(second)] == [3, 3]
    (line,) = campaign.table()
    assert (line.tried, line.held) == (6, 0)
    assert 0 < line.wrong_numbers_served < 6
