"""Limit of the memory that inputs take: more latents than it allows are read from disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.progress import NoProgress, Progress
from permafrost.data.ragged import TokenIndex
from permafrost.data.scratch.latent_file import StoredLayers
from permafrost.data.store.encoding import vector_bytes
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk import DiskInputs, disk_inputs
from permafrost.probes.inputs.disk_tokens import DiskTokens


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that the latents of a probe may take in memory, and the folder for those that take more."""

    room: Callable[[int], int]
    """Bytes that are needed -> bytes that may be used."""

    folder: Path
    shared: bool = False
    """Whether other processes read the same latents; token states are then read from the store, which all can map."""

    progress: Progress = field(default_factory=NoProgress)

    def on_disk(
        self, parts: Sequence[StoredLayers], texts: Sequence[Text], columns: Sequence[Column]
    ) -> DiskInputs | None:
        """Return inputs on disk if the latents do not fit, else None; they are noted.

        Args:
            parts: the layers of ``columns``, in their order.
        """
        size = 4 * len(texts) * len(columns) * max((width for part in parts for width, _ in part.fields()), default=0)
        room = self.room(size)
        if size <= room:
            return None
        inputs = disk_inputs(self.folder, parts, texts, columns)
        self._note(inputs.latents.file.bytes, size, room)
        return inputs

    def tokens_on_disk(self, reader: TokenReader, tokens: TokenIndex) -> DiskTokens | None:
        """Return the states of a reader's texts in a file of their own if they do not fit, else None."""
        size = int(reader.lengths.sum()) * len(reader.layers) * vector_bytes(reader.stored_dtype, reader.width)
        room = self.room(size)
        reader.keeps_no_pages = room < size
        if size <= room or self.shared:
            return None
        disk = DiskTokens.write(self.folder, reader, tokens)
        self._note(disk.latents.file.bytes, size, room)
        return disk

    def _note(self, on_disk: int, in_memory: int, room: int) -> None:
        self.progress.note(
            f"training reads latents from disk: {_size(on_disk)}, in memory {_size(in_memory)}; train.memory leaves "
            f"{_size(max(0, room))}"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
