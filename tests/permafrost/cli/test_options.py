"""Options that several commands share become settings of a recipe; the formats of printed tables."""

import re

import pytest
from typer.testing import CliRunner

from permafrost import api
from permafrost.cli import inspect
from permafrost.cli.main import app
from permafrost.cli.options import recipe_overrides
from permafrost.data.machine import size_in_bytes
from permafrost.data.spec import SpecError
from permafrost.probes.reports.report import result_grids
from tests.support.example_run import example

WITH_SIZE = ("run", "extract", "ablate", "study", "similarity")
STRICT = ("run", "extract", "train", "ablate", "study")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 10**6), ("500MB", 500 * 10**6), ("20GB", 20 * 10**9), ("1.5 gib", 3 * 2**29), ("2k", 2000),
        ("7B", 7), ("1TiB", 2**40),
    ],
)  # fmt: skip
def test_a_size_is_written_with_a_unit_or_without(text, size):
    assert size_in_bytes(text, "--max-bytes") == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "1e9", "20 apples", "1.GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SpecError, match="expected a size such as 500MB"):
        size_in_bytes(text, "--max-bytes")


def test_an_option_with_a_name_of_its_own_comes_after_set():
    assert recipe_overrides(["extract.max_bytes=1"], "2KB", strict=True) == [
        "extract.max_bytes=1", "extract.max_bytes=2000", "corpus.strict=true",
    ]  # fmt: skip
    assert recipe_overrides(None) == []


@pytest.mark.parametrize(("option", "commands"), [("max_bytes", WITH_SIZE), ("strict", STRICT)])
def test_every_command_that_reads_or_stores_has_the_option(option, commands, monkeypatch):
    typed = ["--max-bytes", "2KB"] if option == "max_bytes" else ["--strict"]
    meant = "extract.max_bytes=2000" if option == "max_bytes" else "corpus.strict=true"

    class HeardError(Exception):
        """The overrides arrived."""

    for command in commands:

        def hear(*arguments, command=command, **own):
            raise HeardError(command, [meant] in arguments)

        monkeypatch.setattr(api, command, hear)
        with pytest.raises(HeardError) as heard:
            app([command, "x", *typed], standalone_mode=False)
        assert heard.value.args == (command, True)


@pytest.mark.parametrize("table_format", inspect.FORMATS)
def test_the_results_of_a_run_are_printed_in_a_format(table_format, tmp_path, capsys):
    folder = example(tmp_path / "run")
    app(["report", str(folder), "--format", table_format], standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed == "\n".join(inspect.FORMATS[table_format](grid) for grid in result_grids(folder))
    assert not (folder / "report.html").exists()


def test_the_comparison_of_runs_is_printed_in_a_format(tmp_path, capsys):
    one, other = example(tmp_path / "one"), example(tmp_path / "other")
    app(["report", str(one), str(other), "--format", "markdown"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| run | corpus | chosen |")
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| one", "| other"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "latx"], "--format 'latx': Did you mean 'latex'?"),
        (["--format", "pdf"], "--format 'pdf': Known: latex, markdown."),
        (["--format", "latex", "--json"], "--format and --json both say what is printed"),
    ],
)
def test_a_format_that_there_is_not_is_refused(words, message, tmp_path):
    with pytest.raises(SpecError, match=re.escape(message)):
        app(["report", str(tmp_path), *words], standalone_mode=False)


@pytest.mark.parametrize("words", [["list"], ["show"], ["verify"], ["repair"], ["prune"]])
def test_the_cache_is_that_of_the_working_folder_unless_an_option_says_otherwise(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ([], ["--cache", "elsewhere"]):
        assert CliRunner().invoke(app, ["cache", *words, *option]).exit_code == 0
