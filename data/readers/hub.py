"""Reader of data sets from the Hugging Face hub: parquet or csv files, never a loading script."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.errors import first_line
from permafrost.data.readers.conll import TAGS
from permafrost.data.readers.reader import RecordReader


def hub_splits(hub: str, config: str, revision: str) -> Mapping[str, Any]:
    """Load the splits of a hub data set, by their names on the hub.

    Raises:
        CorpusError: the data set cannot be loaded.
    """
    import datasets  # takes seconds, and is needed only for data sets of the hub

    is_local = Path(hub).exists()  # datasets caches a local folder by the times of its files: read it again
    mode = "force_redownload" if is_local else None
    try:
        return dict(datasets.load_dataset(hub, config or None, revision=revision or None, download_mode=mode))
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"the hub data set '{hub}' cannot be loaded ({first_line(error)})") from error


def hub_records(splits: Mapping[str, Any], hub: str, reader: RecordReader) -> Iterator[Record]:
    """Read the records of loaded splits.

    Args:
        splits: split of the corpus -> rows of the data set.
        hub: id of the data set, for the origins of records.
    """
    for split, rows in splits.items():
        tag_names = _tag_names(rows, reader)
        for number, fields in enumerate(rows, 1):
            for record in reader.read_row((f"{hub}:{split}:{number}", fields), tag_names):
                yield replace(record, split=split)


def _tag_names(rows: Any, reader: RecordReader) -> tuple[str, ...]:
    """Return the names of the tags, if the data set holds them as numbers."""
    if reader.encoding.reads != "words":
        return ()
    features = rows.features or {}
    column = reader.columns[1] if reader.columns else next((name for name in TAGS if name in features), "")
    return tuple(getattr(getattr(features.get(column), "feature", None), "names", ()))
