"""Corpora of sentences and pairs: the named ones, those of the hub, and a user's own file or folder.

A corpus is found by ``path``, or by ``name``: under ``PERMAFROST_DATA`` first, then on the hub through ``datasets``.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from data.corpus import SPLITS, Corpus, CorpusError, Record, Targets, cut_by_seed, gather, with_validation
from data.files import READERS, as_text, read_table, select
from data.spec import SpecError, nearest

SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class CorpusSpec:
    """Which texts, and what is to be learnt of them."""

    name: str = ""
    """A named corpus (stsb, snli, sst2, genericskb, samples-pairs, ...) or the id of a hub data set."""

    path: str = ""
    """Your own file (csv, tsv, jsonl, parquet, txt; .gz), or a folder with train, validation and test files."""

    columns: tuple[str, ...] = ()
    """Your column names in order: one text or two, then the target; for example first,second,score."""

    target: Literal["", "score", "class", "none"] = ""
    """What the last column holds: a score, a class, or nothing; empty takes what a named corpus says."""

    score_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score."""

    labels: tuple[str, ...] = ()
    """Class names in order; empty takes those of the training rows."""

    split_column: str = "split"
    """A column that says train, validation or test; where a file has none, splits are cut by seed."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test where they are cut by seed. Where only validation is missing, its share is
    held out of train."""

    split_seed: int = 0
    """Seed of that cut."""

    limit: int = 0
    """Keep at most this many rows of each split; 0 keeps all."""

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


@dataclass(frozen=True)
class Named:
    """A corpus known by name: where its files lie, what its columns mean, where the hub has it."""

    files: dict[str, str]
    """Split -> file under the folder of corpora; a single file without split is under the empty name."""

    columns: tuple[str, ...]
    target: Literal["score", "class", "none"]
    labels: tuple[str, ...] = ()
    hub: str = ""
    revision: str = ""
    config: str = ""
    hub_columns: tuple[str, ...] = ()
    """Column names on the hub, where they differ."""

    unlabelled: tuple[str, ...] = ()
    """Targets that mean: annotators did not agree, or the label is kept secret. Such rows are left out."""

    folder: Path | None = field(default=None)
    """Where the files are, if not under ``PERMAFROST_DATA``."""


def _splits(pattern: str) -> dict[str, str]:
    return {split: pattern.format(split) for split in SPLITS}


NLI = ("entailment", "neutral", "contradiction")
NAMED: dict[str, Named] = {
    "stsb": Named(
        _splits("stsb/{}.csv"),
        ("sentence1", "sentence2", "score"),
        "score",
        hub="sentence-transformers/stsb",
        revision="ab7a5ac0e35aa22088bdcf23e7fd99b220e53308",
    ),
    "snli": Named(
        _splits("snli/{}.jsonl.gz"),
        ("premise", "hypothesis", "label"),
        "class",
        NLI,
        hub="stanfordnlp/snli",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        unlabelled=("-", "-1"),
    ),
    "sst2": Named(
        _splits("sst2/{}.tsv"),
        ("sentence", "label"),
        "class",
        ("negative", "positive"),
        hub="stanfordnlp/sst2",
        revision="8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb",
        unlabelled=("-1",),
    ),
    "genericskb": Named(
        {"train": "genericskb/sentences.txt.gz"},
        ("sentence",),
        "none",
        hub="community-datasets/generics_kb",
        config="generics_kb_best",
        hub_columns=("generic_sentence",),
    ),
    "samples-pairs": Named({"": "pairs.csv"}, ("sentence1", "sentence2", "score"), "score", folder=SAMPLES),
    "samples-topics": Named({"": "topics.csv"}, ("sentence", "topic"), "class", folder=SAMPLES),
    "samples-sentences": Named({"train": "sentences.txt"}, ("sentence",), "none", folder=SAMPLES),
}


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that ``spec`` names.

    Raises:
        CorpusError: it is not there, or broken; with file and line.
        SpecError: the spec does not say enough.
    """
    corpus = _own(spec) if spec.path else _known(spec)
    return with_validation(corpus, spec.fractions[1], spec.split_seed)


def _known(spec: CorpusSpec) -> Corpus:
    if not spec.name:
        raise SpecError("corpus.path or corpus.name must say which corpus; for example --set corpus.path=pairs.csv.")
    named = NAMED.get(spec.name)
    if named is None and "/" not in spec.name:
        raise CorpusError(f"unknown corpus '{spec.name}'. {nearest(spec.name, NAMED)}")
    columns = spec.columns or (named.columns if named else ())
    kind = spec.target or (named.target if named else "")
    records = _local(named, columns, kind, spec) if named else None
    if records is None:
        hub_columns = spec.columns or (named.hub_columns if named else ()) or columns
        records = _hub(spec, named, hub_columns, kind)
    if named and named.unlabelled:
        records = (record for record in records if record.target not in named.unlabelled)
    targets = Targets(kind, spec.score_range, spec.labels or (named.labels if named else ()))
    return gather(spec.name, records, targets, spec.limit)


def _own(spec: CorpusSpec) -> Corpus:
    path = Path(spec.path).expanduser()
    if not spec.columns:
        raise SpecError(
            "corpus.columns must name your columns in order, texts first, then the target; "
            "for example --set corpus.columns=first,second,score."
        )
    kind = spec.target or "none"
    if path.is_dir():
        files = {split: _split_file(path, split) for split in SPLITS}
        found = {split: file for split, file in files.items() if file}
        if "train" not in found:
            raise CorpusError(f"{path}: expected a file train.csv (or .tsv, .jsonl, .parquet, .txt; .gz), found none.")
    else:
        found = {"": path}
    records = _records(found, spec.columns, kind, spec)
    return gather(path.name, records, Targets(kind, spec.score_range, spec.labels), spec.limit)


def _local(named: Named, columns: tuple[str, ...], kind: str, spec: CorpusSpec) -> Iterator[Record] | None:
    """The records of a named corpus that is on this disk, else None."""
    root = named.folder or (Path(os.environ["PERMAFROST_DATA"]) if os.environ.get("PERMAFROST_DATA") else None)
    if root is None:
        return None
    files = {split: root / name for split, name in named.files.items()}
    if not named.folder and not any(path.exists() for path in files.values()):
        return None
    return _records(files, columns, kind, spec)


def _records(files: dict[str, Path], columns: tuple[str, ...], kind: str, spec: CorpusSpec) -> Iterator[Record]:
    records = _read(files, columns, kind, spec.split_column)
    if "" not in files or kind == "none":
        return records
    first = next(_read(files, columns, kind, spec.split_column), None)
    return cut_by_seed(records, spec.fractions, spec.split_seed) if first and not first.split else records


def _read(files: dict[str, Path], columns: tuple[str, ...], kind: str, split_column: str) -> Iterator[Record]:
    for split, path in files.items():
        stated = None
        for place, fields in read_table(path):
            values = select((place, fields), columns)
            texts, target = (values, None) if kind == "none" else (values[:-1], values[-1])
            own = split or fields.get(split_column, "")
            if own not in (*SPLITS, ""):
                raise CorpusError(f"{place}: unknown split {own!r}. {nearest(own, SPLITS)}")
            stated = bool(own) if stated is None else stated
            if bool(own) != stated:
                raise CorpusError(f"{place}: some rows have a split and some have none; fill '{split_column}' in.")
            if kind == "none" and not own:
                own = "train"
            yield Record(place, own, texts, target)


def _split_file(folder: Path, split: str) -> Path | None:
    names = [split + suffix + gz for suffix in READERS for gz in ("", ".gz")]
    if split == "validation":
        names += [name.replace("validation", "dev", 1) for name in names]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _hub(spec: CorpusSpec, named: Named | None, columns: tuple[str, ...], kind: str) -> Iterator[Record]:
    """Records of a hub data set: parquet or csv files, never a loading script."""
    if not columns or not kind:
        raise SpecError(f"corpus.columns and corpus.target must say what the hub data set '{spec.name}' holds.")
    import datasets

    hub = named.hub if named else spec.name
    revision, config = (
        spec.revision or (named.revision if named else ""),
        spec.config or (named.config if named else ""),
    )
    try:
        loaded = datasets.load_dataset(hub, config or None, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        here = "; set PERMAFROST_DATA to the folder of local corpora" if named else ""
        raise CorpusError(
            f"'{spec.name}': the hub data set '{hub}' cannot be had ({_first_line(error)}){here}."
        ) from error
    splits = [split for split in loaded if str(split) in SPLITS]
    records = _hub_records({split: loaded[split] for split in splits}, hub, columns, kind)
    if splits == ["train"] and kind != "none":
        return cut_by_seed((replace(record, split="") for record in records), spec.fractions, spec.split_seed)
    return records


def _hub_records(splits: Mapping[str, Any], hub: str, columns: tuple[str, ...], kind: str) -> Iterator[Record]:
    for split, rows in splits.items():
        for number, fields in enumerate(rows, 1):
            place = f"{hub}:{split}:{number}"
            values = select((place, as_text(fields)), columns)
            texts, target = (values, None) if kind == "none" else (values[:-1], values[-1])
            yield Record(place, str(split), texts, target)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
