"""Limit of the memory that inputs take: more latents than it allows are read from disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.progress import NoProgress, Progress
from permafrost.data.scratch.latent_file import StoredLayers
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk import DiskInputs, disk_inputs


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that the latents of a probe may take in memory, and the folder for those that take more."""

    room: Callable[[int], int]
    """Bytes that are needed -> bytes that may be used."""

    folder: Path
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
        self.progress.note(
            f"training reads latents from disk: {_size(inputs.latents.file.bytes)}, in memory {_size(size)}; "
            f"train.memory leaves {_size(max(0, room))}"
        )
        return inputs


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
