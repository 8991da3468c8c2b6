"""A session of a study on a host of another name: ``python -m tests.support.study_host HOST JSON``."""

import json
import platform
import sys
from functools import partial
from pathlib import Path

from permafrost.data.progress import NoProgress
from permafrost.probes.reports import report
from permafrost.probes.search import session
from permafrost.probes.search.trials import StudyElsewhere
from tests.support import studies
from tests.support.toys import hill, searching


class Printing(NoProgress):
    """Progress that prints its notes."""

    def note(self, message: str) -> None:
        print(message, flush=True)


def wait_for_ever(*_: object) -> None:
    """Take the place of what writes the folder of a study, and tell that it has been reached."""
    print("at the end", flush=True)
    sys.stdin.read()


def main(host: str, asked: str) -> None:
    """Run a session, and print its notes and how it ends."""
    given = json.loads(asked)
    platform.node = lambda: host
    session.POLL_SECONDS = 0.1
    report.write_report = lambda folder: folder  # figures take longer than all else
    if given.get("stays_at_end"):
        studies.write_study = wait_for_ever
    recipe, runs = searching(given.get("space"), **given["study"]), Path(given["runs"])
    toy, workers = partial(hill, **given["hill"]), given.get("workers", 1)
    try:
        done = studies.search(recipe, given["name"], runs, toy, given["storage"], workers=workers, progress=Printing())
        print(f"wrote {done.trials}")
    except StudyElsewhere as elsewhere:
        print(elsewhere)


if __name__ == "__main__":
    main(*sys.argv[1:])
