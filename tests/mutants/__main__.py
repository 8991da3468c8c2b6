"""The campaign from the command line: a sample is tried, then the table and the survivors, each with its reason."""

import argparse
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tests.mutants.campaign import Campaign, Line, survivors, table
from tests.mutants.mutation import Mutant, changed_lines
from tests.mutants.subjects import SUBJECTS
from tests.mutants.trial import Outcome

ROOT = Path(__file__).parents[2]

REASONS = Path(__file__).parent / "survivors.toml"
"""Why some mutants may survive: module, the line as it is, the line as it becomes, reason."""

LEAST = 0.85
"""Share of the mutants that must be killed."""


def reasons() -> dict[tuple[str, str, str], str]:
    """Return (module, line, changed line) -> why no test can notice this change."""
    entries = tomllib.loads(REASONS.read_text("utf-8"))["survivor"]
    return {
        (entry["module"], entry["line"], changed): entry["reason"] for entry in entries for changed in entry["changed"]
    }


def show(outcomes: Mapping[Mutant, Outcome], root: Path = ROOT) -> None:
    """Print a line a module, then the survivors."""
    lines = table(outcomes)
    total = Line("all", sum(line.mutants for line in lines), sum(line.killed for line in lines))
    print(f"{'module':32}{'mutants':>9}{'killed':>8}{'survived':>10}{'share killed':>14}")
    for line in [*lines, total]:
        survived = line.mutants - line.killed
        print(f"{line.module:32}{line.mutants:9}{line.killed:8}{survived:10}{line.killed / line.mutants:14.1%}")
    known = reasons()
    for mutant in survivors(outcomes):
        before, after = changed_lines((root / mutant.module).read_text("utf-8"), mutant)
        print(f"\n{mutant.module}:{mutant.line}, {mutant.operator.partition('/')[2]}")
        print(f"  - {before}\n  + {after}")
        print(f"  {known.get((mutant.module, before, after), 'no reason given')}")


def main() -> int:
    """Return 1 if too few mutants were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--mutants", type=int, default=300, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".mutants"), help="where trials are remembered")
    parser.add_argument("--only", default="", help="modules whose path contains it")
    options = parser.parse_args()
    subjects = {module: tests for module, tests in SUBJECTS.items() if options.only in module}
    campaign = Campaign(subjects, ROOT, options.folder)
    outcomes = campaign.run(campaign.sample(options.mutants, options.seed), options.processes)

    from benchmarks.machine import describe  # it imports permafrost, which trials must find in their copy

    print(describe("cpu"))
    show(outcomes)
    return int(sum(outcome.killed for outcome in outcomes.values()) < LEAST * len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
