"""What is no change survives and what breaks a module is killed; mutants are drawn by a seed, and remembered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import LEAST, REASONS, reasons, show
from tests.mutants.campaign import Campaign, Line, survivors, table
from tests.mutants.mutation import changed_lines, compiles, mutants_of, mutated
from tests.mutants.subjects import SUBJECTS
from tests.mutants.trial import Outcome

ROOT = Path(__file__).parents[2]

SOURCE = '''
"""Not a - b."""
LIMIT: int | None = 3


def add(first: int | str, second: int = 2) -> int | None:
    return first + second if first is not None else None
'''

NULL_AND_BROKEN = """
import sys
from pathlib import Path
from tests.mutants.trial import Copy, import_what_tests_need
import_what_tests_need()
root, module = Path(sys.argv[1]), "data/store/identity.py"
copy, source = Copy(root, Path(sys.argv[2]) / "tree"), (root / module).read_text()
for changed in (source, source.replace("return fingerprint(self)", "return '0' * 16"), source + "+", source):
    outcome = copy.try_with(module, changed, ["tests/data/store/test_identity.py"], 120)
    print(outcome.killed, outcome.by)
stops = source.replace("return fingerprint(self)", "import time; time.sleep(60)")
print(copy.try_with(module, stops, ["tests/data/store/test_identity.py"], 5).by)
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that has imported no permafrost."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_no_change_survives_and_a_change_that_breaks_a_module_is_killed(tmp_path):
    done = run("-c", NULL_AND_BROKEN, str(ROOT), str(tmp_path))
    unchanged, planted, broken, again, stopped = done.stdout.splitlines()[-5:] or [done.stderr]
    assert unchanged == again == "False ", done.stdout
    assert planted.startswith("True tests/data/store/test_identity.py::")
    assert broken.startswith("True ")
    assert stopped == "no end"


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    command = ["-m", "tests.mutants", "--only", "data/store/identity", "--folder", str(tmp_path), "--mutants"]
    first = run(*command, "2")
    (log,) = tmp_path.glob("*.jsonl")
    before = log.read_text()
    second = run(*command, "4", "--processes", "2")
    assert log.read_text().startswith(before), second.stderr
    assert [len(log.read_text().splitlines()), len(before.splitlines())] == [4, 2]
    killed = [json.loads(line)["outcome"]["killed"] for line in log.read_text().splitlines()]
    assert (first.returncode, second.returncode) == (sum(killed[:2]) < LEAST * 2, sum(killed) < LEAST * 4)
    assert list(tmp_path.iterdir()) == [log]


def test_mutants_are_all_changes_but_those_of_annotations(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    found = mutants_of("module.py", tmp_path)
    changed = [changed_lines(SOURCE, mutant) for mutant in found]
    assert {mutant.line for mutant in found} == {3, 6, 7}
    assert ("LIMIT: int | None = 3", "LIMIT: int | None = 4") in changed
    added = "return first + second if first is not None else None"
    assert (added, "return first * second if first is not None else None") in changed
    assert (added, "return first + second if first is None else None") in changed
    assert all(before != after for before, after in changed)
    assert not any("int" in before and "|" not in after for before, after in changed)
    assert all(compiles(mutated(SOURCE, mutant)) for mutant in found)
    assert not compiles(SOURCE + "+")


def test_a_sample_is_that_of_its_seed(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    campaign = Campaign({"module.py": ()}, tmp_path, tmp_path / "log")
    assert campaign.sample(3, 0) == campaign.sample(3, 0) != campaign.sample(3, 1)
    assert sorted(campaign.sample(1000, 0)) == campaign.mutants
    assert len(set(campaign.sample(5, 2))) == 5


def test_survivors_are_shown_with_the_reason_or_that_there_is_none(tmp_path, monkeypatch, capsys):
    (tmp_path / "module.py").write_text(SOURCE)
    found = mutants_of("module.py", tmp_path)[:3]
    outcomes = {mutant: Outcome(killed=number == 0, by="", seconds=1) for number, mutant in enumerate(found)}
    assert table(outcomes) == [Line("module.py", 3, 1)]
    assert survivors(outcomes) == found[1:]
    before, after = changed_lines(SOURCE, found[1])
    monkeypatch.setattr("tests.mutants.__main__.reasons", lambda: {("module.py", before, after): "it is the same"})
    show(outcomes, tmp_path)
    said = capsys.readouterr().out
    assert said.count("it is the same") == said.count("no reason given") == 1
    assert f"+ {after}" in said


def test_every_reason_is_of_a_line_that_there_is():
    assert REASONS.is_file()
    for (module, before, after), reason in reasons().items():
        lines = [line.strip() for line in (ROOT / module).read_text("utf-8").splitlines()]
        assert before in lines, (module, before)
        assert before != after
        assert reason


def test_every_subject_and_its_tests_are_there():
    for module, tests in SUBJECTS.items():
        assert all((ROOT / path).is_file() for path in (module, *tests))
