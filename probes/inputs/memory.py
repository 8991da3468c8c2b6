"""Limit of the memory that inputs take: more latents than it allows are read from disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.machine import free_memory
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.scratch.latent_file import StoredLayers
from permafrost.data.store.plan import ExtractSpec
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs.disk import DiskInputs, disk_inputs


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that the latents of a probe may take in memory, and the folder for those that take more."""

    bytes: int
    folder: Path
    progress: Progress = field(default_factory=NoProgress)

    @classmethod
    def of(cls, train: TrainSpec, extract: ExtractSpec, progress: Progress) -> "MemoryLimit":
        """Return the limit of a recipe: ``train.memory``, or half of the memory that is free now."""
        limit = free_memory() // 2 if train.memory_bytes is None else train.memory_bytes
        return cls(limit, Path(extract.cache), progress)

    def on_disk(
        self, parts: Sequence[StoredLayers], texts: Sequence[Text], columns: Sequence[Column]
    ) -> DiskInputs | None:
        """Return inputs on disk if the latents do not fit, else None; they are noted.

        Args:
            parts: the layers of ``columns``, in their order.
        """
        size = 4 * len(texts) * len(columns) * max((width for part in parts for width, _ in part.fields()), default=0)
        if size <= self.bytes:
            return None
        inputs = disk_inputs(self.folder, parts, texts, columns)
        self.progress.note(
            f"training reads latents from disk: {_size(inputs.latents.file.bytes)}, in memory {_size(size)}; "
            f"train.memory is {_size(self.bytes)}"
        )
        return inputs


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
