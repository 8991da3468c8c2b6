"""Data sets of the hub: parquet or csv files, never a loading script."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.corpus import CorpusError, Record
from data.reading import Reading
from data.tagged import TAGS


def hub_splits(hub: str, config: str, revision: str) -> Mapping[str, Any]:
    """The splits of a data set by their names on the hub; raises :class:`CorpusError` where it cannot be had."""
    import datasets

    if Path(hub).exists():  # datasets would read it, and remember it by its files' times
        raise CorpusError(
            f"corpus.name = '{hub}' is a data set of the hub, and there is a folder of that name here; "
            "set corpus.path to it, or run from another folder."
        )
    try:
        return dict(datasets.load_dataset(hub, config or None, revision=revision or None))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorpusError(f"the hub data set '{hub}' cannot be had ({reason})") from error


def hub_records(splits: Mapping[str, Any], hub: str, reading: Reading) -> Iterator[Record]:
    """The records of some splits, by their names here."""
    for split, rows in splits.items():
        names = _tag_names(rows, reading)
        for number, fields in enumerate(rows, 1):
            for record in reading.row((f"{hub}:{split}:{number}", fields), names):
                yield replace(record, split=split)


def _tag_names(rows: Any, reading: Reading) -> tuple[str, ...]:
    """The names of tags that the data set holds as numbers."""
    if reading.kind != "tags":
        return ()
    features = rows.features or {}
    column = reading.columns[1] if reading.columns else next((name for name in TAGS if name in features), "")
    return tuple(getattr(getattr(features.get(column), "feature", None), "names", ()))
