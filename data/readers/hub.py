"""Reader of data sets from the Hugging Face hub: parquet or csv files, never a loading script."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import MachineError, first_line
from permafrost.data.readers.conll import TAGS
from permafrost.data.readers.reader import RecordReader
from permafrost.data.readers.registry import CorpusEntry


def hub_records(spec: CorpusSpec, entry: CorpusEntry, reader: RecordReader) -> Iterator[Record]:
    """Load a hub data set and read its records; those of train alone have no split.

    Raises:
        CorpusError: the data set cannot be loaded.
    """
    import datasets  # takes seconds, and is needed only for data sets of the hub

    is_local = Path(entry.hub).exists()  # datasets caches a local folder by the times of its files: read it again
    mode = "force_redownload" if is_local else None
    config, revision = spec.config or entry.config or None, spec.revision or entry.revision or None
    kept: dict[str, Any] = {"streaming": True} if spec.stream else {"download_mode": mode}
    try:
        dataset = datasets.load_dataset(entry.hub, config, revision=revision, **kept)
    except (OSError, ValueError, RuntimeError) as error:
        remedy = "; set PERMAFROST_DATA to the folder of local corpora" if entry.files else ""
        reason = f"the hub data set '{entry.hub}' cannot be loaded ({first_line(error)}){remedy}"
        raise CorpusError(f"'{spec.name}': {reason}.") from error
    splits = {entry.hub_splits[split]: rows for split, rows in dataset.items() if split in entry.hub_splits}
    if list(splits) == ["train"] and reader.encoding.has_target:
        return _split_records(entry.hub, "train", splits["train"], reader, "")
    return chain.from_iterable(_split_records(entry.hub, split, rows, reader, split) for split, rows in splits.items())


def _split_records(hub: str, name: str, rows: Any, reader: RecordReader, split: str) -> Iterator[Record]:
    """Yield the records of the rows called ``name``, in ``split``."""
    tag_names: tuple[str, ...] = ()
    if reader.encoding.reads == "words":  # the data set may hold tags as numbers
        features = rows.features or {}
        column = reader.columns[1] if reader.columns else next((name for name in TAGS if name in features), "")
        tag_names = tuple(getattr(getattr(features.get(column), "feature", None), "names", ()))
    number = 0
    try:
        for number, fields in enumerate(rows, 1):
            for record in reader.read_row((f"{hub}:{name}:{number}", fields), tag_names):
                yield record.in_split(split)
    except OSError as error:  # of a stream
        raise MachineError(
            f"{hub}:{name}: reading broke off after {number:,} rows ({first_line(error)}); what was extracted is "
            "stored, and the same command goes on from there."
        ) from error
