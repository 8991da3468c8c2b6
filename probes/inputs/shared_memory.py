"""Shared probe inputs: one copy for all workers of a study, computed once, written to a file, mapped by all.

Latents that do not fit into memory are one file too, which every worker reads in parts.
Token latents are not copied: every worker maps the files of the store.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from permafrost.data.atomic import TEMPORARY_SUFFIX, file_lock, write_atomically
from permafrost.data.errors import MachineError
from permafrost.data.scratch.latent_file import LatentField, LatentFile
from permafrost.data.scratch.record_file import RecordFile
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk import DiskInputs
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs


class SharedInputs:
    """Probe inputs by key, in the same pages of memory in every process that uses ``folder``.

    Args:
        folder: temporary folder that the workers share, with nothing else in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, ProbeInputs] = {}

    def __call__(self, key: str, make: Callable[[], ProbeInputs]) -> ProbeInputs:
        """Return the inputs of a key; compute them, or wait for the worker that does, if they are not there yet.

        One worker computes at a time, whatever the key, so that no two workers extract the same plan.

        Args:
            key: identifies the inputs; a valid file name.
            make: extracts and reads the inputs; called once for each key over all workers, or once for each worker if
                the inputs are token latents.

        Raises:
            MachineError: the disk is full.
        """
        if key not in self._opened:
            metadata_path = self._folder / f"{key}.json"
            if not metadata_path.exists():
                with file_lock(self._folder / "lock"):
                    if not metadata_path.exists():
                        inputs = make()
                        if isinstance(inputs, PooledInputs | DiskInputs):
                            self._write(key, inputs)
                        else:
                            write_atomically(metadata_path, b"{}")
                            self._opened[key] = inputs
            if key not in self._opened:
                metadata = json.loads(metadata_path.read_text("utf-8"))
                self._opened[key] = self._open(key, metadata) if metadata else make()
        return self._opened[key]

    def _write(self, key: str, inputs: PooledInputs | DiskInputs) -> None:
        """Write the latents, then the metadata: if the second file exists, both are complete."""
        metadata: dict[str, Any] = {"columns": inputs.columns, "widths": inputs.widths}
        temporary = self._folder / f"{key}{TEMPORARY_SUFFIX}"
        try:
            if isinstance(inputs, DiskInputs):
                size, name = inputs.latents.file.bytes, f"{key}.records"
                metadata |= {"fields": [asdict(field) for field in inputs.latents.fields]}
                metadata |= {"record_bytes": inputs.latents.file.record_bytes}
                inputs.latents.file.copy_to(temporary)
            else:
                values = np.ascontiguousarray(inputs.values.numpy())
                size, name = values.nbytes, f"{key}.npy"
                with open(temporary, "wb") as file:
                    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
                    file.write(values.data)
            os.replace(temporary, self._folder / name)
            write_atomically(self._folder / f"{key}.json", json.dumps(metadata).encode())
        except OSError as error:
            raise MachineError(
                f"{self._folder}: {error.strerror}; latents for the workers take {size:,} bytes. "
                "Every finished trial is safe: make room and run the same command again."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, key: str, metadata: dict[str, Any]) -> PooledInputs | DiskInputs:
        columns, widths = tuple(Column(*column) for column in metadata["columns"]), tuple(metadata["widths"])
        if "fields" in metadata:
            fields = tuple(LatentField(**field) for field in metadata["fields"])
            file = RecordFile.open(self._folder / f"{key}.records", metadata["record_bytes"])
            return DiskInputs(columns=columns, widths=widths, latents=LatentFile(file, fields))
        mapped = np.load(self._folder / f"{key}.npy", mmap_mode="c")  # a write, which torch might try, stays private
        return PooledInputs(values=torch.from_numpy(mapped), columns=columns, widths=widths)
