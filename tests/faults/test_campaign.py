"""Two minutes of the campaign, and what it must find: trials that do not hold are told, and are not tried again."""

import random
from pathlib import Path

import pytest

from tests.faults.__main__ import FAULTS
from tests.faults.campaign import Campaign, Fault, Outcome
from tests.faults.workspace import Workspace

pytestmark = pytest.mark.slow


def test_two_minutes_of_every_kind_of_fault(tmp_path):
    campaign = Campaign(FAULTS, tmp_path, seed=1)
    bad = [
        (name, number, outcome.note) for name, number, outcome in campaign.run(120, share=0.05)
        if not outcome.held or outcome.lost or outcome.wrong
    ]  # fmt: skip
    assert not bad
    assert all(line.tried for line in campaign.table())


def broken(workspace: Workspace, rng: random.Random, folder: Path) -> Outcome:
    if rng.random() < 0.5:
        raise ArithmeticError("planted")
    return Outcome(held=False, wrong=1)


def test_what_does_not_hold_is_counted_and_a_campaign_goes_on_where_it_stopped(tmp_path):
    faults = [Fault("broken", 6, broken)]
    first = list(Campaign(faults, tmp_path).run(60, share=0.5))
    campaign = Campaign(faults, tmp_path)
    second = list(campaign.run(60))
    assert [len(first), len(second)] == [3, 3]
    (line,) = campaign.table()
    assert (line.tried, line.held) == (6, 0)
    assert 0 < line.wrong_numbers_served < 6
