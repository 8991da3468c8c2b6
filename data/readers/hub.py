"""Data sets of the hub: parquet or csv files, never a loading script."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.readers.conll import TAGS
from permafrost.data.readers.reader import RecordReader


def hub_splits(hub: str, config: str, revision: str) -> Mapping[str, Any]:
    """The splits of a data set by their names on the hub; raises :class:`CorpusError` where it cannot be had."""
    import datasets

    here = Path(hub).exists()  # such a folder would be remembered by its files' times: it is read again
    mode = "force_redownload" if here else None
    try:
        return dict(datasets.load_dataset(hub, config or None, revision=revision or None, download_mode=mode))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorpusError(f"the hub data set '{hub}' cannot be had ({reason})") from error


def hub_records(splits: Mapping[str, Any], hub: str, reading: RecordReader) -> Iterator[Record]:
    """The records of some splits, by their names here."""
    for split, rows in splits.items():
        names = _tag_names(rows, reading)
        for number, fields in enumerate(rows, 1):
            for record in reading.row((f"{hub}:{split}:{number}", fields), names):
                yield replace(record, split=split)


def _tag_names(rows: Any, reading: RecordReader) -> tuple[str, ...]:
    """The names of tags that the data set holds as numbers."""
    if reading.kind != "tags":
        return ()
    features = rows.features or {}
    column = reading.columns[1] if reading.columns else next((name for name in TAGS if name in features), "")
    return tuple(getattr(getattr(features.get(column), "feature", None), "names", ()))
