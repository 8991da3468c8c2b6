"""What a corpus spec leaves open about a file, found from the file: columns, kind of target, range of scores, splits.

The spec that results names these, so that a run records them.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.tag_schemes import OUTSIDE
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.errors import EMPTY_ROW
from permafrost.data.files import column_names
from permafrost.data.files.column_names import plain_name
from permafrost.data.files.columns import columns_of
from permafrost.data.files.dialect import is_number
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.settings import FileFormat
from permafrost.data.files.table import Table, open_table
from permafrost.data.readers.conll import HEADER_TAGS, HEADER_WORDS, TAGS
from permafrost.data.readers.layout import SAMPLE_ROWS, Layout, find_layout
from permafrost.data.readers.sources import SplitFiles, find_files
from permafrost.data.writing.words import read_entities

GROUPS = ("text", "second", "label")
"""Groups of a regular expression that matches a line, in the order of columns."""

TAG = re.compile(r"(O|[A-Za-z]+([-/][A-Za-z]+)*|[BIELSUMW][-_][\w-]+|[\w]+[-_][BIELSUMW])")


PREFIXED = re.compile(r"O|[BIELSUMW][-_]\S+")
"""Tag with a prefix, or none."""


@dataclass(frozen=True)
class ResolvedCorpus:
    """A corpus spec with what was found in its files."""

    spec: CorpusSpec
    files: SplitFiles
    """Split and file; the empty name is a single file."""

    description: str
    """A line for the user: format, columns, target and splits."""


def resolve_corpus(spec: CorpusSpec, hint: Kind = "") -> ResolvedCorpus:
    """Return the spec of a file with what it leaves open.

    Args:
        spec: of a corpus with a path.
        hint: the kind of target that a recipe is for; taken if the file can be of that kind and the spec names none.

    Raises:
        CorpusError: the file cannot be read, or it is not clear what its columns hold.
    """
    path = Path(spec.path).expanduser()
    files = find_files(path)
    table = open_table(files[0][1], file_format(spec))
    kind = spec.target or _kind_of_file(table, hint)
    reads = TARGETS[kind].reads if kind else "columns"
    if reads != "columns":
        columns = _tag_columns(table) if reads == "words" and not spec.columns else spec.columns
        resolved = replace(spec, target=kind, columns=columns)
        return ResolvedCorpus(resolved, files, f"{path.name}: {_format_of(table, kind)}; target: {kind}")
    pattern = line_pattern(spec.columns)
    if pattern:
        columns = pattern_columns(pattern)
        layout = Layout(columns, kind or ("class" if "label" in columns else "none"))
    else:
        layout = _layout_of_table(table, spec, kind or hint)
    if kind and TARGETS[kind].has_target and layout.target == "none" and len(spec.columns) < 2:
        raise CorpusError(
            f"{path}: no column of the target was {'named' if spec.columns else 'found'}; set corpus.columns "
            f"(--columns) to texts, then the column that holds the {kind}, e.g. {','.join(layout.columns)},NAME."
        )
    if spec.rule:
        layout = replace(layout, columns=spec.columns or layout.columns[:1], target="class")
    spec = _with_layout(spec, layout, bool(pattern))
    files, left_out = _with_target(files, table, spec)
    if spec.target == "score" and spec.score_range == "auto":
        spec = replace(spec, score_range=_score_range(files, spec))
    description = "; ".join((_describe(path, table, spec, len({split for split, _ in files})), *left_out))
    return ResolvedCorpus(spec, files, description)


def _with_target(files: SplitFiles, first: Table, spec: CorpusSpec) -> tuple[SplitFiles, list[str]]:
    """Return the files without those that name their columns and have none of the target, and a note on each."""
    if not spec.target or not TARGETS[spec.target].has_target or line_pattern(spec.columns):
        return files, []
    target, kept, left_out = (spec.indicators or spec.columns)[-1], list[tuple[str, Path]](), list[str]()
    for split, path in files:
        table = open_table(path, file_format(spec), first)
        names = {name for _, fields in islice(table.rows(skip=lambda *_: None), 1) for name in fields}
        is_named = table.kind in ("parquet", "arrow", "xlsx", "jsonl", "reader") or table.dialect.header
        if split in ("", "train") or not names or not is_named or target in names:
            kept.append((split, path))
        else:
            left_out.append(f"without {path.name}, which has no column '{target}'")
    return kept, left_out


def file_format(spec: CorpusSpec) -> FileFormat:
    """Return what a spec says of how its files are written; a regular expression reads whole lines."""
    delimiter = "none" if line_pattern(spec.columns) else spec.delimiter
    return FileFormat(spec.encoding, delimiter, spec.quoting, spec.header, spec.decimal, spec.reader)


def line_pattern(columns: Sequence[str]) -> re.Pattern[str] | None:
    """Return the regular expression that ``corpus.columns`` is; None if it holds names.

    Raises:
        CorpusError: it is not valid, or has no group ``text``.
    """
    if len(columns) != 1 or "(?P<" not in columns[0]:
        return None
    try:
        pattern = re.compile(columns[0])
    except re.error as error:
        raise CorpusError(f"corpus.columns: {columns[0]!r} is no regular expression ({error}).") from None
    if "text" not in pattern.groupindex or set(pattern.groupindex) - set(GROUPS):
        raise CorpusError(
            f"corpus.columns: the groups of {columns[0]!r} must be text, second (of pairs) and label, "
            f"got {', '.join(pattern.groupindex)}."
        )
    return pattern


def pattern_columns(pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return the groups of a regular expression that matches a line, in the order of columns."""
    return tuple(name for name in GROUPS if name in pattern.groupindex)


def _layout_of_table(table: Table, spec: CorpusSpec, hint: Kind) -> Layout:
    skipped = list[tuple[str, str, str]]()
    rows = list(islice(table.rows(skip=lambda *row: skipped.append(row)), SAMPLE_ROWS))
    skipped = [row for row in skipped if row[1] != EMPTY_ROW]
    if not rows and skipped:
        raise CorpusError(
            f"{skipped[0][0]}: {skipped[0][2]}; no row can be read: set corpus.delimiter, corpus.quoting or "
            'corpus.header, e.g. corpus.delimiter = "none" for a text in each line.'
        )
    if not rows:
        raise CorpusError(f"{table.path}: it holds no rows.")
    if spec.rule and not spec.columns:
        hint = "none"
    if spec.indicators:
        return Layout(spec.columns, "labels", spec.split_column, indicators=spec.indicators)
    return find_layout(rows, spec.columns, hint, str(table.path))


def sample_rows(table: Table) -> list[TypedRow]:
    """Return the first rows of a file that can be read."""
    return list(islice(table.rows(skip=lambda *_: None), SAMPLE_ROWS))


def _with_layout(spec: CorpusSpec, layout: Layout, is_pattern: bool) -> CorpusSpec:
    target = spec.target or layout.target
    return replace(
        spec,
        columns=spec.columns if is_pattern else layout.columns,
        target="" if spec.rule else target,
        split_column=layout.split_column or spec.split_column,
        label_separator=layout.label_separator or spec.label_separator,
        indicators=layout.indicators,
    )


def _kind_of_file(table: Table, hint: Kind) -> Kind:
    """Return the kind of target that the format of a file tells: answers or tags; empty for a table of columns."""
    if table.kind == "squad":
        return "answers"
    if hint and TARGETS[hint].reads != "columns":
        return hint
    rows = sample_rows(table)
    names = {name for _, fields in rows[:1] for name in fields}
    if {"question", "context"} <= names and names & {"answer", "answers"}:
        return "answers"
    if table.kind == "text":
        return "tags" if _is_tagged(rows, table.dialect.header) else ""
    return "tags" if _list_columns(rows) or _entity_columns(rows) else ""


def _list_columns(rows: Sequence[TypedRow]) -> tuple[str, ...]:
    """Return the columns of lists of words and of tags, as long as each other in most rows; empty if there are none."""
    first = rows[0][1] if rows else {}
    lists: dict[str, str] = {}
    for name, value in first.items():
        if isinstance(value, list):
            lists.setdefault(plain_name(name), name)
    words, tags = (
        next((lists[name] for name in names if name in lists), "") for names in (column_names.WORDS, column_names.TAGS)
    )
    if not words or not tags:
        return ()
    alike = sum(len(fields.get(words) or ()) == len(fields.get(tags) or ()) for _, fields in rows)
    return (words, tags) if alike > len(rows) / 2 else ()


def _entity_columns(rows: Sequence[TypedRow]) -> tuple[str, ...]:
    """Return the columns of texts and of their entities, given by characters; empty if there are none."""
    known = columns_of(rows)
    entities = [name for name, column in known.items() if column.is_nested and any(map(read_entities, column.values))]
    found = next((name for name in entities if None not in map(read_entities, known[name].values)), "")
    texts = [name for name, column in known.items() if column.is_text]
    texts = [name for name in texts if plain_name(name) in column_names.TEXTS] or texts
    return (texts[0], found) if found and len(texts) == 1 else ()


def _tag_columns(table: Table) -> tuple[str, ...]:
    """Return the columns of words and tags if their names are not the default ones.

    Raises:
        CorpusError: a file with a word per line has two columns of tags of the same types, as nested entities have.
    """
    rows = sample_rows(table)
    if table.kind != "text":
        lists = _list_columns(rows)
        return (lists if lists[1] not in TAGS else ()) if lists else _entity_columns(rows)
    cells = [" ".join(map(str, fields.values())).split() for _, fields in rows]
    width = Counter(map(len, cells)).most_common(1)[0][0] if cells else 0
    columns = list(zip(*(line for line in cells if len(line) == width), strict=True))
    for number, column in enumerate(columns[1:-1], 2):
        tags = set(column)
        types, last = ({tag[2:] for tag in column} - {""} for column in (tags, columns[-1]))
        if OUTSIDE in tags and types & last and all(map(PREFIXED.fullmatch, tags)):
            word = 2 if all(map(str.isdecimal, columns[0])) else 1
            raise CorpusError(
                f"{table.path}: columns {number} and {width} both hold tags of the same types; set corpus.columns "
                f"(--columns) to the columns of words and tags, e.g. {word},{number}."
            )
    return ()


def _is_tagged(rows: Sequence[TypedRow], has_header: bool) -> bool:
    """Return whether rows are a word each with its tag, in columns of these names or, without a header, the last."""
    if has_header:
        names = {name.lower(): name for _, fields in rows[:1] for name in fields}
        words, tag = (
            next((names[name] for name in known if name in names), "") for known in (HEADER_WORDS, HEADER_TAGS)
        )
        found = {str(fields[tag]).strip() for _, fields in rows} - {""} if words and tag else set()
        return OUTSIDE in found and all(map(TAG.fullmatch, found))
    lines = [" ".join(map(str, fields.values())).split() for _, fields in rows]
    lines = [line for line in lines if line and line[0] not in ("-DOCSTART-", "#")]
    if len(lines) < 3 or len({len(line) for line in lines}) > 1 or len(lines[0]) < 2:
        return False
    tags = [line[-1] for line in lines]
    return "O" in tags and all(map(TAG.fullmatch, tags)) and len(set(tags)) < max(20, len(tags) / 5)


def _score_range(files: SplitFiles, spec: CorpusSpec) -> tuple[float, float]:
    """Return the whole numbers that enclose the scores of all files."""
    low, high = math.inf, -math.inf
    first = open_table(files[0][1], file_format(spec))
    for _, path in files:
        for _, fields in open_table(path, file_format(spec), first).rows(skip=lambda *_: None):
            text = str(fields.get(spec.columns[-1], ""))
            if is_number(text):
                low, high = min(low, float(text)), max(high, float(text))
    if low > high:
        raise CorpusError(
            f"{spec.path}: column '{spec.columns[-1]}' holds no numbers; set corpus.target (--target) to \"class\", or "
            "corpus.columns (--columns) to other columns."
        )
    bounds = math.floor(low), math.ceil(high)
    return (float(bounds[0]), float(bounds[1] if bounds[1] > bounds[0] else bounds[0] + 1))


def _format_of(table: Table, kind: Kind) -> str:
    if kind == "tags" and table.kind == "text" and not table.dialect.delimiter:
        return f"columns of words and tags, {table.encoding.upper()}"
    return table.describe()


def _describe(path: Path, table: Table, spec: CorpusSpec, splits: int) -> str:
    has_target = bool(spec.target) and TARGETS[spec.target].has_target
    texts = spec.columns[:-1] if has_target and not spec.indicators else spec.columns
    parts = [table.describe(), f"{'texts' if len(texts) > 1 else 'text'}: {', '.join(texts)}"]
    if line_pattern(spec.columns):
        parts[1:] = ["lines that match corpus.columns"]
    if has_target and spec.target == "score" and spec.score_range != "auto":
        low, high = spec.score_range
        parts.append(f"target: {spec.columns[-1]}, a score from {low:g} to {high:g}")
    elif spec.indicators:
        parts.append(f"target: {', '.join(spec.indicators)}, each 1 if a row has the label")
    elif has_target:
        column = "label" if line_pattern(spec.columns) else spec.columns[-1]
        parts.append(f"target: {column}, {'labels' if spec.target == 'labels' else f'a {spec.target}'}")
    else:
        parts.append("no target")
    if splits > 1:
        parts.append(f"{splits} splits")
    return f"{path.name}: {'; '.join(parts)}"
