"""Trials: the tests of one mutant, in a process forked from one that has imported all that they need but permafrost."""

import gc
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.faults.process import in_process

COPIED = ("data", "extract", "probes", "permafrost", "tests", "benchmarks", "pyproject.toml", "pipeline.py")
"""What tests need of the tree."""

OPTIONS = (
    "-x",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:anyio",
    "--assert=plain",
    "--hypothesis-profile=mutants",
)
"""Of pytest; modules of tests need no second compilation if nobody reads why they fail."""

MOST_MEMORY = 24 << 30
"""Limit of a trial's address space: a mutant may ask for more than any machine has."""


@dataclass(frozen=True)
class Outcome:
    """What became of the tests."""

    killed: bool
    by: str
    """The first test that failed, or what else became of the process; empty if nothing failed."""

    seconds: float


class Copy:
    """A copy of the tree, whose modules can be replaced one at a time."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Copy the tree at ``root`` into ``folder``; its byte code is made by the first trial."""
        self.root, self.folder = root, folder
        for name in COPIED:
            if (root / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(root / name, folder / name, symlinks=True, ignore=ignored)
            elif (root / name).exists():
                shutil.copy2(root / name, folder / name)

    def try_with(self, module: str, source: str, tests: Sequence[str], limit: float) -> Outcome:
        """Run tests with another source of a module until one fails; the copy is as before at the end.

        Args:
            limit: seconds after which the tests are taken to hang.
        """
        path = self.folder / module
        began = time.monotonic()
        _remove_byte_code(path)
        path.write_text(source, "utf-8")
        scratch = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix="trial-"))
        try:
            ended = in_process(lambda: self._run_tests(tests, scratch), limit=limit)
        finally:
            shutil.copy2(self.root / module, path)
            shutil.rmtree(scratch, ignore_errors=True)
        seconds = time.monotonic() - began
        if ended.result is None:
            return Outcome(True, "no end" if "it hangs" in ended.said else f"exit code {ended.code}", seconds)
        code, failed = ended.result
        return Outcome(code != 0, failed or (f"pytest's exit code {code}" if code else ""), seconds)

    def _run_tests(self, tests: Sequence[str], scratch: Path) -> list[Any]:
        """Return pytest's exit code and the first test that failed."""
        import hypothesis
        import pytest

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "benchmarks")]:
            del sys.modules[name]
        sys.dont_write_bytecode = False
        sys.modules["__main__"] = ModuleType("__main__")  # processes that tests spawn would import the real one
        os.chdir(self.folder)
        sys.path[:] = [str(self.folder), *(entry for entry in sys.path if entry not in ("", str(self.root)))]
        os.environ |= {"PYTHONPATH": str(self.folder), "TMPDIR": str(scratch)}
        tempfile.tempdir = str(scratch)
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # what fails need not be made small
        hypothesis.settings.register_profile("mutants", deadline=None, phases=phases, derandomize=True, database=None)
        noted = _FirstFailure()
        code = pytest.main([*OPTIONS, f"--basetemp={scratch}/pytest", *tests], plugins=[noted])
        return [int(code), noted.name]


def import_what_tests_need() -> None:
    """Import what takes long, so that a forked process has it; nothing of permafrost, which is to be the copy's."""
    import h5py
    import hypothesis
    import pytest
    import scipy.stats
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(1)  # threads do not live on in a fork
    gc.collect()
    gc.freeze()
    found = (h5py.File, hypothesis.given, pytest.main, scipy.stats.norm, tokenizers.Tokenizer)
    lazy = (transformers.AutoModel, transformers.BertModel, transformers.GPT2Model)
    assert all((*found, *lazy))
    assert not any(name.split(".")[0] == "permafrost" for name in sys.modules)


class _FirstFailure:
    """Plugin of pytest that notes the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = f"{report.nodeid} (import)"


def _remove_byte_code(path: Path) -> None:
    """Remove byte code that might be taken for that of a source of the same size and second."""
    for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        cached.unlink()
