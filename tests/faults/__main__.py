"""The campaign from the command line: trials until all are done or the time is up, then the table."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.machine import describe
from tests.faults import damaged, hostile, interrupted, planted, trainings
from tests.faults.campaign import Campaign, Line

FAULTS = (*interrupted.FAULTS, *trainings.FAULTS, *damaged.FAULTS, *hostile.FAULTS, *planted.FAULTS)


def show(table: list[Line]) -> None:
    """Print a line a kind of fault."""
    print(f"{'fault':62}{'tried':>7}{'held':>7}{'committed work lost':>21}{'wrong numbers served':>22}")
    for line in table:
        print(f"{line.fault:62}{line.tried:7}{line.held:7}{line.committed_work_lost:21}{line.wrong_numbers_served:22}")


def main() -> int:
    """Return 1 if something was not held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--share", type=float, default=1.0, help="of the trials of a whole campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(".faults"), help="where trials are remembered")
    parser.add_argument("--only", default="", help="faults whose name contains it")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="trials at once")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    if not interrupted.can_mount():
        print(f"left out, as nothing can be mounted here: {interrupted.SMALL_DISK}", file=sys.stderr)
        faults = [fault for fault in faults if fault.name != interrupted.SMALL_DISK]
    campaign = Campaign(faults, options.folder, options.seed)
    for name, number, outcome in campaign.run(options.seconds, options.share, options.processes):
        if not outcome.held or outcome.lost or outcome.wrong:
            print(f"not held: {name}, trial {number}: {outcome.note}", file=sys.stderr, flush=True)
    print(describe("cpu"))
    show(campaign.table())
    table = campaign.table()
    return int(any(one.held < one.tried or one.committed_work_lost or one.wrong_numbers_served for one in table))


if __name__ == "__main__":
    sys.exit(main())
