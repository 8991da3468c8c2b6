"""Which corpus, and how it is cut: the named ones, those of the hub, and a user's own file or folder.

A corpus is found by ``path``, or by ``name``: under ``PERMAFROST_DATA`` first, then on the hub through ``datasets``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from permafrost.data.corpora.build import Targets, build_corpus, check_classes
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import SPLITS, CorpusError, Kind, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import cut_by_seed, limited, with_held_out, with_validation
from permafrost.data.readers.hub import hub_records, hub_splits
from permafrost.data.readers.reader import RecordReader
from permafrost.data.readers.registry import CORPORA, SAMPLES, CorpusEntry
from permafrost.data.readers.rule_labels import RULES
from permafrost.data.readers.squad import Omissions
from permafrost.data.readers.tabular import read_table
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import fault

__all__ = ["CORPORA", "SAMPLES", "CorpusSpec", "load_corpus"]


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that ``spec`` names.

    Raises:
        CorpusError: it is not there, or broken; with file and line.
        SpecError: the spec does not say enough.
    """
    source = _own(spec) if spec.path else _known(spec)
    targets = Targets(source.reading.kind, spec.score_range, source.labels)
    records = limited(source.records, spec.limit, spec.limits, spec.spread)
    first = next(records, None)
    if first is None:
        why = "; ".join(source.reading.omitted.notes())
        raise CorpusError(f"{source.name}: it holds no rows{why and ' that can be used: '}{why}.")
    corpus = build_corpus(source.name, chain([first], records), targets)
    if spec.held_out:
        corpus = with_held_out(corpus, spec.held_out, spec.split_seed)
    else:
        corpus = with_validation(corpus, spec.fractions[1], spec.split_seed, spec.limits.get("validation", 0))
    check_classes(corpus)
    return replace(corpus, notes=source.reading.omitted.notes())


@dataclass(frozen=True)
class _Source:
    """Where the records of a corpus come from."""

    name: str
    reading: RecordReader
    records: Iterator[Record]
    labels: tuple[str, ...]


def _known(spec: CorpusSpec) -> _Source:
    if not spec.name:
        raise SpecError("corpus.path or corpus.name must say which corpus; for example --set corpus.path=pairs.csv.")
    named = CORPORA.get(spec.name)
    if named is None and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, CORPORA)}")
    kind = spec.target or (named.target if named else "")
    columns, on_hub = (named.columns, named.hub_columns or named.columns) if named else ((), ())
    if spec.rule and named and named.target in ("score", "class"):
        columns, on_hub = columns[:-1], on_hub[:-1]
    files = _local(named) if named else None
    if files is not None:
        reading = _reading(spec, kind, columns)
        records = _records(files, reading, spec)
    else:
        reading = _reading(spec, kind, on_hub)
        records = _hub(spec, named, reading)
    unlabelled = named.unlabelled if named else ()
    records = (record for record in records if record.target not in unlabelled) if unlabelled else records
    labels = RULES[spec.rule].labels if spec.rule else spec.labels or (named.labels if named else ())
    return _Source(spec.name, reading, records, labels)


def _own(spec: CorpusSpec) -> _Source:
    path = Path(spec.path).expanduser()
    reading = _reading(spec, spec.target or "none", ())
    if path.is_dir():
        files = {split: _split_file(path, split, reading.suffixes) for split in SPLITS}
        found = {split: file for split, file in files.items() if file}
        if "train" not in found:
            first, *others = reading.suffixes
            raise CorpusError(f"{path}: expected a file train{first} (or {', '.join(others)}; .gz), found none.")
    else:
        found = {"": path}
    labels = RULES[spec.rule].labels if spec.rule else spec.labels
    return _Source(path.name, reading, _records(found, reading, spec), labels)


def _reading(spec: CorpusSpec, kind: str, columns: tuple[str, ...]) -> RecordReader:
    """How the corpus is read: as the spec says, else as is known of it."""
    known: Kind = "class" if spec.rule else kind  # type: ignore[assignment]
    return RecordReader(known, spec.columns or columns, spec.split_column, spec.rule, Omissions(spec.strict))


def _local(named: CorpusEntry) -> dict[str, Path] | None:
    """The files of a named corpus that is on this disk, else None."""
    root = named.folder or (Path(os.environ["PERMAFROST_DATA"]) if os.environ.get("PERMAFROST_DATA") else None)
    if root is None:
        return None
    files = {split: root / name for split, name in named.files.items()}
    return files if named.folder or any(path.exists() for path in files.values()) else None


def _records(files: dict[str, Path], reading: RecordReader, spec: CorpusSpec) -> Iterator[Record]:
    records = reading.files(files)
    if "" not in files or reading.kind == "none":
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


def _hub(spec: CorpusSpec, named: CorpusEntry | None, reading: RecordReader) -> Iterator[Record]:
    """Records of a hub data set."""
    if not reading.kind:
        raise SpecError(f"corpus.columns and corpus.target must say what the hub data set '{spec.name}' holds.")
    hub = named.hub if named else spec.name
    try:
        found = hub_splits(
            hub,
            spec.config or (named.config if named else ""),
            spec.revision or (named.revision if named else ""),
        )
    except CorpusError as error:
        way_out = "; set PERMAFROST_DATA to the folder of local corpora" if named else ""
        raise CorpusError(f"'{spec.name}': {error}{way_out}.") from error
    ours = named.hub_splits if named else {split: split for split in SPLITS}
    splits = {ours[split]: rows for split, rows in found.items() if split in ours}
    records = hub_records(splits, hub, reading)
    if list(splits) == ["train"] and reading.kind != "none":
        return cut_by_seed(records, spec.fractions, spec.split_seed)
    return records


COLUMNS = ("sentence", "text")
"""What the column of sentences in a file may be called."""


def read_sentences(path: Path) -> list[str]:
    """The sentences of a file: its column ``sentence`` or ``text``, or its lines.

    Raises:
        CorpusError: the file cannot be read, has neither column, or an empty sentence.
    """
    found: list[str] = []
    for place, fields in read_table(path):
        column = next((name for name in COLUMNS if name in fields), None)
        if column is None:
            raise CorpusError(f"{place}: expected the column {' or '.join(COLUMNS)}; found {', '.join(fields)}.")
        if wrong := fault(fields[column]):
            raise CorpusError(f"{place}: the sentence {wrong}.")
        found.append(fields[column])
    return found
