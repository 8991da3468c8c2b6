"""JSON objects from others, such as the configuration of a model."""

import json
from pathlib import Path
from typing import Any

from permafrost.data.settings.bounds import OutOfBoundsError, check_level, read_file_of_settings

MOST_BYTES = 1 << 24


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, not JSON, no object, or larger or deeper than settings are.
    """
    content = read_file_of_settings(path, MOST_BYTES)
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise OutOfBoundsError("its lists and objects are too deep within each other") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    _check_levels(values)
    return values


def _check_levels(value: Any) -> None:
    """Raise :class:`OutOfBoundsError` for too many levels of lists and objects."""
    level, values = 0, [value]
    while values:
        check_level(level)
        items = (item.values() if isinstance(item, dict) else item for item in values if isinstance(item, dict | list))
        values, level = [item for inner in items for item in inner], level + 1
