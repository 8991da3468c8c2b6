"""The campaign: a seeded sample of all mutants, tried and remembered, and the table of those that tests have killed."""

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from tests.faults.process import Started
from tests.mutants.mutation import Mutant, compiles, mutants_of, mutated
from tests.mutants.trial import Copy, Outcome, import_what_tests_need

LONGEST = 60.0
"""Seconds that the tests of an unchanged module may take, at most."""


class UnchangedFailsError(Exception):
    """Tests that fail without any mutant, of which nothing can be learnt."""


@dataclass(frozen=True)
class Line:
    """Mutants of a module, added up."""

    module: str
    mutants: int
    killed: int


class Campaign:
    """A sample of mutants, with a log in which those that were tried with this very code are remembered."""

    def __init__(self, subjects: Mapping[str, Sequence[str]], root: Path, folder: Path) -> None:
        """Begin with nothing tried but what the log in ``folder`` has of these very modules and tests."""
        self._subjects, self._root, self._folder = subjects, root, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "trials.jsonl"
        self._code = {module: _digest([root / path for path in (module, *tests)]) for module, tests in subjects.items()}

    @cached_property
    def mutants(self) -> list[Mutant]:
        """All mutants of all subjects, and some that are no Python."""
        return [mutant for module in self._subjects for mutant in mutants_of(module, self._root)]

    def sample(self, size: int, seed: int) -> list[Mutant]:
        """Return some of the mutants, drawn at random."""
        sources = {module: (self._root / module).read_text("utf-8") for module in self._subjects}
        drawn = random.Random(seed).sample(self.mutants, len(self.mutants))
        return list(islice((one for one in drawn if compiles(mutated(sources[one.module], one))), size))

    def run(self, sample: Sequence[Mutant], processes: int = 1) -> dict[Mutant, Outcome]:
        """Try the mutants that were not tried before, and return the outcome of all.

        Raises:
            UnchangedFailsError: the tests fail without any mutant.
        """
        done = self._done()
        missing = [mutant for mutant in sample if mutant not in done]
        if missing:
            import_what_tests_need()
            parts = [missing[number::processes] for number in range(processes)]
            workers = [Started(lambda part=part: self._try(part)) for part in parts if part]
            for ended in [worker.wait(limit=float("inf")) for worker in workers]:
                if ended.code:
                    raise UnchangedFailsError(ended.said)
        done = self._done()
        return {mutant: done[mutant] for mutant in sample}

    def _try(self, part: Sequence[Mutant]) -> None:
        """Try mutants in a copy of the tree, module by module."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.resolve(), prefix="copy-"))
        try:
            copy = Copy(self._root.resolve(), folder / "tree")
            for module, tests in self._subjects.items():
                source = (self._root / module).read_text("utf-8")
                mutants = [mutant for mutant in part if mutant.module == module]
                limit = 20 + 3 * self._seconds_unchanged(copy, module, source, tests) if mutants else 0.0
                for mutant in mutants:
                    outcome = copy.try_with(module, mutated(source, mutant), tests, limit)
                    with self._log.open("a") as log:
                        log.write(json.dumps(self._entry(mutant, outcome)) + "\n")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _seconds_unchanged(copy: Copy, module: str, source: str, tests: Sequence[str]) -> float:
        unchanged = copy.try_with(module, source, tests, LONGEST * 4)
        if unchanged.killed:
            raise UnchangedFailsError(f"the tests of {module} fail as it is: {unchanged.by}")
        return unchanged.seconds

    def _entry(self, mutant: Mutant, outcome: Outcome) -> dict[str, Any]:
        return {"code": self._code[mutant.module], "mutant": asdict(mutant), "outcome": asdict(outcome)}

    def _done(self) -> dict[Mutant, Outcome]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        entries = [entry for entry in map(json.loads, lines) if entry["code"] in self._code.values()]
        return {Mutant(**entry["mutant"]): Outcome(**entry["outcome"]) for entry in entries}


def table(outcomes: Mapping[Mutant, Outcome]) -> list[Line]:
    """Return a line a module."""
    lines = []
    for module in sorted({mutant.module for mutant in outcomes}):
        of_module = [outcome for mutant, outcome in outcomes.items() if mutant.module == module]
        lines.append(Line(module, len(of_module), sum(outcome.killed for outcome in of_module)))
    return lines


def survivors(outcomes: Mapping[Mutant, Outcome]) -> list[Mutant]:
    """Return the mutants that no test noticed, by module and line."""
    return sorted(mutant for mutant, outcome in outcomes.items() if not outcome.killed)


def _digest(paths: Iterable[Path]) -> str:
    """Return a digest of the content of some files."""
    made = hashlib.sha256()
    for path in paths:
        made.update(hashlib.sha256(path.read_bytes()).digest())
    return made.hexdigest()[:16]
