"""Rows of JSON: a line or a list item each; or the lists of an object, by split or by column."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.errors import CorpusError
from permafrost.data.files.column_names import split_of
from permafrost.data.files.opening import LONGEST_LINE, MOST_FIELDS, lines_of, read_whole
from permafrost.data.files.settings import Skip, refuse_row
from permafrost.data.text import NOT_UTF_8

TypedRow = tuple[str, Mapping[str, Any]]
"""Origin (``file:line``), and the fields by column with the types of the file: text, numbers, lists, None."""

TEXT = "sentence"
"""Column of texts that have no name: lines, or items of a list."""

SPLIT = "split"
"""Column of the split of a row whose split is named outside the row."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""JSON escape of a surrogate: half of a character beyond 16 bits. Without its other half, it cannot be encoded."""


class _BrokenJsonError(Exception):
    """JSON that cannot be read: the reason, in the same words for all of a kind, and the problem."""


def read_jsonl(path: Path, encoding: str = "auto", skip: Skip = refuse_row) -> Iterator[TypedRow]:
    """Read one JSON object or list per line; the items of a list are columns by their position from 1."""
    for number, line in lines_of(path, encoding):
        if line.strip():
            origin = f"{path}:{number}"
            try:
                value = _parse(line)
            except _BrokenJsonError as error:
                skip(origin, *error.args)
                continue
            yield origin, _fields(origin, value)


def read_json(path: Path) -> Any:
    """Read a file that is a single JSON value."""
    content = read_whole(path)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}:{line}: not UTF-8 at byte {error.start + 1}; save it as UTF-8.") from None
    try:
        return _parse(text)
    except _BrokenJsonError as error:
        raise CorpusError(f"{path}: {error.args[1]}.") from None


def is_squad(value: Any) -> bool:
    """Return whether a JSON value has the layout of SQuAD: articles of paragraphs under ``data``."""
    articles = value.get("data") if isinstance(value, dict) else None
    return isinstance(articles, list) and any(isinstance(item, dict) and "paragraphs" in item for item in articles[:1])


def json_rows(path: Path, value: Any) -> Iterator[TypedRow]:
    """Yield the rows of a JSON value.

    Args:
        path: of the file, for origins.
        value: a list of objects or of lists; an object of such lists by split; or an object of lists, or of objects
            with the same keys, by column, as pandas writes them.

    Raises:
        CorpusError: it is none of these.
    """
    value = _inner(value)
    if isinstance(value, list):
        yield from _items(f"{path}: item", [{TEXT: item} if isinstance(item, str) else item for item in value])
    elif isinstance(value, dict) and value and all(_is_table(table) for table in value.values()):
        for split, table in value.items():
            if split in foreign_splits(value):
                continue
            yield from ((origin, {**fields, SPLIT: split}) for origin, fields in _items(f"{path}: {split}", table))
    elif isinstance(value, dict) and value and _same_length(value.values()):
        keys = next((list(item) for item in value.values() if isinstance(item, dict)), [])
        columns = {
            name: [item[key] for key in keys] if isinstance(item, dict) else item for name, item in value.items()
        }
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            yield f"{path}: item {number}", _fields(f"{path}: item {number}", dict(zip(columns, row, strict=True)))
    else:
        raise CorpusError(
            f"{path}: expected a list of objects, an object of lists by split or by column, or SQuAD's layout; write "
            "it as one of these, or as .jsonl with one object per line."
        )


def is_object(line: str) -> bool:
    """Return whether a line is a JSON object."""
    return line.startswith("{") and isinstance(_loaded(line), dict)


def is_list(line: str) -> bool:
    """Return whether a line is a JSON list."""
    return line.startswith("[") and isinstance(_loaded(line), list)


def _loaded(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _inner(value: Any) -> Any:
    """Return the rows of an object that holds them under "data", as the only list of objects, or as objects by key."""
    if not isinstance(value, dict):
        return value
    lists = [item for item in value.values() if isinstance(item, list)]
    if isinstance(value.get("data"), list):
        names, rows = value.get("columns"), value["data"]
        if isinstance(names, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]
        return rows
    if len(lists) == 1 and lists[0] and len(value) > 1 and all(isinstance(item, dict) for item in lists[0]):
        return lists[0]
    is_by_key = value and all(isinstance(item, dict) and item for item in value.values())
    if is_by_key and not any(key.isdecimal() for item in value.values() for key in list(item)[:1]):
        return list(value.values())
    return value


def foreign_splits(value: Any) -> dict[str, int]:
    """Return the keys of an object of lists by split that are no words for splits, with their numbers of rows.

    They are left out, such as the rows out of scope of CLINC150, if other keys are splits.
    """
    if not isinstance(value, dict) or not any(map(split_of, value)) or not all(map(_is_table, value.values())):
        return {}
    return {name: len(table) for name, table in value.items() if not split_of(name)}


def _items(place: str, items: list[Any]) -> Iterator[TypedRow]:
    for number, item in enumerate(items, 1):
        yield f"{place} {number}", _fields(f"{place} {number}", item)


def _fields(origin: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list | dict) and len(value) > MOST_FIELDS:
        raise CorpusError(f"{origin}: a row has {len(value):,} fields, and at most {MOST_FIELDS:,} are read.")
    if isinstance(value, list):
        return {str(number): item for number, item in enumerate(value, 1)}
    if isinstance(value, dict):
        if any(isinstance(item, str) and len(item) > LONGEST_LINE for item in value.values()):
            raise CorpusError(
                f"{origin}: a text has more than {LONGEST_LINE >> 20} million characters; cut it into several."
            )
        return value
    raise CorpusError(f"{origin}: expected a JSON object, found {type(value).__name__}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict | list) for item in value[:100])


def _same_length(columns: Iterable[Any]) -> bool:
    """Return whether values are all lists of the same length, or objects with the same keys."""
    columns = list(columns)
    lengths = {len(column) if isinstance(column, dict | list) else -1 for column in columns}
    keys = {frozenset(column) for column in columns if isinstance(column, dict)}
    return len(lengths) == 1 and -1 not in lengths and len(keys) <= 1


def _parse(text: str) -> Any:
    try:
        value = _DECODER.decode(text)
        if SURROGATE.search(text) or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        if "\udc80" <= half <= "\udcff" and half in text:
            raise _BrokenJsonError(f"line that {NOT_UTF_8}", f"the line {NOT_UTF_8}") from None
        problem = f"it holds half a character ({half!r}, a lone surrogate)"
        raise _BrokenJsonError("line with half a character", problem) from None
    except (ValueError, RecursionError) as error:
        raise _BrokenJsonError("line that is not JSON", f"not valid JSON ({error})") from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"it names '{min(name for name, count in counts.items() if count > 1)}' twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates)
