"""Items: what is predicted at once, one text or two, checked against what the tasks of a run read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from permafrost.data.corpora.records import CorpusError
from permafrost.data.text import NOT_UTF_8, Segments, Text, describe_value, text_problem
from permafrost.probes.config.names import PROBE
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.tasks.base import PAIR, QUESTION, RANKED, SINGLE, Item

ITEM_DESCRIPTIONS = {
    SINGLE: "one text",
    PAIR: "two texts",
    QUESTION: "a question and its context",
    RANKED: "a query and a passage",
}


def tasks_by_text_names(runs: Mapping[str, LoadedRun]) -> dict[Item, list[str]]:
    """Return the tasks that read each form of item, text names -> tasks."""
    tasks: dict[Item, list[str]] = {}
    for task, run in runs.items():
        tasks.setdefault(run.text_names, []).append(task)
    return tasks


def tasks_of_items(runs: Mapping[str, LoadedRun], items: Sequence[Item], locations: Sequence[str]) -> list[list[str]]:
    """Return the tasks that can read each item.

    Raises:
        CorpusError: no task reads as many texts, or the item is a pair to one task and a question to another.
    """
    by_names = tasks_by_text_names(runs)
    tasks = []
    for item, location in zip(items, locations, strict=True):
        candidates = [names for names in by_names if len(names) == len(item)]
        if not candidates:
            raise CorpusError(f"{location}: this run reads {describe_items(by_names)} an item, got {len(item)}.")
        if len(candidates) > 1:
            raise CorpusError(f"{location}: it may be {describe_items(by_names, candidates)}; name the task.")
        tasks.append(by_names[candidates[0]])
    return tasks


def describe_items(by_names: Mapping[Item, Sequence[str]], candidates: Sequence[Item] = ()) -> str:
    """Return a description of some forms of items, or of all, each with its tasks."""
    described = {names: ITEM_DESCRIPTIONS[names] for names in candidates or by_names}
    if list(by_names.values()) == [[PROBE]]:
        return next(iter(described.values()))
    return " or ".join(f"{description} ({', '.join(by_names[names])})" for names, description in described.items())


def list_of_items(given: Any, locations: Sequence[str] = ()) -> list[Item]:
    """Return items as tuples of texts.

    Args:
        given: texts, or tuples, lists or rows of an array of several. A single string is one item.
        locations: as of :func:`check_items`; numbers if empty.

    Raises:
        CorpusError: they are no list of items, or something in them is no string.
    """
    given = [given] if isinstance(given, str) else given
    is_table = isinstance(given, Mapping | bytes | bytearray) or hasattr(given, "columns")
    if is_table or not isinstance(given, Iterable):
        raise CorpusError(f"items must be a list of texts or of tuples of texts, got a {type(given).__name__}.")
    items = []
    for number, item in enumerate(given, 1):
        is_row = isinstance(item, list | tuple) or getattr(item, "ndim", 0) == 1
        texts = tuple(item) if is_row else (item,)
        for text in texts:
            if not isinstance(text, str):
                where = locations[number - 1] if locations else f"item {number}"
                raise CorpusError(f"{where}: expected a text or a tuple of texts, got {describe_value(text)}.")
        items.append(texts)
    return items


def check_items(run: LoadedRun, items: Sequence[Item], locations: Sequence[str]) -> None:
    """Raise :class:`CorpusError` if an item has not as many texts as the run reads, or an empty one."""
    names = run.text_names
    for item, location in zip(items, locations, strict=True):
        if len(item) != len(names):
            raise CorpusError(f"{location}: this run reads {ITEM_DESCRIPTIONS[names]} an item, got {len(item)}.")
        for name, text in zip(names, item, strict=True):
            check_text(location, name if name in (*QUESTION, "text") else f"{name} text", text)


def texts_of_items(run: LoadedRun, items: Iterable[Item]) -> list[Text]:
    """Return the distinct texts that a run reads of items: of a question, one text of two segments."""
    if run.text_names == QUESTION:
        return list(dict.fromkeys(Segments(item[0], item[1]) for item in items))
    return list(dict.fromkeys(text for item in items for text in item))


def check_text(location: str, name: str, text: str) -> None:
    """Raise a :class:`CorpusError` if what is to be predicted or embedded is empty, or can be no text."""
    if problem := text_problem(text):
        hint = "; a question needs a context that answers it" if name in QUESTION and not text.strip() else ""
        if problem == NOT_UTF_8:
            hint = "; save the file as UTF-8, or as UTF-16 with its mark"
        raise CorpusError(f"{location}: the {name} {problem}{hint}.")
