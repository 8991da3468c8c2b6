"""Files of a corpus: a single one, or those of each split in a folder, told by the words for splits in their names."""

import re
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from permafrost.data.corpora.records import CorpusError
from permafrost.data.files.column_names import split_of
from permafrost.data.files.documents import is_folder_of_documents, split_in_name
from permafrost.data.files.opening import COMPRESSED_SUFFIXES
from permafrost.data.files.table import suffix_of

SplitFiles = Sequence[tuple[str, Path]]
"""Split and file; several files for a split are its parts, and one without a split gives the split of each row."""

FOREIGN = (".md", ".pl", ".py", ".pdf", ".h5", ".sh", ".json5", ".toml", ".yaml", ".yml", ".log", ".html")
"""Suffixes of files beside a corpus that are no part of it."""

PREFERRED = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt")
"""Suffixes in the order in which one of several files for a split is taken: the more a format says, the earlier."""

TABLES = (*PREFERRED[:-1], ".ndjson", ".feather", ".xlsx", ".tab")
"""Suffixes of files that hold rows, and no document."""

PART = re.compile(r"(\d+)[-_]of[-_](\d+)")
"""Number of a part of a file, and how many there are, in its name."""

RUNS = re.compile(r"([0-9]+)")
"""Run of digits in a name."""

MOST_NAMED = 6
"""Files that a message names."""


def find_files(path: Path) -> SplitFiles:
    """Return the files of a corpus by split.

    Args:
        path: a file; or a folder, in which a file is of a split if its name is a word for it (train, dev, val, valid,
            validation, test, ..., in any case), or holds one: ``test.csv``, ``sts-dev.csv``, ``eng.testa``.
            Of files that differ in their format, the one whose format says more is taken, such as jsonl before txt.
            Parts of a file, such as ``train-00000-of-00002.parquet``, are read one after the other. A folder of a split
            holds its file, or its parts. A folder may also hold a single file, or documents. Or a pattern such as
            ``texts/*.jsonl``: the files that match it are read one after the other.

    Raises:
        CorpusError: there is no such file or folder, or no file matches; or the folder has no training file, or two
            files for a split.
    """
    if is_glob(path):
        return [("", file) for file in matching_files(path)]
    if not path.exists():
        raise CorpusError(f"{path}: no such file.")
    if not path.is_dir():
        return [("", path)]
    found = _by_split(path)
    if "train" in found:
        return [(split, file) for split in ("train", "validation", "test") for file in found.get(split, ())]
    tables = [file for file in _files(path) if suffix_of(file) in TABLES and not _is_description(file)]
    best = _best(tables)
    if not found and best and (len(best) == 1 or _are_parts(best)):
        return [("", file) for file in best]
    if not found and not tables and is_folder_of_documents(path):
        return [("", path)]
    inner = [item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")]
    if not found and not tables and len(inner) == 1:
        return find_files(inner[0])
    names = [item.name for item in sorted(path.iterdir())]
    holds = f"it holds {', '.join(names[:MOST_NAMED])}{', ...' * (len(names) > MOST_NAMED)}" if names else "it is empty"
    raise CorpusError(
        f"{path}: expected a file called train, such as train.csv or train.jsonl.gz, found none ({holds}); give a "
        "file, or name the training file train."
    )


def is_glob(path: Path) -> bool:
    """Return whether a path is a pattern, with ``*``, ``?`` or ``[...]``, and no file or folder of this name."""
    return has_magic(str(path)) and not path.exists()


def matching_files(pattern: Path) -> list[Path]:
    """Return the files that match a pattern, in natural order: ``part2`` before ``part10``.

    Raises:
        CorpusError: there are none.
    """
    root = Path(pattern.anchor)
    files = [file for file in root.glob(str(pattern.relative_to(root))) if file.is_file()]
    if not files:
        raise CorpusError(f"{pattern}: no file matches; in a shell, put the pattern in quotes.")
    return sorted(files, key=lambda file: [int(run) if run.isdigit() else run for run in RUNS.split(str(file))])


def _by_split(path: Path) -> dict[str, list[Path]]:
    """Return split -> its files in a folder."""
    exact, partial = dict[str, list[Path]](), dict[str, list[Path]]()
    for file in _files(path):
        if named := split_of(_stem(file)):
            exact.setdefault(named, []).append(file)
        elif held := split_in_name(file.name):
            partial.setdefault(held, []).append(file)
    for folder in sorted(item for item in path.iterdir() if item.is_dir()):
        tables = [file for file in _files(folder) if suffix_of(file) in TABLES and not _is_description(file)]
        if tables and (named := split_in_name(folder.name)):
            (exact if split_of(folder.name) else partial).setdefault(named, []).extend(tables)
    found = dict[str, list[Path]]()
    for split in dict.fromkeys([*exact, *partial]):
        candidates = exact.get(split) or partial[split]
        found[split] = _best(candidates)
        if len(found[split]) > 1 and not _are_parts(found[split]):
            names = ", ".join(file.name for file in found[split])
            remedy = "give it a folder with one"
            if any("label" in file.name.lower() for file in found[split]):
                remedy = f"write each text and its label in a line of one file, e.g. {split}.tsv"
            raise CorpusError(f"{path}: {len(found[split])} files could be {split}: {names}; {remedy}.")
    return found


def _files(path: Path) -> list[Path]:
    return [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix.lower() not in FOREIGN and not file.name.startswith(".")
    ]


def _is_description(file: Path) -> bool:
    """Return whether a file describes tables that ``datasets`` saved beside it."""
    return file.name in ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json")


def _best(files: Sequence[Path]) -> list[Path]:
    """Return those files whose format says the most."""
    best = min(map(_preference, files), default=0)
    return [file for file in files if _preference(file) == best]


def _are_parts(files: Sequence[Path]) -> bool:
    """Return whether files are all parts of one, by numbers in their names: ``0-of-3``, or one that counts files."""
    numbers = [[int(run) for run in re.findall(r"\d+", file.name)] for file in files]
    names = {re.sub(r"\d+", "0", file.name) for file in files}
    varying = [sorted(column) for column in zip(*numbers, strict=False) if len(set(column)) > 1]
    if len(names) == len(varying) == 1 and not PART.search(files[0].name):
        return varying[0][0] in (0, 1) and varying[0] == list(range(varying[0][0], varying[0][0] + len(files)))
    parts = [
        (file.name[: match.start()], int(match[1]), int(match[2]))
        for file in files
        if (match := PART.search(file.name))
    ]
    first = parts[0][0] if parts else ""
    return bool(parts) and parts == [(first, number, len(files)) for number in range(len(files))]


def _preference(file: Path) -> int:
    suffix = suffix_of(file)
    return PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED)


def _stem(file: Path) -> str:
    """Return the name of a file without the suffixes of its compression and format."""
    stem = file.with_suffix("") if file.suffix.lower() in COMPRESSED_SUFFIXES else file
    return stem.stem
