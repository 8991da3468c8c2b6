"""The layout of a corpus, found from its rows: which columns hold texts, target and split, and the kind of target.

Usual names of columns decide first, then the values: texts have several words, a target repeats or is a number.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.files import column_names
from permafrost.data.files.column_names import plain_name
from permafrost.data.files.columns import Column, columns_of
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.spec import nearest

SAMPLE_ROWS = 5000
"""Rows that columns and kind of target are found from."""

MOST_WHOLE = 20
"""Distinct whole numbers up to which a column of them holds classes, not scores."""

MOST_NAMED = 12
"""Columns that a message names."""


@dataclass(frozen=True)
class Layout:
    """Columns of a corpus and the kind of its target."""

    columns: tuple[str, ...]
    """Texts, then the target."""

    target: Kind
    split_column: str = ""
    """Empty if no column names splits."""

    label_separator: str = ""
    """For several labels a row: what separates them; empty if they are lists."""

    indicators: tuple[str, ...] = ()
    """Columns that each say whether a row has a label; the columns are texts alone then."""


def find_layout(rows: Sequence[TypedRow], columns: Sequence[str], hint: Kind, place: str) -> Layout:
    """Return the layout of a corpus from a sample of its rows.

    Args:
        rows: the sample.
        columns: names or positions from 1 that the user gives, texts first, then the target; empty finds them.
        hint: the kind of target that the recipe is for, taken if the values can be of that kind; empty if unknown.
        place: the file, for messages.

    Raises:
        CorpusError: a column is missing, or it is not clear which columns hold texts and target.
    """
    known = columns_of(rows)
    split = next((name for name in known if known[name].is_split and _tells_splits(known[name], len(rows))), "")
    if columns:
        names = tuple(named_column(known, column, place) for column in columns)
        if repeated := [name for name in names if names.count(name) > 1]:
            raise CorpusError(f"{place}: corpus.columns (--columns) names '{repeated[0]}' twice: {_list(columns)}.")
        marks = _indicators_at_end(known, names)
        if len(names) == 1:
            return Layout(names, "none", split)
        if numbers := [name for name in names[1:-1] if known[name].is_number and name not in marks]:
            raise CorpusError(
                f"{place}: column '{numbers[0]}' holds numbers and stands where corpus.columns (--columns) names "
                "texts: name one text or two, then the target; several columns are labels if each value is 1 or 0."
            )
        if marks and hint in ("", "class", "labels"):
            return Layout(names[: -len(marks)], "labels", split, indicators=marks)
        texts, target = names[:-1], names[-1]
        if len(texts) == 1 and known[target].is_text and not known[target].is_class:
            return Layout(names, "rank" if hint == "rank" else "none", split)
    else:
        texts = _find_texts(known, hint, place)
        targets = _find_targets(known, texts, hint, place)
        if len(targets) > 1:
            return Layout(texts, "labels", split, indicators=targets)
        if not targets:
            return Layout(texts, "rank" if hint == "rank" and len(texts) > 1 else "none", split)
        target = targets[0]
    _check_target(known[target], hint, place)
    kind = "rank" if not hint and _are_ranked(known, texts, target) else _kind_of(known[target], hint, len(texts) == 2)
    separator = known[target].separator if kind == "labels" and not known[target].is_list else ""
    return Layout((*texts, target), kind, split, separator)


def _indicators_at_end(known: dict[str, Column], names: Sequence[str]) -> tuple[str, ...]:
    """Return the last of some columns that each say whether a row has a label; empty if there is one or none."""
    texts = next((number for number in range(len(names), 0, -1) if not known[names[number - 1]].is_indicator), 0)
    marks = tuple(names[texts:])
    return marks if texts and len(marks) > 1 else ()


def _are_ranked(known: dict[str, Column], texts: Sequence[str], target: str) -> bool:
    """Return whether rows are passages of queries with their relevance, by the name of its column.

    Relevances are whole numbers from 0, and a query has several passages.
    """
    column, queries = known[target], known[texts[0]].counts
    is_relevance = column.is_whole and not any(text.startswith("-") for text in column.counts)
    return len(texts) == 2 and plain_name(target) in column_names.RANKS and is_relevance and max(queries.values()) > 1


def _kind_of(column: Column, hint: Kind, paired: bool) -> Kind:
    """Return the kind of target that values are; ``hint`` is taken if they can be that."""
    if column.is_list or (not column.is_number and column.separator and hint in ("", "class", "labels")):
        return "labels"
    if not column.is_number:
        return hint if hint in ("labels", "class", "rank") else "class"
    if hint in ("score", "rank") or (hint in ("class", "labels") and column.is_whole):
        return hint
    name = plain_name(column.name)
    scale = name in column_names.SCORES or (paired and name in column_names.RELEVANCES[1:] and not column.is_whole)
    return "class" if column.is_whole and not scale and len(column.counts) <= MOST_WHOLE else "score"


def _check_target(column: Column, hint: Kind, place: str) -> None:
    """Raise a :class:`CorpusError` if values are no target: objects, texts, or numbers with a comma."""
    if column.is_nested:
        raise CorpusError(
            f"{place}: column '{column.name}' holds values such as {column.texts[0][:60]!r}, which are no target; set "
            "corpus.columns (--columns) to your columns of texts and of a class, a score, or a list of labels."
        )
    is_word = not column.is_number and not column.is_list and not column.separator
    if is_word and hint not in ("class", "labels", "rank") and len(column.counts) > max(MOST_WHOLE, column.rows / 2):
        raise CorpusError(
            f"{place}: column '{column.name}' is to be the target and holds values such as {column.texts[0][:60]!r}, "
            'hardly two alike; set corpus.target (--target) to "rank" if they are passages, or to "class", or '
            "corpus.columns (--columns) to another target; write scores as numbers alone."
        )
    if is_word and hint == "rank" and column.is_class and not (column.is_text or column.is_indicator):
        raise CorpusError(
            f"{place}: column '{column.name}' holds values such as {column.texts[0][:60]!r}; a relevance is a number, "
            "0 if a passage is not relevant: set corpus.columns (--columns) to query, passage and relevance."
        )
    if column.has_decimal_commas and hint not in ("class", "labels"):
        example = next(text for text in column.texts if "," in text)
        raise CorpusError(
            f"{place}: column '{column.name}' holds values such as {example!r}: write numbers with a point, or set "
            'corpus.decimal = "comma"; or set corpus.target (--target) to "labels" or "class" if they are no numbers.'
        )


def _tells_splits(column: Column, rows: int) -> bool:
    """Return whether words for splits are more than a constant, as far as a sample tells that may end before others."""
    return len(column.counts) > 1 or rows >= SAMPLE_ROWS or plain_name(column.name) in ("set", "split", "partition")


def named_column(known: Collection[str], column: str, place: str) -> str:
    """Return the name of a column that is given by its name, in any case, or by its position from 1.

    Raises:
        CorpusError: there is none.
    """
    if column in known:
        return column
    if column.isdecimal() and 1 <= int(column) <= len(known):
        return list(known)[int(column) - 1]
    alike = [name for name in known if plain_name(name) == plain_name(column)]
    if len(alike) == 1:
        return alike[0]
    raise CorpusError(
        f"{place}: no column '{column}'; set corpus.columns (--columns) to some of {_list(known)}, or to positions "
        f"from 1. {nearest(column, known)}"
    )


def _find_texts(known: dict[str, Column], hint: Kind, place: str) -> tuple[str, ...]:
    """Return the one or two columns of texts; more if passages are to be ranked."""
    by_plain = {plain_name(name): name for name in reversed(known)}
    texts = [name for name, column in known.items() if column.is_text]
    if hint == "rank" and len(texts) > 2 and not _relevances(known, hint):
        return tuple(texts)  # query, a relevant passage, and others
    can_be_text = {name for name, column in known.items() if not column.is_nested and not column.is_list}
    for first, second in column_names.PAIRS:
        if first in by_plain and second in by_plain and {by_plain[first], by_plain[second]} <= can_be_text:
            return by_plain[first], by_plain[second]
    usual = column_names.TEXTS if texts else (*column_names.TEXTS, *column_names.PARTS)
    named = [by_plain[name] for name in usual if by_plain.get(name) in can_be_text]
    named = [name for name in named if not known[name].is_number]
    if len(texts) != 1 and named and (not texts or set(texts) & set(named)):
        return (next((name for name in named if name in texts), named[0]),)
    if not texts and len(known) == 1 and can_be_text:
        return tuple(known)
    if not 1 <= len(texts) <= 2:
        found = f"{len(texts)} columns hold texts ({_list(texts)})" if texts else "no column holds texts"
        raise CorpusError(
            f"{place}: {found}; set corpus.columns (--columns) to one or two columns of texts, then the target, of: "
            f"{_list(known)}."
        )
    return tuple(texts)


def _relevances(known: dict[str, Column], hint: Kind) -> list[str]:
    """Return the columns of numbers that have usual names of targets."""
    names = {name for usual in _usual_targets(hint) for name in usual}
    return [name for name, column in known.items() if column.is_number and plain_name(name) in names]


def _find_targets(known: dict[str, Column], taken: Sequence[str], hint: Kind, place: str) -> tuple[str, ...]:
    """Return the column of the target; of labels all columns that say whether a row has one; empty if there is none."""
    others = {
        name: column for name, column in known.items() if name not in taken and column.values and not column.is_split
    }
    scores = [name for name, column in others.items() if column.is_number and not column.is_key]
    scores = scores or [name for name, column in others.items() if column.has_decimal_commas]
    numeric = hint in ("score", "rank")
    usable = [name for name, column in others.items() if not numeric or column.is_number or column.has_decimal_commas]
    named = [
        found for names in _usual_targets(hint) if (found := [name for name in usable if plain_name(name) in names])
    ]
    candidates = named[0] if named else [name for name, column in others.items() if column.can_be_target]
    if not named and hint in ("score", ""):
        real = [name for name in scores if not known[name].is_whole]
        is_clear = bool(hint) or (len(real) == 1 and len(taken) > 1)
        candidates = real if real and is_clear else (scores if hint else candidates)
    if not candidates and len(known) == 2 and hint in ("", "class", "labels"):
        candidates = [name for name, column in others.items() if len(column.counts) == 1]  # rows sorted by class
    marks, remedy = [name for name, column in others.items() if column.is_indicator], ""
    if len(candidates) > 1 and set(candidates) <= set(marks):
        if hint == "labels":
            return tuple(marks)
        remedy = ', or set corpus.target (--target) to "labels" if each is a label'
    if len(candidates) > 1:
        raise CorpusError(
            f"{place}: the target could be any of {_list(candidates)}; name the columns by corpus.columns (--columns), "
            f"e.g. {','.join([*taken, candidates[0]])}{remedy}."
        )
    return tuple(candidates)


def _usual_targets(hint: Kind) -> list[tuple[str, ...]]:
    """Return the usual names of columns of targets, those first which decide if columns of several are there."""
    classes, scores = column_names.CLASSES, column_names.SCORES
    orders: dict[str, list[tuple[str, ...]]] = {
        "": [(*classes, *scores)], "score": [scores, classes], "rank": [column_names.RELEVANCES, scores, classes],
    }  # fmt: skip
    return [*orders.get(hint, [classes, scores]), column_names.TOPICS]


def _list(names: Collection[str]) -> str:
    names, others = list(names)[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(names) + (f" and {others} others" if others > 0 else "")
