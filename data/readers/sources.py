"""Files of a corpus: a single one, or one per split in a folder, told by the word for the split in its name."""

import re
from collections.abc import Mapping
from pathlib import Path

from permafrost.data.corpora.records import CorpusError
from permafrost.data.files.column_names import split_of
from permafrost.data.files.table import COMPRESSED_SUFFIXES, suffix_of

FOREIGN = (".md", ".pl", ".py", ".pdf", ".h5", ".sh", ".json5", ".toml", ".yaml", ".yml", ".log", ".html")
"""Suffixes of files beside a corpus that are no part of it."""


PREFERRED = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt")
"""Suffixes in the order in which one of several files for a split is taken: the more a format says, the earlier."""


def find_files(path: Path) -> Mapping[str, Path]:
    """Return the files of a corpus by split; a single file has the empty name.

    Args:
        path: a file; or a folder, in which a file is of a split if its name is a word for it (train, dev, val, valid,
            validation, test, ..., in any case), or holds one: ``test.csv``, ``sts-dev.csv``, ``eng.testa``.
            Of files that differ in their format, the one whose format says more is taken, such as jsonl before txt.

    Raises:
        CorpusError: there is no such file or folder; or the folder has no training file, or two files for a split.
    """
    if not path.exists():
        raise CorpusError(f"{path}: no such file.")
    if not path.is_dir():
        return {"": path}
    exact, partial = dict[str, list[Path]](), dict[str, list[Path]]()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix.lower() not in FOREIGN and not file.name.startswith("."):
            words = [word for word in re.split(r"[\W_]+|(?<=\D)(?=\d)|(?<=\d)(?=\D)", file.name) if split_of(word)]
            named = split_of(_stem(file))
            if named or len({split_of(word) for word in words}) == 1:
                (exact if named else partial).setdefault(named or split_of(words[0]), []).append(file)
    files = {}
    for split in dict.fromkeys([*exact, *partial]):
        found = exact.get(split) or partial[split]
        best = min(map(_preference, found))
        candidates = [file for file in found if _preference(file) == best]
        if len(candidates) > 1:
            names = ", ".join(file.name for file in candidates)
            raise CorpusError(f"{path}: {len(candidates)} files could be {split}: {names}; give it a folder with one.")
        files[split] = candidates[0]
    if "train" not in files:
        raise CorpusError(f"{path}: expected a file called train, such as train.csv or train.jsonl.gz, found none.")
    return {split: files[split] for split in ("train", "validation", "test") if split in files}


def _preference(file: Path) -> int:
    suffix = suffix_of(file)
    return PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED)


def _stem(file: Path) -> str:
    """Return the name of a file without the suffixes of its compression and format."""
    stem = file.with_suffix("") if file.suffix.lower() in COMPRESSED_SUFFIXES else file
    return stem.stem
