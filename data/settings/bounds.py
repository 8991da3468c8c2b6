"""Bounds of files of settings: no file of others may cost more memory or time than settings are worth."""

from pathlib import Path

MOST_LEVELS = 32
"""Most tables or lists within each other, and most parts of a dotted key."""


class OutOfBoundsError(ValueError):
    """Settings that are larger than any settings are; the message goes behind the name of their file."""


def read_file_of_settings(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        OutOfBoundsError: it is larger, or no regular file.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OutOfBoundsError(f"it is {'a folder' if path.is_dir() else 'a device or pipe'}, expected a file")
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    check_size(len(content), most_bytes)
    return content


def check_size(size: int, most: int) -> None:
    """Raise :class:`OutOfBoundsError` if settings have more than ``most`` bytes or characters."""
    if size > most:
        raise OutOfBoundsError(f"it has more than {most / (1 << 20):.0f} MiB, and no settings are so long")


def check_level(level: int) -> None:
    """Raise :class:`OutOfBoundsError` if tables and lists are too deep within each other."""
    if level > MOST_LEVELS:
        raise OutOfBoundsError(f"its tables and lists are more than {MOST_LEVELS} within each other")
