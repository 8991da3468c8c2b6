"""First lines of messages."""

import pytest

from permafrost.data.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [("no room.\nat line 3", "no room"), ("\n  no room ", "no room"), ("", "ValueError"), ("x" * 300, "x" * 200)],
)
def test_a_first_line_is_one_short_line_without_its_full_stop(message, line):
    assert first_line(ValueError(message)) == line
