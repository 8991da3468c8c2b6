"""Options that several commands share become settings of a recipe."""

import pytest

from permafrost import api
from permafrost.cli.main import app
from permafrost.cli.options import recipe_overrides, size_in_bytes
from permafrost.data.spec import SpecError

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
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "1e9", "20 apples", "1.GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SpecError, match="expected a size such as 500MB"):
        size_in_bytes(text)


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

        def hear(*arguments, command=command):
            raise HeardError(command, [meant] in arguments)

        monkeypatch.setattr(api, command, hear)
        with pytest.raises(HeardError) as heard:
            app([command, "x", *typed], standalone_mode=False)
        assert heard.value.args == (command, True)
