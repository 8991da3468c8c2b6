"""Loading the corpus of a spec: a named corpus, a data set of the hub, or a user's file or folder.

A corpus is found by ``path``, or by ``name``: first under ``PERMAFROST_DATA``, then on the hub through ``datasets``.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from permafrost.data.corpora.build import build_corpus, check_training, make_encoding, usable_records
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.encoding import NamedTargets, Targets
from permafrost.data.corpora.records import CorpusError, Record, check_text
from permafrost.data.corpora.skipped import SkippedRows
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import (
    cut_by_seed,
    drop_leaks,
    leak_notes,
    limit_records,
    settle_splits,
    with_held_out,
    with_validation,
)
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.files.dialect import is_number
from permafrost.data.files.encoding import guess_encoding
from permafrost.data.files.opening import lines_of, read_sample
from permafrost.data.files.table import suffix_of
from permafrost.data.readers.hub import hub_records
from permafrost.data.readers.layout import MOST_WHOLE
from permafrost.data.readers.reader import RULES, RecordReader
from permafrost.data.readers.registry import CORPORA, CorpusEntry
from permafrost.data.readers.resolve import ResolvedCorpus, resolve_corpus
from permafrost.data.readers.sources import SplitFiles
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import NOT_UTF_8, Segments
from permafrost.data.writing.script import language_in_name, script_of


def load_corpus(spec: CorpusSpec, most_rows: int | None = None) -> Corpus:
    """Read the corpus that ``spec`` names; what it leaves open about a file is found from the file.

    Args:
        spec: of the corpus.
        most_rows: rows of each file that are read at most; None reads all.

    Raises:
        CorpusError: the corpus is missing or broken; the message gives file and line.
        SpecError: the spec is incomplete.
    """
    opened, targets, records, name_notes = _read_rows(spec, most_rows)
    reader, skipped = opened.reader, opened.skipped
    corpus = build_corpus(opened.name, records, targets, skipped)
    skipped.check(opened.name)
    if spec.drop_leaks:
        corpus = drop_leaks(corpus)
    cut = f"of {', '.join(reader.cut_short)} the first {most_rows or 0:,} rows were read; a run reads all"
    notes = (*[cut][: len(reader.cut_short)], *skipped.notes(), *name_notes, *corpus.notes, *leak_notes(corpus))
    corpus = replace(corpus, source=opened.source, notes=notes, skipped=skipped.all_rows)
    if spec.held_out:
        corpus = with_held_out(corpus, spec.held_out, spec.split_seed)
    else:
        corpus = with_validation(corpus, spec.fractions[1], spec.split_seed, spec.limits.get("validation", 0))
    corpus, language_notes = with_language(TARGETS[corpus.kind].complete(corpus), spec)
    return replace(corpus, notes=(*reader.omissions.notes(), *corpus.notes, *language_notes, *check_training(corpus)))


def load_all_rows(spec: CorpusSpec) -> tuple[Corpus, list[str]]:
    """Read all rows of a corpus from which nothing is learnt: none is held out or left out for what training lacks.

    Returns:
        the corpus, whose rows are all in train, and the split of each row by :attr:`Rows.numbers`.

    Raises:
        CorpusError, SpecError: as :func:`load_corpus`.
    """
    opened, targets, records, name_notes = _read_rows(spec)
    in_train = [record.in_split("train") for record in records]
    corpus = TARGETS[targets.kind].complete(build_corpus(opened.name, in_train, targets, opened.skipped))
    opened.skipped.check(opened.name)
    notes = (*opened.reader.omissions.notes(), *opened.skipped.notes(), *name_notes, *corpus.notes)
    corpus = replace(corpus, source=opened.source, notes=notes, skipped=opened.skipped.all_rows)
    return corpus, [record.split for record in records]


def _read_rows(
    spec: CorpusSpec, most_rows: int | None = None
) -> tuple["OpenedCorpus", Targets, list[Record], tuple[str, ...]]:
    """Return an opened corpus, its targets, its rows in their splits, and notes on the names of labels."""
    opened = open_corpus(spec)
    opened.reader.most_rows = most_rows
    targets, labels = opened.targets, set[str]()
    by_digest, all_records = with_splits(opened.records, spec)
    usable = with_written_labels(usable_records(all_records, make_encoding(targets), opened.skipped), targets, labels)
    records = list(limit_records(usable, spec.limit, spec.limits, spec.spread))
    opened.check_rows(bool(records))
    targets, notes = with_label_names(targets, labels, spec)
    if by_digest:
        targets, converted, read_notes = make_encoding(targets).convert(targets, records)
        notes = (*notes, *read_notes)
        records = settle_splits(list(converted), spec.fractions, spec.split_seed, make_encoding(targets).names)
    return opened, targets, records, notes


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenedCorpus:
    """A corpus whose files are found and whose records are about to be read."""

    name: str
    reader: RecordReader
    records: Iterator[Record]
    """Records as the reader yields them: not checked, and without a split if the corpus gives none."""

    targets: Targets
    """Kind of the targets, with the names of labels that the spec or the registry gives."""

    skipped: SkippedRows
    source: str
    """As :attr:`permafrost.data.corpora.corpus.Corpus.source`."""

    def check_rows(self, some: bool) -> None:
        """Check the rows that were read: few may be left out, and ``some`` must be left.

        Raises:
            CorpusError: too many rows cannot be used, or there are none.
        """
        self.skipped.remedies |= _encoding_remedies(self.skipped)
        self.skipped.check(self.name)
        if not some:
            reasons = "; ".join((*self.skipped.notes(), *self.reader.omissions.notes()))
            raise CorpusError(f"{self.name}: it holds no rows{reasons and ' that can be used: '}{reasons}.")


def open_corpus(spec: CorpusSpec, select: Callable[[SplitFiles], SplitFiles] = list) -> OpenedCorpus:
    """Find the files of a corpus, and what its spec leaves open about them; read no row of them yet.

    Args:
        spec: of the corpus.
        select: chooses the files to read, of those of all splits.

    Raises:
        CorpusError: the corpus is missing, or it is not clear what its columns hold.
        SpecError: the spec is incomplete.
    """
    entry = CORPORA.get(spec.name, CorpusEntry(files={}, target="", hub=spec.name))
    skipped = SkippedRows(spec.strict, spec.most_skipped, (*spec.ignore, *entry.ignore))
    resolved = resolve_corpus(spec) if spec.path else None
    reader, records = _open_path(resolved, skipped, select) if resolved else _open_named(spec, entry, skipped, select)
    given = spec.labels or entry.labels or reader.spec.indicators
    return OpenedCorpus(
        name=spec.name or Path(spec.path).expanduser().name,
        reader=reader,
        records=records,
        targets=_targets(reader.spec, RULES[spec.rule].labels if spec.rule else given),
        skipped=skipped,
        source=resolved.description if resolved else "",
    )


def with_language(corpus: Corpus, spec: CorpusSpec) -> tuple[Corpus, tuple[str, ...]]:
    """Return a corpus with the language of its answers, and a note if the recipe does not say which."""
    text, name = corpus.texts[0], Path(spec.path).name or spec.config
    if corpus.kind != "answers" or spec.language or not isinstance(text, Segments):
        return replace(corpus, language=spec.language), ()
    language, script = language_in_name(name, text.second), script_of(text.second)
    if language not in ("", "en"):
        rules = f"MLQA's rules for '{language}', as the name {name} says"
    elif script != "latin":
        language, rules = "", "the rules for the script of each context"
    else:
        return corpus, ()
    return replace(corpus, language=language), (f"answers are compared by {rules}; corpus.language sets others",)


def _encoding_remedies(skipped: SkippedRows) -> dict[str, str]:
    """Return reason -> what to set for rows that are not UTF-8."""
    undecoded = {row.reason: row.origin for row in skipped.rows if row.reason.endswith(NOT_UTF_8)}
    places = [(Path(origin), Path(origin.rpartition(":")[0])) for origin in undecoded.values()]
    files = {path for pair in places for path in pair if path.is_file()}  # rows of the hub are in none
    guess = next(filter(None, map(guess_encoding, map(read_sample, sorted(files)))), "")
    example = f'"{guess}", which it could be' if guess else 'the name of its encoding, e.g. "cp1252"'
    return dict.fromkeys(undecoded, f"set corpus.encoding to {example}")


def _targets(spec: CorpusSpec, labels: tuple[str, ...]) -> Targets:
    score_range = spec.score_range if spec.score_range != "auto" else (0.0, 1.0)
    return Targets(spec.target, score_range, labels, spec.label_separator, spec.tag_scheme, spec.strict)


def with_written_labels(records: Iterator[Record], targets: Targets, labels: set[str]) -> Iterator[Record]:
    """Yield records, and collect the labels of all of them, as the file has them.

    Raises:
        CorpusError: a class is a number with decimals, and there are too many of them for classes.
    """
    encoding, origin = make_encoding(targets), ""
    for record in records:
        origin = record.origin
        if isinstance(encoding, NamedTargets) and encoding.reads == "columns":
            labels.update(encoding.written(record))
        yield record
    if targets.kind == "class" and not targets.labels and len(labels) > MOST_WHOLE and all(map(is_number, labels)):
        decimal = next((label for label in labels if "." in label and not label.endswith(".0")), "")
        if decimal:
            raise CorpusError(
                f"{origin.rpartition(':')[0]}: the {len(labels):,} classes are numbers with decimals such as "
                f'{decimal}: set corpus.target (--target) to "score".'
            )


CLASSES = "classes.txt"
"""File beside a corpus, with the names of classes that its rows have as numbers, one a line."""


def with_label_names(targets: Targets, labels: Collection[str], spec: CorpusSpec) -> tuple[Targets, tuple[str, ...]]:
    """Return the targets with the names of classes that rows have as numbers, and notes for the user."""
    encoding = TARGETS[targets.kind]
    if not issubclass(encoding, NamedTargets) or encoding.reads != "columns":
        return targets, ()
    path = Path(spec.path).expanduser() if spec.path else None
    file = path and (path if path.is_dir() else path.parent) / CLASSES
    is_read = file and file != path and file.is_file() and not targets.labels and not spec.label_names
    names = tuple(_read_names(file)) if file and is_read else spec.label_names
    named, notes = encoding.with_numbers(targets, labels, names), list[str]()
    if named.labels != targets.labels and is_read:
        notes.append(f"names of classes are those of {file}; set corpus.labels to use others")
    numbers = {label for label in labels if label.isascii() and label.isdigit()} - set(named.labels)
    if named.labels and numbers and (named.first_number or "0" not in numbers):
        notes.append(f"labels are numbers from {named.first_number}, which is {named.labels[0]!r}")
    return named, tuple(notes)


def _read_names(path: Path) -> Iterator[str]:
    seen = set[str]()
    for number, line in lines_of(path):
        name = line.strip()
        check_text(f"{path}:{number}", "the name", name)
        if name in seen:
            raise CorpusError(f"{path}:{number}: it names {name!r} twice.")
        seen.add(name)
        yield name


def with_splits(records: Iterator[Record], spec: CorpusSpec) -> tuple[bool, Iterator[Record]]:
    """Return whether records have no split, and the records with one: their own, or that of their digest."""
    first = next(records, None)
    if first is None:
        return False, records
    records = chain([first], records)
    return not first.split, records if first.split else cut_by_seed(records, spec.fractions, spec.split_seed)


LAYOUTS: dict[str, dict[str, Any]] = {
    ".csv": {"delimiter": "comma", "quoting": "double", "header": "yes"},
    ".tsv": {"delimiter": "tab", "quoting": "none", "header": "yes"},
}
"""Suffix of the files of a named corpus -> how they are written, which need not be found out."""


def _open_named(
    spec: CorpusSpec, entry: CorpusEntry, skipped: SkippedRows, select: Callable[[SplitFiles], SplitFiles]
) -> tuple[RecordReader, Iterator[Record]]:
    if not spec.name:
        raise SpecError("there is no corpus: give your data, --data FILE, or a named corpus, --data stsb.")
    if spec.name not in CORPORA and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, CORPORA)}")
    files = entry.local_files
    columns = entry.columns if files else entry.hub_columns or entry.columns
    if spec.rule and entry.columns and TARGETS[entry.target].has_target:
        columns = columns[:-1]  # the rule makes the target
    for path in list(files.values())[:1]:
        spec = replace(spec, **LAYOUTS.get(suffix_of(path), {}))
    reader = _make_reader(spec, entry, columns, skipped)
    return reader, reader.read_splits(select(list(files.items()))) if files else hub_records(spec, entry, reader)


def is_on_hub(spec: CorpusSpec) -> bool:
    """Return whether the rows of a corpus come from the hub, or from where ``datasets`` has kept them."""
    return bool(spec.name) and not (spec.name in CORPORA and CORPORA[spec.name].local_files)


def _open_path(
    resolved: ResolvedCorpus, skipped: SkippedRows, select: Callable[[SplitFiles], SplitFiles]
) -> tuple[RecordReader, Iterator[Record]]:
    reader = _make_reader(resolved.spec, CorpusEntry(files={}, target=""), (), skipped)
    return reader, reader.read_splits(select(resolved.files))


def _make_reader(spec: CorpusSpec, entry: CorpusEntry, columns: tuple[str, ...], skipped: SkippedRows) -> RecordReader:
    """Return the reader of a corpus; ``columns`` are for a spec that names none."""
    kind = "class" if spec.rule else spec.target or entry.target
    if not kind:
        raise SpecError(f"corpus.columns and corpus.target must say what the hub data set '{spec.name}' holds.")
    return RecordReader(replace(spec, target=kind, columns=spec.columns or columns), skipped)
