"""TOML from others: a syntax error, or what no settings look like, is an error of one line."""

import re
import tomllib
from pathlib import Path

from permafrost.data.settings.bounds import (
    MOST_LEVELS,
    OutOfBoundsError,
    check_level,
    check_size,
    read_file_of_settings,
)
from permafrost.data.spec import SpecError, Tree

MOST_BYTES = 1 << 20

_TOKEN = re.compile(
    r"""(?P<part> \"{3}(?:\\.|[^\\"]|"(?!""))*+(?:\"{3}|\Z) | '{3}(?:[^']|'(?!''))*+(?:'{3}|\Z)
                | "(?:\\.|[^"\\\n])*+["\n]? | '[^'\n]*+['\n]? | [\w-]++ )
      | (?P<dot> \.) | (?P<open> [\[{]) | (?P<close> [\]}]) | (?P<space> [ \t]++) | (?P<comment> \#[^\n]*+) | .""",
    re.DOTALL | re.VERBOSE,
)
"""Every text is a sequence of these, so that it is scanned once, whatever it holds."""


def read_toml(text: str, source: str) -> Tree:
    """Parse TOML.

    Raises:
        SpecError: it is not valid, or longer or deeper than settings are; the message begins with ``source``.
    """
    try:
        check_size(len(text), MOST_BYTES)
        _check_levels(text)
        return tomllib.loads(text)
    except OutOfBoundsError as error:
        raise SpecError(f"{source}: {error}.") from error
    except (ValueError, RecursionError) as error:  # of syntax, or of a number with thousands of digits
        raise SpecError(f"{source}: not valid TOML: {error}.") from error


def read_toml_file(path: Path) -> Tree:
    """Read a file of TOML; raises as :func:`read_toml`, also if it cannot be read."""
    return read_toml(as_text(read_content(path), path), str(path))


def read_content(path: Path) -> bytes:
    """Return the bytes of a file of TOML; raise a :class:`SpecError` if it cannot be read or is too large."""
    try:
        return read_file_of_settings(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def as_text(content: bytes, path: Path) -> str:
    """Return the bytes of a file as text; raise a :class:`SpecError` if they are not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} cannot be read ({error}).") from error


def _check_levels(text: str) -> None:
    """Raise :class:`OutOfBoundsError` for tables, lists or keys of too many levels, which the parser cannot take."""
    level = dots = 0
    for found in _TOKEN.finditer(text):
        match found.lastgroup:
            case "dot":
                dots += 1
            case "part" | "space":
                pass
            case kind:
                dots = 0
                level += (kind == "open") - (kind == "close")
        check_level(level)
        if dots > MOST_LEVELS:
            raise OutOfBoundsError(f"a key has more than {MOST_LEVELS} parts")
