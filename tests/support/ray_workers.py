"""Workers of units that are killed, or fail, as tests want it; actors import them by name."""

import os
import signal
from pathlib import Path
from typing import Any

from permafrost.extract.job import ExtractionJob
from permafrost.scaling.unit_worker import Unit, UnitAnswer, UnitWorker


def first_to(path: Path) -> bool:
    """Whether nobody has done this yet: a file tells."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledTwice(UnitWorker):
    """Two workers are killed: in the middle of a unit, and after a commit but before the answer."""

    def run(self, unit: Unit) -> UnitAnswer:
        folder = Path(os.environ["PERMAFROST_TEST_FOLDER"])
        if unit.number == 3 and first_to(folder / "in the middle"):
            real = ExtractionJob.run

            def dies(job: Any, *given: Any, **named: Any) -> int:
                blocks, job.runner.blocks = job.runner.blocks, lambda *some: iter_then_die(blocks(*some))
                return real(job, *given, **named)

            ExtractionJob.run = dies  # type: ignore[method-assign]
        answer = super().run(unit)
        if unit.number == 6 and first_to(folder / "after the commit"):
            assert answer.shards
            kill()
        with (folder / "committed").open("a") as file:
            file.writelines(f"{unit.number} {answer.texts} {answer.error}\n")
        return answer


def iter_then_die(blocks: Any) -> Any:
    yield next(blocks)
    kill()


class FailsOnce(UnitWorker):
    """The second unit fails wherever it is tried."""

    def run(self, unit: Unit) -> UnitAnswer:
        return UnitAnswer(error="StoreError: no") if unit.number == 2 else super().run(unit)
