"""Export of vectors and their rows to a folder, in blocks, and on from where an earlier call was stopped.

The folder holds a record of what is written to it, ``.export.json``, with the digests of the files once they are whole;
another export to the same folder is refused.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permafrost.data.atomic import file_lock, read_json, remove_leftovers, write_atomically
from permafrost.data.digests import DIGESTS, digests_of_files
from permafrost.data.errors import InputError, MachineError
from permafrost.data.export.table_files import part_names, write_columns, write_parts
from permafrost.data.export.tensor_files import TensorFile, npy_file, safetensors_file, write_tensors
from permafrost.data.export.vectors import VectorSource
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError, fingerprint, nearest

TABLES = {"parquet": ".parquet", "arrow": ".arrow"}
"""Format of tables -> suffix of its files."""

FORMATS = ("npy", "parquet", "safetensors", "arrow")

RECORD = ".export.json"
"""Record of an export; libraries that read a folder pass over hidden files."""

ROWS, LATENTS = "rows.parquet", "latents.safetensors"

LOCK, STATE = ".export.lock", ".export.state"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A finished export."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files in the folder: of vectors, then of rows if they are apart."""

    rows: int
    existed: bool
    """Whether it was there already."""

    bytes: int


def check_folder(folder: Path, format_name: str, asked: Mapping[str, Any]) -> None:
    """Raise an :class:`InputError` if an export cannot be written to a folder; called before anything runs.

    Args:
        asked: what is known of the export by then; compared with the record of one that is there.
    """
    if format_name not in FORMATS:
        raise SpecError(f"--format {format_name!r}: {nearest(format_name, FORMATS)}")
    if any(path.exists() and not path.is_dir() for path in folder.parents):
        raise InputError(f"--out {folder}: a part of the path is a file; name a folder.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: it is a file; name a folder.")
    known = _read_record(folder)
    if known is None and not (folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())):
        return
    if known is None:
        raise InputError(f"--out {folder}: it holds other files; name a new folder, or an empty one.")
    given = {"format": format_name, **asked}
    differing = [key for key, value in given.items() if known["of"].get(key) != json.loads(json.dumps(value))]
    if differing:
        raise InputError(
            f"--out {folder}: it holds an export that differs in {', '.join(differing)}; name another folder, or "
            "remove this one."
        )


def make_folder(folder: Path) -> None:
    """Make the folder of an output; raise an :class:`InputError` if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: it cannot be made ({error.strerror}); name a folder that can.") from error


def export(
    folder: Path, format_name: str, source: VectorSource, about: Mapping[str, Any], progress: Progress
) -> ExportResult:
    """Write vectors and rows to a folder, or what is missing of them.

    Args:
        about: what the vectors are of, plain values; recorded, and part of each file that can hold it.

    Raises:
        InputError: as of :func:`check_folder`, with all of ``about``; or another process writes to the folder.
        MachineError: the disk is full.
    """
    check_folder(folder, format_name, about)
    make_folder(folder)
    with file_lock(folder / LOCK, wait=False) as locked:
        if not locked:
            raise InputError(f"--out {folder}: another process is writing to it; wait for it, or name another folder.")
        return _export(folder, format_name, source, about, progress)


def _export(
    folder: Path, format_name: str, source: VectorSource, about: Mapping[str, Any], progress: Progress
) -> ExportResult:
    description = {"format": format_name, **about}
    known, rows = _read_record(folder), source.tensors[0].rows
    tensor_files = _tensor_files(folder, format_name, source, about)
    names = (
        [file.path.name for file in tensor_files] + [ROWS] if tensor_files else part_names(source, TABLES[format_name])
    )
    recorded = (known or {}).get(DIGESTS, {})
    found = _digests(folder, names) if recorded else {}
    existed = bool(found) and found == recorded
    if not existed:
        for name in (name for name, digest in found.items() if digest != recorded.get(name)):
            (folder / name).unlink()  # it is not as it was written
        remove_leftovers(folder, alone=True)
        _check_disk(folder, source, names)
        write_atomically(folder / RECORD, json.dumps({"of": description}, indent=1).encode())
        with progress.bar(f"rows to {format_name}", rows) as advance:
            if tensor_files:
                write_columns(folder / ROWS, source, about)
                write_tensors(tensor_files, source, folder / STATE, fingerprint(description), advance)
            else:
                write_parts(folder, TABLES[format_name], source, about, advance)
        record = {"of": description, DIGESTS: _digests(folder, names)}
        write_atomically(folder / RECORD, json.dumps(record, indent=1).encode())
    size = sum((folder / name).stat().st_size for name in names)
    return ExportResult(folder=folder, files=tuple(names), rows=rows, existed=existed, bytes=size)


def _tensor_files(folder: Path, format_name: str, source: VectorSource, about: Mapping[str, Any]) -> list[TensorFile]:
    """Return the files of whole tensors of a format; none if it is one of tables."""
    if format_name == "npy":
        return [npy_file(folder / f"{tensor.name}.npy", tensor) for tensor in source.tensors]
    if format_name == "safetensors":
        metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
        return [safetensors_file(folder / LATENTS, source.tensors, metadata)]
    return []


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return file -> its digest, of those that are there."""
    return digests_of_files(folder, (name for name in names if (folder / name).is_file()))


def _check_disk(folder: Path, source: VectorSource, names: list[str]) -> None:
    size = sum(tensor.row_bytes * tensor.rows for tensor in source.tensors)
    written = sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())
    free = shutil.disk_usage(folder).free
    if size - written > free:
        raise MachineError(
            f"{folder}: the vectors take {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; set --out to another "
            "disk, or ask for fewer layers or views."
        )


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of an export; None if the folder has none that can be read."""
    record = read_json(folder / RECORD)
    sound = isinstance(record, dict) and all(isinstance(record.get(key, {}), dict) for key in ("of", DIGESTS))
    return record if sound and "of" in record else None
