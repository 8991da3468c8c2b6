"""TODO: data/store/errors.py."""

from pathlib import Path

from permafrost.data.errors import InputError, MachineError

FORMAT = 3


class StoreError(InputError):
    """Latents that cannot be stored as asked, or a store that does not hold what is asked."""


class ShardError(MachineError):
    """A shard that is not what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}. Run 'pipeline.py cache repair {path.parent}': it sets damaged shards aside, and the "
            "next extraction runs their texts again."
        )
        self.path, self.reason = path, reason


class OtherVersionError(ShardError):
    """A shard that another version of this program wrote."""

    exit_code = InputError.exit_code

    def __init__(self, path: Path, wrote: int) -> None:
        self.path, self.reason = path, f"written by another version (format {wrote}, this version reads {FORMAT})"
        InputError.__init__(
            self,
            f"{path.parent}: {self.reason}. 'run' and 'extract' make its latents anew; 'pipeline.py cache prune "
            f"--whole {path.parent}' removes it.",
        )
