"""What a file holds, as a run would read it: columns, rows, classes, repeated texts, rows that are left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.files.columns import Column, columns_of
from permafrost.data.files.table import as_text, open_table
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.resolve import ResolvedCorpus, file_format, resolve_corpus, sample_rows
from permafrost.data.text import Text

MOST_ROWS = 5_000
"""Rows of each file that are looked at."""

SHOWN = 10
"""Rows that are shown."""


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """What a file holds, as a run would read it."""

    description: str
    """Format, columns, target and splits in a line."""

    columns: Sequence[Mapping[str, Any]]
    """Name, kind, distinct values and an example of each column, from the first rows."""

    rows: Sequence[Mapping[str, str]] = ()
    """The first rows: texts, target, split."""

    splits: Mapping[str, int] = field(default_factory=dict)
    """Split -> rows."""

    labels: Mapping[str, int] = field(default_factory=dict)
    """Class, label or tag -> how often it occurs, the commonest first; empty for other targets."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Smallest, mean and largest score; empty for other targets."""

    texts: Sequence[Text] = ()
    """Distinct texts."""

    repeated: int = 0
    """Occurrences of texts beyond the first of each."""

    notes: Sequence[str] = ()
    """What a run would tell: rows that are left out and why, leaks, classes with few rows."""

    problem: str = ""
    """Why a run would stop; empty if it would not."""


def summarize(spec: CorpusSpec) -> CorpusSummary:
    """Read a corpus and return what it holds; a corpus that a run would refuse is told in ``problem``.

    Raises:
        CorpusError: a file cannot be read, or it is not clear which columns hold texts and target.
    """
    resolved = resolve_corpus(spec) if spec.path else ResolvedCorpus(spec, [], spec.name)
    spec = resolved.spec
    columns = _columns(resolved)
    try:
        corpus = load_corpus(spec, MOST_ROWS)
    except CorpusError as error:
        return CorpusSummary(description=resolved.description, columns=columns, problem=str(error))
    is_score = corpus.score_range is not None
    return CorpusSummary(
        description=resolved.description,
        columns=columns,
        rows=_first_rows(corpus),
        splits={split: len(rows) for split, rows in corpus.splits.items()},
        labels=_label_counts(corpus),
        scores=_score_facts(corpus) if is_score else {},
        texts=corpus.texts,
        repeated=corpus.text_count - len(corpus.texts),
        notes=corpus.notes,
    )


def _columns(resolved: ResolvedCorpus) -> list[dict[str, Any]]:
    if not resolved.files:
        return []
    table = open_table(resolved.files[0][1], file_format(resolved.spec))
    if table.kind == "squad" or (table.kind == "text" and resolved.spec.target == "tags"):
        return []
    known = columns_of([(origin, as_text(fields)) for origin, fields in sample_rows(table)])
    roles = dict.fromkeys(resolved.spec.columns, "text") | {resolved.spec.split_column: "split"}
    if resolved.spec.indicators:
        roles |= dict.fromkeys(resolved.spec.indicators, "label")
    elif resolved.spec.target not in ("", "none") and resolved.spec.columns:
        roles[resolved.spec.columns[-1]] = "target"
    return [_column(column, roles.get(name, "")) for name, column in known.items()]


def _column(column: Column, role: str) -> dict[str, Any]:
    kinds = {"split": column.is_split, "number": column.is_number, "list": column.is_list, "text": column.is_text}
    kind = next((name for name, holds in kinds.items() if holds), "class" if column.is_class else "word")
    example = _printable(column.texts[0][:60]) if column.texts else ""
    return {
        "column": _printable(column.name),
        "read as": role,
        "kind": kind,
        "distinct": len(column.counts),
        "example": example,
    }


def _printable(text: str) -> str:
    """Return a text whose bytes that were not of its encoding are shown as question marks."""
    return text.encode(errors="replace").decode()


def _first_rows(corpus: Corpus) -> list[dict[str, str]]:
    shown = list[dict[str, str]]()
    for split, rows in corpus.splits.items():
        for index in range(min(SHOWN - len(shown), len(rows))):
            texts = {f"text {side}": str(corpus.texts[text]) for side, text in enumerate(rows.texts[index], 1)}
            shown.append({"split": split, **texts, "target": _target(corpus, split, index)})
    return shown


def _target(corpus: Corpus, split: str, index: int) -> str:
    rows = corpus.splits[split]
    if rows.spans:
        spans = rows.spans.select(np.array([index]))
        text = corpus.texts[int(rows.texts[index][-1])]
        context = text if isinstance(text, str) else text.second
        if corpus.labels:
            return " ".join(corpus.labels[code] for code in spans.codes)
        return " | ".join(context[start:end] for start, end in spans.characters)
    if corpus.score_range:
        low, high = corpus.score_range
        return f"{low + (high - low) * float(rows.targets[index]):g}"
    if corpus.kind == "rank":
        return f"{float(rows.targets[index]):g}"
    if rows.targets.ndim == 2:
        return ", ".join(corpus.labels[code] for code in np.flatnonzero(rows.targets[index]))
    return corpus.labels[int(rows.targets[index])] if corpus.labels else ""


def _label_counts(corpus: Corpus) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for rows in corpus.splits.values() if corpus.labels else ():
        if rows.targets.ndim == 2:
            codes: Any = np.nonzero(rows.targets)[1]
        else:
            codes = rows.spans.codes if rows.spans else rows.targets.astype(np.int64)
        numbers = np.bincount(codes, minlength=len(corpus.labels))
        counts.update({label: int(number) for label, number in zip(corpus.labels, numbers, strict=True)})
    return dict(counts.most_common())


def _score_facts(corpus: Corpus) -> dict[str, float]:
    assert corpus.score_range
    low, high = corpus.score_range
    scores = low + (high - low) * np.concatenate([rows.targets for rows in corpus.splits.values()])
    return {"smallest": float(scores.min()), "mean": float(scores.mean()), "largest": float(scores.max())}
