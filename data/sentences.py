"""Which corpus, and how it is cut: the named ones, those of the hub, and a user's own file or folder.

A corpus is found by ``path``, or by ``name``: under ``PERMAFROST_DATA`` first, then on the hub through ``datasets``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from data.corpus import SPLITS, Corpus, CorpusError, Kind, Record
from data.cutting import cut_by_seed, limited, with_held_out, with_validation
from data.gathering import Targets, check_classes, gather
from data.hub import hub_records, hub_splits
from data.named import NAMED, SAMPLES, Named
from data.questions import Omissions
from data.reading import Reading
from data.rules import RULES
from data.spec import SpecError, nearest

__all__ = ["NAMED", "SAMPLES", "CorpusSpec", "load_corpus"]


@dataclass(frozen=True)
class CorpusSpec:
    """Which texts, and what is to be learnt of them."""

    name: str = ""
    """A named corpus (stsb, snli, sst2, conll2003, squad, genericskb, samples-pairs, ...) or the id of a hub data
    set."""

    path: str = ""
    """Your own file (csv, tsv, jsonl, parquet, txt; .gz), or a folder with train, validation and test files. Tags: a
    file of columns as CoNLL's (txt, conll, tsv, bio), or jsonl or parquet with lists. Answers: JSON as SQuAD's, or a
    table."""

    columns: tuple[str, ...] = ()
    """Your column names in order: one text or two, then the target; for example first,second,score. Of tags: the lists
    of words and of tags. Of answers: question, context, answer and, if there, the answer's first character."""

    target: Literal["", "score", "class", "none", "tags", "answers"] = ""
    """What the rows are labelled with: a score, a class, nothing, an IOB2 tag for each word, or the answers to a
    question on a passage; empty takes what a named corpus says."""

    rule: Literal["", "question"] = ""
    """Make classes of single sentences by a rule instead of a column. "question": those that begin with a wh-word or
    end with a question mark; the others are statements."""

    score_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score."""

    labels: tuple[str, ...] = ()
    """Names of classes or tags in order; empty takes those of the training rows. Each must occur in training."""

    split_column: str = "split"
    """A column that says train, validation or test; where a file has none, splits are cut by seed."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test where they are cut by seed. Where only validation is missing, its share is
    held out of train."""

    split_seed: int = 0
    """Seed of that cut."""

    held_out: float = 0.0
    """Share of train to choose epochs and variants by, cut by seed, so that the validation split can be reported beside
    test. No validation split is then made where there is none."""

    limit: int = 0
    """Keep at most this many rows of each split; 0 keeps all."""

    limits: dict[str, int] = field(default_factory=dict)
    """The same for single splits by name, as train = 4000; what is held out of train counts as train."""

    spread: bool = False
    """Take the rows of a limit evenly from the whole split, not its first."""

    strict: bool = False
    """Refuse answers that are empty or not where the file says, which are else left out and counted."""

    revision: str = ""
    """Commit of the hub data set; empty takes the pinned one of a named corpus, else the newest."""

    config: str = ""
    """Configuration of the hub data set, where it has several."""

    def __post_init__(self) -> None:
        if self.name and self.path:
            raise SpecError("name and path exclude each other: a corpus is either named or a file.")
        if not self.score_range[0] < self.score_range[1]:
            raise SpecError(f"score_range must rise, got {list(self.score_range)}.")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise SpecError(f"fractions must be shares that add up to 1, got {list(self.fractions)}.")
        for name in ("limit", "split_seed"):
            if getattr(self, name) < 0:
                raise SpecError(f"{name} must not be negative, got {getattr(self, name)}.")
        for split, most in self.limits.items():
            if split not in SPLITS:
                raise SpecError(f"limits.{split}: there is no such split. {nearest(split, SPLITS)}")
            if most < 0:
                raise SpecError(f"limits.{split} must not be negative, got {most}.")
        if not 0 <= self.held_out < 1:
            raise SpecError(f"held_out must be a share of train, at least 0 and below 1, got {self.held_out:g}.")
        if self.rule and (self.labels or self.target not in ("", "class")):
            raise SpecError(f'rule = "{self.rule}" makes the classes: leave target and labels empty.')


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
    corpus = gather(source.name, chain([first], records), targets)
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
    reading: Reading
    records: Iterator[Record]
    labels: tuple[str, ...]


def _known(spec: CorpusSpec) -> _Source:
    if not spec.name:
        raise SpecError("corpus.path or corpus.name must say which corpus; for example --set corpus.path=pairs.csv.")
    named = NAMED.get(spec.name)
    if named is None and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, NAMED)}")
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


def _reading(spec: CorpusSpec, kind: str, columns: tuple[str, ...]) -> Reading:
    """How the corpus is read: as the spec says, else as is known of it."""
    known: Kind = "class" if spec.rule else kind  # type: ignore[assignment]
    return Reading(known, spec.columns or columns, spec.split_column, spec.rule, Omissions(spec.strict))


def _local(named: Named) -> dict[str, Path] | None:
    """The files of a named corpus that is on this disk, else None."""
    root = named.folder or (Path(os.environ["PERMAFROST_DATA"]) if os.environ.get("PERMAFROST_DATA") else None)
    if root is None:
        return None
    files = {split: root / name for split, name in named.files.items()}
    return files if named.folder or any(path.exists() for path in files.values()) else None


def _records(files: dict[str, Path], reading: Reading, spec: CorpusSpec) -> Iterator[Record]:
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


def _hub(spec: CorpusSpec, named: Named | None, reading: Reading) -> Iterator[Record]:
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
