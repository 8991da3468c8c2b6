"""The examples of make and Snakemake in the guide, run by the programs themselves."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_documentation import ROOT, blocks
from tests.support.bench import Bench, pairs, write

PAGE = ROOT / "docs" / "guide" / "batch.md"


def example(name: str) -> str:
    return next(block.text for block in blocks(PAGE) if block.text.startswith(f"# {name}\n"))


@pytest.fixture
def folder(tmp_path, tiny) -> Path:
    """A working folder with data, and a program ``permafrost`` that runs small."""
    write(tmp_path / "mine.csv", ["first", "second", "score", "split"], pairs())
    small = " ".join(f"--set '{one}'" for one in Bench(tmp_path, tiny("bert")).settings() if "seeds" not in one)
    program = tmp_path / "bin" / "permafrost"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nverb=$1; shift\ncase $verb in run) set -- "$@" {small};; esac\n'
        f'exec {sys.executable} {ROOT / "pipeline.py"} $verb "$@"\n'
    )
    program.chmod(0o755)
    return tmp_path


def run(folder: Path, *words: str) -> str:
    path = {"PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(words, cwd=folder, env=os.environ | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(folder.glob("runs/*/record.json"))}


def check_rebuilds(folder: Path, words: list[str], names: list[str]) -> None:
    """Run, run again for nothing, and run again because the data have changed."""
    run(folder, *words)
    first = times(folder)
    assert list(first) == names
    run(folder, *words)
    assert times(folder) == first
    write(folder / "mine.csv", ["first", "second", "score", "split"], pairs(seed=4))
    run(folder, *words)
    assert all(later > first[name] for name, later in times(folder).items())
    seeds = [json.loads((folder / "runs" / name / "record.json").read_text())["name"] for name in names]
    assert seeds == names
    assert not list((folder / "runs").glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_makefile_of_the_guide_makes_runs_once_and_again_if_their_data_change(folder):
    (folder / "Makefile").write_text(example("Makefile"))
    check_rebuilds(folder, ["make"], ["pairs-0", "pairs-1"])
    assert (folder / "comparison.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("snakemake"), reason="snakemake is not installed")
def test_the_snakefile_of_the_guide_makes_runs_once_and_again_if_their_data_change(folder):
    (folder / "Snakefile").write_text(example("Snakefile"))
    check_rebuilds(folder, [sys.executable, "-m", "snakemake", "--cores", "1"], ["snake-0", "snake-1"])
    events = [json.loads(line)["event"] for line in (folder / "night.jsonl").read_text().splitlines()]
    assert events.count("done") == events.count("started") == 4
