"""Settings of others: what is larger or deeper than settings are is refused in one line, in little time and memory."""

import json
import os
from dataclasses import dataclass

import pytest

from permafrost.batches.spec import toml_or_text
from permafrost.data.settings.bounds import MOST_LEVELS
from permafrost.data.settings.json import read_json_object
from permafrost.data.settings.toml import MOST_BYTES, read_toml, read_toml_file
from permafrost.data.spec import Raw, SpecError, parse

HOSTILE = {
    "a key of many parts": ".".join(["a"] * 100_000) + " = 1",
    "a table of many parts": "[" + ".".join(["a"] * 100_000) + "]",
    "quoted parts": ".".join(['"a b"', "'c d'"] * 50_000) + " = 1",
    "parts with spaces": " . ".join(["a"] * 10_000) + " = 1",
    "lists": "a = " + "[" * 100_000,
    "tables": "[" * 100_000,
    "tables in line": "a = " + "{a = " * 100_000,
    "a number of many digits": "a = " + "9" * 5_000,
    "many bytes": "a = '" + "x" * MOST_BYTES + "'",
    "quotes without an end": '"\\' * 100_000,
    "long strings without an end": '"""' * 100_001,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_toml_is_one_line(text):
    with pytest.raises(SpecError, match=r"^from others: ") as refused:
        read_toml(text, "from others")
    assert len(str(refused.value)) < 200


@dataclass(frozen=True)
class Typed:
    value: object


@pytest.mark.parametrize("read", [toml_or_text, lambda text: parse(Typed, {"value": Raw(text)}, "").value])
@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 5_000])
def test_a_value_that_cannot_be_parsed_is_text_wherever_it_is_typed(read, value):
    assert read(value) == value


def test_settings_as_deep_as_they_may_be_are_read():
    parts = [f"p{number}" for number in range(MOST_LEVELS)]
    tree = read_toml(f"{'.'.join(parts)}.last = {'[' * MOST_LEVELS}1.5{']' * MOST_LEVELS}\n", "")
    for part in parts:
        tree = tree[part]
    assert json.dumps(tree["last"]) == "[" * MOST_LEVELS + "1.5" + "]" * MOST_LEVELS


def test_brackets_and_dots_in_strings_and_comments_mean_nothing():
    many = "[{" * 100 + "a." * 100
    text = f"a = \"{many}\"\nb = '{many}' # {many}\nc = \"\"\"\n{many}\"\"\"\nd = '''\n{many}'''"
    assert read_toml(text, "") == dict.fromkeys("abcd", many)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "recipe.toml")
    with pytest.raises(SpecError, match="a device or pipe"):
        read_toml_file(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": ' + "[" * 100_000, "too deep|recursion"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "more than"),
        ('{"a": "' + "x" * (1 << 24) + '"}', "MiB"),
        ("[1]", "not a JSON object"),
    ],
    ids=["very deep", "deep", "large", "a list"],
)
def test_hostile_json_is_one_line(tmp_path, content, problem):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_json_object(path)
