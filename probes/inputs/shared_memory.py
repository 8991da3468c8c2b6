"""One copy of each probe's inputs for all workers of a study: made once, laid out in a file, mapped by every worker.

Tokens are read from the store's own files, which every worker maps: of those nothing is laid out.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from permafrost.data.atomic import TEMPORARY_SUFFIX, file_lock, write_atomically
from permafrost.data.errors import MachineError
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import ProbeInputs


class SharedInputs:
    """Key -> inputs, the same pages of memory in every process that uses ``folder``.

    Args:
        folder: scratch space that the workers share; nothing else lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, ProbeInputs] = {}

    def __call__(self, key: str, make: Callable[[], ProbeInputs]) -> ProbeInputs:
        """The inputs of a key; made, or waited for, where no worker has them yet.

        Inputs are made one at a time, whatever their keys: two that want the same plan must not both extract it.

        Args:
            key: what tells inputs apart, fit for a file name.
            make: extracts and reads; called once for each key over all workers, where it is no tokens that it reads.

        Raises:
            MachineError: there is no room for them on the disk.
        """
        if key not in self._opened:
            about = self._folder / f"{key}.json"
            if not about.exists():
                with file_lock(self._folder / "lock"):
                    if not about.exists():
                        made = make()
                        self._write(key, made)
                        if made.reader is not None:
                            self._opened[key] = made
            if key not in self._opened:
                self._opened[key] = self._open(key, make)
        return self._opened[key]

    def _write(self, key: str, inputs: ProbeInputs) -> None:
        """Latents first, what they are last: where the second file is, both are whole."""
        if inputs.reader is not None:
            write_atomically(self._folder / f"{key}.json", b"{}")
            return
        about = {"columns": inputs.columns, "widths": inputs.widths}
        values = np.ascontiguousarray(inputs.values.numpy())
        temporary = self._folder / f"{key}{TEMPORARY_SUFFIX}"
        try:
            with open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
                file.write(values.data)
            os.replace(temporary, self._folder / f"{key}.npy")
            write_atomically(self._folder / f"{key}.json", json.dumps(about).encode())
        except OSError as error:
            raise MachineError(
                f"{self._folder}: {error.strerror}; latents for the workers take {values.nbytes:,} bytes. "
                "Every finished trial is safe: make room and run the same command again."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, key: str, make: Callable[[], ProbeInputs]) -> ProbeInputs:
        about = json.loads((self._folder / f"{key}.json").read_text("utf-8"))
        if not about:
            return make()
        mapped = np.load(self._folder / f"{key}.npy", mmap_mode="c")  # a write, which torch might try, stays private
        columns = tuple(Column(*column) for column in about["columns"])
        return ProbeInputs(torch.from_numpy(mapped), columns, tuple(about["widths"]))
