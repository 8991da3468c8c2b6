"""Corpora to evaluate a run on: the rows of one split with the run's labels, and the texts of these rows alone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from permafrost.data.corpora.build import build_corpus, make_encoding, usable_records
from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import limit_records
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.readers.load import open_corpus, with_label_names, with_language, with_written_labels
from permafrost.data.readers.sources import SplitFiles
from permafrost.data.spec import SpecError, nearest
from permafrost.probes.evaluation.labels import LabelSpace, match_records
from permafrost.probes.objectives.fitted import LoadedRun

ALL = "all"
"""Name of the split that stands for all rows."""

NO_SPLIT = ""
"""Split of rows whose data have none; they are called test once they are chosen."""


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """Data to evaluate runs on."""

    name: str
    """Name in the tables."""

    spec: CorpusSpec
    """Of a file, all that its files leave open is found."""

    own: bool = False
    """Whether they are the corpus of the run, whose splits are those of its training."""


def choose_split(splits: Collection[str], asked: str, name: str) -> str:
    """Return the split to evaluate on: the one that is asked for, else test, validation, or the only one.

    Raises:
        SpecError: there is no such split.
    """
    if asked == ALL:
        return ALL
    if set(splits) == {NO_SPLIT}:
        if asked not in ("", "test"):
            raise SpecError(f"--split {asked}: {name} has no splits, so all its rows are evaluated; leave --split out.")
        return NO_SPLIT
    if asked:
        if asked not in splits:
            raise SpecError(f"--split {asked}: {name} has no such split. {nearest(asked, [*splits, ALL])}")
        return asked
    return next((split for split in ("test", "validation", "train") if split in splits), next(iter(splits)))


def check_split(asked: str) -> None:
    """Raise a :class:`SpecError` if a word is no name of a split."""
    if asked and asked not in (*SPLITS, HELD_OUT, ALL):
        raise SpecError(f"--split {asked}: {nearest(asked, [*SPLITS, HELD_OUT, ALL])}")


def own_corpus(corpus: Corpus, run: LoadedRun, asked: str) -> Corpus:
    """Return a split of the corpus that a run was trained on, as the run had it.

    Raises:
        CorpusError: the corpus has other labels now.
    """
    if corpus.labels != run.labels:
        raise CorpusError(
            f"{corpus.name}: it has other labels than when {run.path} was trained ({', '.join(corpus.labels)}; then "
            f"{', '.join(run.labels)}): copy it to another name to evaluate it as other data."
        )
    return select_split(corpus, choose_split(set(corpus.splits), asked, corpus.name))


def select_split(corpus: Corpus, split: str) -> Corpus:
    """Return the corpus with the rows of one split, or of :data:`ALL`, and with the texts of these rows alone."""
    chosen = list(corpus.splits.values()) if split == ALL else [corpus.split(split)]
    texts, order = np.unique(np.concatenate([rows.texts for rows in chosen]), return_inverse=True)
    joined = chosen[0] if len(chosen) == 1 else _join(chosen)
    rows = replace(joined, texts=order.reshape(joined.texts.shape))
    return replace(corpus, texts=tuple(corpus.texts[text] for text in texts), splits={split: rows})


def _join(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several splits as those of one."""
    texts, targets = (np.concatenate([getattr(rows, name) for rows in parts]) for name in ("texts", "targets"))
    spans = [rows.spans for rows in parts if rows.spans is not None]
    if not spans:
        return Rows(texts, targets)
    lengths = np.concatenate([np.diff(each.offsets) for each in spans])
    joined = replace(
        spans[0],
        characters=np.concatenate([each.characters for each in spans]),
        codes=np.concatenate([each.codes for each in spans]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )
    return Rows(texts, targets, joined)


def other_corpus(data: EvaluationData, run: LoadedRun, space: LabelSpace, asked: str) -> Corpus:
    """Read the rows of a split of other data, with the labels of a run.

    Rows with a label that the run does not have are left out and counted, and so are those that cannot be used.

    Raises:
        CorpusError: the data cannot be read, are of another kind than the run, or have none of its labels.
        SpecError: they have no such split.
    """
    opened = open_corpus(data.spec, lambda files: _chosen_files(files, asked, data.name))
    targets, skipped, labels = opened.targets, opened.skipped, set[str]()
    if targets.kind != run.kind:
        raise CorpusError(other_kind(data.name, targets.kind, run))
    by_split: dict[str, list[Record]] = {}
    for record in opened.records:
        by_split.setdefault(record.split, []).append(record)
    split = choose_split(set(by_split), asked, data.name) if by_split else NO_SPLIT
    chosen = [record for name, records in by_split.items() if split in (ALL, name) for record in records]
    name = split or "test"
    usable = usable_records((record.in_split(name) for record in chosen), make_encoding(targets), skipped)
    limits = (data.spec.limit, data.spec.limits, data.spec.spread)
    records = list(limit_records(with_written_labels(usable, targets, labels), *limits))
    opened.check_rows(bool(records))
    targets, name_notes = with_label_names(targets, labels, data.spec)
    targets, converted, read_notes = TARGETS[targets.kind].convert(targets, records)
    matched = match_records(list(converted), targets, space, skipped, data.name)
    ours: dict[str, Any] = {"labels": run.labels, "first_number": run.first_number or 0, "tag_scheme": "IOB2"}
    corpus = build_corpus(data.name, matched, replace(targets, **ours), skipped)
    corpus, language_notes = with_language(TARGETS[corpus.kind].complete(corpus), data.spec)
    whole = [] if split else ["it has no splits, so all of its rows are evaluated"]
    notes = (*whole, *opened.reader.omissions.notes(), *skipped.notes(), *name_notes, *read_notes, *language_notes)
    corpus = replace(corpus, source=opened.source, notes=(*notes, *corpus.notes), skipped=skipped.all_rows)
    _check_texts(corpus, run, data.name)
    return _in_unit_of(corpus, run)


def other_kind(name: str, kind: str, run: LoadedRun) -> str:
    """Return the message that data are of another kind than a run."""
    return (
        f"{name} has targets of the kind '{kind}', and {run.path} predicts '{run.kind}'; set --columns and --target if "
        "that is read wrongly."
    )


def _chosen_files(files: SplitFiles, asked: str, name: str) -> SplitFiles:
    """Return the files of the split to evaluate on, if each file is one split."""
    splits = {split for split, _ in files}
    if NO_SPLIT in splits or asked == ALL:
        return files
    chosen = choose_split(splits, asked, name)
    return [(split, path) for split, path in files if split == chosen]


def _check_texts(corpus: Corpus, run: LoadedRun, name: str) -> None:
    """Raise a :class:`CorpusError` if rows have another number of texts than the run reads."""
    count = next(iter(corpus.splits.values())).texts.shape[1]
    if count != run.texts_per_row:
        raise CorpusError(
            f"{name} has {count} text{'s' * (count > 1)} a row, and {run.path} reads {run.texts_per_row}; name its "
            "columns by --columns, texts first, then the target."
        )


def _in_unit_of(corpus: Corpus, run: LoadedRun) -> Corpus:
    """Return a corpus whose scores have the range of the run; the ends of its own range become the ends of that.

    Correlations do not depend on it. The mean absolute error does, and is in the unit of the run.
    """
    if corpus.score_range is None or run.score_range is None or corpus.score_range == run.score_range:
        return corpus
    (low, high), (own_low, own_high) = corpus.score_range, run.score_range
    note = (
        f"scores from {low:g} to {high:g} are mapped to {own_low:g} to {own_high:g}, the range of the run: the mean "
        "absolute error is in its unit, correlations are as without it; corpus.score_range sets other ends"
    )
    return replace(corpus, score_range=run.score_range, notes=(*corpus.notes, note))
