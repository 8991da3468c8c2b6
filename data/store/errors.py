"""Errors of the latent store, and the version of its file format."""

from pathlib import Path

from permafrost.data.errors import InputError, MachineError

FORMAT = 3
"""Version of the shard format; shards of another version are not read."""


class StoreError(InputError):
    """Latents that cannot be stored, or a request for latents that a store does not hold."""


class ShardError(MachineError):
    """A shard that is damaged or does not belong to its store."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}. Run 'permafrost cache repair {path.parent}': it sets damaged shards aside, and the "
            "next extraction runs their texts again."
        )
        self.path, self.reason = path, reason


class MissingShardError(ShardError):
    """A shard that is no longer there: another process has removed it."""

    def __init__(self, path: Path) -> None:
        self.path, self.reason = path, "the shard is no longer there"
        MachineError.__init__(self, f"{path}: {self.reason}. Run the same command again: what it held runs anew.")


class OtherVersionError(ShardError):
    """A shard in the format of another version of this package."""

    exit_code = InputError.exit_code

    def __init__(self, path: Path, wrote: int) -> None:
        self.path, self.reason = path, f"written by another version (format {wrote}, this version reads {FORMAT})"
        InputError.__init__(
            self,
            f"{path.parent}: {self.reason}. 'run' and 'extract' make its latents anew; 'permafrost cache prune "
            f"--whole {path.parent}' removes it.",
        )
