"""Loading the corpus of a spec: a named corpus, a data set of the hub, or a user's file or folder.

A corpus is found by ``path``, or by ``name``: first under ``PERMAFROST_DATA``, then on the hub through ``datasets``.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from permafrost.data.corpora.build import build_corpus, check_training
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import SPLITS, CorpusError, Record, check_text
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import cut_by_seed, limit_records, with_held_out, with_validation
from permafrost.data.corpora.targets import TARGETS, Targets
from permafrost.data.readers.hub import hub_records
from permafrost.data.readers.reader import RULES, RecordReader
from permafrost.data.readers.registry import CORPORA, CorpusEntry
from permafrost.data.readers.tabular import read_table
from permafrost.data.script import language_in_name, script_of
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import Segments


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that ``spec`` names.

    Raises:
        CorpusError: the corpus is missing or broken; the message gives file and line.
        SpecError: the spec is incomplete.
    """
    entry = CORPORA.get(spec.name, CorpusEntry(files={}, target="none" if spec.path else "", hub=spec.name))
    name = spec.name or Path(spec.path).expanduser().name
    reader, records = _open_path(spec, entry) if spec.path else _open_named(spec, entry)
    labels = RULES[spec.rule].labels if spec.rule else spec.labels or entry.labels
    targets = Targets(reader.spec.target, spec.score_range, labels, spec.label_separator)
    records = limit_records(records, spec.limit, spec.limits, spec.spread)
    first = next(records, None)
    if first is None:
        reasons = "; ".join(reader.omissions.notes())
        raise CorpusError(f"{name}: it holds no rows{reasons and ' that can be used: '}{reasons}.")
    corpus = build_corpus(name, chain([first], records), targets)
    if spec.held_out:
        corpus = with_held_out(corpus, spec.held_out, spec.split_seed)
    else:
        corpus = with_validation(corpus, spec.fractions[1], spec.split_seed, spec.limits.get("validation", 0))
    corpus, notes = _with_language(corpus, spec)
    return replace(corpus, notes=reader.omissions.notes() + notes + check_training(corpus))


def _with_language(corpus: Corpus, spec: CorpusSpec) -> tuple[Corpus, tuple[str, ...]]:
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


def _open_named(spec: CorpusSpec, entry: CorpusEntry) -> tuple[RecordReader, Iterator[Record]]:
    if not spec.name:
        raise SpecError("corpus.path or corpus.name must say which corpus; for example --set corpus.path=pairs.csv.")
    if spec.name not in CORPORA and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, CORPORA)}")
    root = entry.folder or os.environ.get("PERMAFROST_DATA")
    files = {split: Path(root) / name for split, name in entry.files.items()} if root else {}
    is_local = entry.folder is not None or any(path.exists() for path in files.values())
    columns = entry.columns if is_local else entry.hub_columns or entry.columns
    if spec.rule and entry.columns and TARGETS[entry.target].has_target:
        columns = columns[:-1]  # the rule makes the target
    reader = _make_reader(spec, entry, columns)
    records = _file_records(files, reader, spec) if is_local else hub_records(spec, entry, reader)
    if entry.unlabelled:
        records = (record for record in records if record.target not in entry.unlabelled)
    return reader, records


def _open_path(spec: CorpusSpec, entry: CorpusEntry) -> tuple[RecordReader, Iterator[Record]]:
    path, reader = Path(spec.path).expanduser(), _make_reader(spec, entry, ())
    if path.is_dir():
        candidates = {split: _split_file(path, split, reader.suffixes) for split in SPLITS}
        files = {split: file for split, file in candidates.items() if file}
        if "train" not in files:
            first, *others = reader.suffixes
            raise CorpusError(f"{path}: expected a file train{first} (or {', '.join(others)}; .gz), found none.")
    else:
        files = {"": path}
    return reader, _file_records(files, reader, spec)


def _make_reader(spec: CorpusSpec, entry: CorpusEntry, columns: tuple[str, ...]) -> RecordReader:
    """Return the reader of a corpus; ``columns`` are for a spec that names none."""
    kind = "class" if spec.rule else spec.target or entry.target
    if not kind:
        raise SpecError(f"corpus.columns and corpus.target must say what the hub data set '{spec.name}' holds.")
    return RecordReader(replace(spec, target=kind, columns=spec.columns or columns))


def _file_records(files: dict[str, Path], reader: RecordReader, spec: CorpusSpec) -> Iterator[Record]:
    records = reader.read_splits(files)
    first = next(records, None) if "" in files and reader.encoding.has_target else None
    if first is None:
        return records
    records = chain([first], records)
    return records if first.split else cut_by_seed(records, spec.fractions, spec.split_seed)


def _split_file(folder: Path, split: str, suffixes: tuple[str, ...]) -> Path | None:
    names = [split + suffix + gz for suffix in suffixes for gz in ("", ".gz")]
    if split == "validation":
        names += [name.replace("validation", "dev", 1) for name in names]
    return next((folder / name for name in names if (folder / name).is_file()), None)


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
        check_text(origin, "the sentence", fields[column])
        sentences.append(fields[column])
    return sentences
