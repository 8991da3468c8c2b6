"""Loading the corpus of a spec: a named corpus, a data set of the hub, or a user's file or folder.

A corpus is found by ``path``, or by ``name``: first under ``PERMAFROST_DATA``, then on the hub through ``datasets``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from permafrost.data.corpora.build import build_corpus, check_training
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import SPLITS, CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import cut_by_seed, limit_records, with_held_out, with_validation
from permafrost.data.corpora.targets import TARGETS, Targets
from permafrost.data.readers.hub import hub_records, hub_splits
from permafrost.data.readers.reader import RecordReader
from permafrost.data.readers.registry import CORPORA, CorpusEntry
from permafrost.data.readers.rule_labels import RULES
from permafrost.data.readers.squad import Omissions
from permafrost.data.readers.tabular import read_table
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import text_problem


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that ``spec`` names.

    Raises:
        CorpusError: the corpus is missing or broken; the message gives file and line.
        SpecError: the spec is incomplete.
    """
    source = _path_source(spec) if spec.path else _named_source(spec)
    targets = Targets(source.reader.kind, spec.score_range, source.labels, spec.label_separator)
    records = limit_records(source.records, spec.limit, spec.limits, spec.spread)
    first = next(records, None)
    if first is None:
        reasons = "; ".join(source.reader.omissions.notes())
        raise CorpusError(f"{source.name}: it holds no rows{reasons and ' that can be used: '}{reasons}.")
    corpus = build_corpus(source.name, chain([first], records), targets)
    if spec.held_out:
        corpus = with_held_out(corpus, spec.held_out, spec.split_seed)
    else:
        corpus = with_validation(corpus, spec.fractions[1], spec.split_seed, spec.limits.get("validation", 0))
    return replace(corpus, notes=source.reader.omissions.notes() + check_training(corpus))


@dataclass(frozen=True)
class _Source:
    """The records of a corpus, and the reader that yields them."""

    name: str
    reader: RecordReader
    records: Iterator[Record]
    labels: tuple[str, ...]


def _named_source(spec: CorpusSpec) -> _Source:
    if not spec.name:
        raise SpecError("corpus.path or corpus.name must say which corpus; for example --set corpus.path=pairs.csv.")
    entry = CORPORA.get(spec.name)
    if entry is None and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, CORPORA)}")
    kind = _target_kind(spec, entry.target if entry else "")
    columns, hub_columns = (entry.columns, entry.hub_columns or entry.columns) if entry else ((), ())
    if spec.rule and entry and TARGETS[entry.target].has_target_column():
        columns, hub_columns = columns[:-1], hub_columns[:-1]
    files = _local_files(entry) if entry else None
    if files is not None:
        reader = _make_reader(spec, kind, columns)
        records = _file_records(files, reader, spec)
    else:
        reader = _make_reader(spec, kind, hub_columns)
        records = _hub_records(spec, entry, reader)
    unlabelled = entry.unlabelled if entry else ()
    records = (record for record in records if record.target not in unlabelled) if unlabelled else records
    labels = RULES[spec.rule].labels if spec.rule else spec.labels or (entry.labels if entry else ())
    return _Source(spec.name, reader, records, labels)


def _path_source(spec: CorpusSpec) -> _Source:
    path = Path(spec.path).expanduser()
    reader = _make_reader(spec, _target_kind(spec, "none"), ())
    if path.is_dir():
        candidates = {split: _split_file(path, split, reader.suffixes) for split in SPLITS}
        files = {split: file for split, file in candidates.items() if file}
        if "train" not in files:
            first, *others = reader.suffixes
            raise CorpusError(f"{path}: expected a file train{first} (or {', '.join(others)}; .gz), found none.")
    else:
        files = {"": path}
    labels = RULES[spec.rule].labels if spec.rule else spec.labels
    return _Source(path.name, reader, _file_records(files, reader, spec), labels)


def _target_kind(spec: CorpusSpec, default: str) -> str:
    kind = "class" if spec.rule else spec.target or default
    if not kind:
        raise SpecError(f"corpus.columns and corpus.target must say what the hub data set '{spec.name}' holds.")
    return kind


def _make_reader(spec: CorpusSpec, kind: str, columns: tuple[str, ...]) -> RecordReader:
    """Return the reader of a corpus; ``columns`` are those of its registry entry, for a spec that names none."""
    return RecordReader(
        kind=kind,
        columns=spec.columns or columns,
        split_column=spec.split_column,
        rule=spec.rule,
        omissions=Omissions(strict=spec.strict),
    )


def _local_files(entry: CorpusEntry) -> dict[str, Path] | None:
    """Return the files of a named corpus; None if they are not on this disk."""
    root = entry.folder or (Path(os.environ["PERMAFROST_DATA"]) if os.environ.get("PERMAFROST_DATA") else None)
    if root is None:
        return None
    files = {split: root / name for split, name in entry.files.items()}
    return files if entry.folder or any(path.exists() for path in files.values()) else None


def _file_records(files: dict[str, Path], reader: RecordReader, spec: CorpusSpec) -> Iterator[Record]:
    records = reader.read_splits(files)
    if "" not in files or not reader.encoding.has_target:
        return records
    first = next(records, None)
    if first is None:
        return records
    records = chain([first], records)
    return records if first.split else cut_by_seed(records, spec.fractions, spec.split_seed)


def _split_file(folder: Path, split: str, suffixes: tuple[str, ...]) -> Path | None:
    names = [split + suffix + gz for suffix in suffixes for gz in ("", ".gz")]
    if split == "validation":
        names += [name.replace("validation", "dev", 1) for name in names]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _hub_records(spec: CorpusSpec, entry: CorpusEntry | None, reader: RecordReader) -> Iterator[Record]:
    hub = entry.hub if entry else spec.name
    try:
        dataset = hub_splits(
            hub,
            spec.config or (entry.config if entry else ""),
            spec.revision or (entry.revision if entry else ""),
        )
    except CorpusError as error:
        remedy = "; set PERMAFROST_DATA to the folder of local corpora" if entry else ""
        raise CorpusError(f"'{spec.name}': {error}{remedy}.") from error
    split_names = entry.hub_splits if entry else {split: split for split in SPLITS}
    splits = {split_names[split]: rows for split, rows in dataset.items() if split in split_names}
    records = hub_records(splits, hub, reader)
    if list(splits) == ["train"] and reader.encoding.has_target:
        return cut_by_seed(records, spec.fractions, spec.split_seed)
    return records


COLUMNS = ("sentence", "text")
"""Possible names of the column of sentences in a file."""


def read_sentences(path: Path) -> list[str]:
    """Read the sentences of a file: its column ``sentence`` or ``text``, or its lines.

    Raises:
        CorpusError: the file cannot be read, has neither column, or holds an empty sentence.
    """
    sentences: list[str] = []
    for origin, fields in read_table(path):
        column = next((name for name in COLUMNS if name in fields), None)
        if column is None:
            raise CorpusError(f"{origin}: expected the column {' or '.join(COLUMNS)}; found {', '.join(fields)}.")
        if problem := text_problem(fields[column]):
            raise CorpusError(f"{origin}: the sentence {problem}.")
        sentences.append(fields[column])
    return sentences
