"""TODO: probes/config/recipe_file.py."""

from pathlib import Path

from permafrost.data.digests import DIGESTS, DamageError, digest_of, parse_with_digests
from permafrost.data.errors import MachineError
from permafrost.probes.config.names import RECORD


def read_recipe_file(path: Path) -> str:
    """The text of a recipe; one that lies in a run folder is compared with its digest.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
        DamageError: it, or the record beside it, is not as the run wrote it.
    """
    content, record = path.read_bytes(), path.with_name(RECORD)
    if record.is_file():
        way = f"copy the run again, or {path.name} to a folder of its own to run it as it is"
        about = parse_with_digests(record, read_file(record), way)  # a run of another version has none, and runs again
        if about and about[DIGESTS].get(path.name, digest_of(content)) != digest_of(content):
            raise DamageError(f"{path} is not as the run wrote it: {way}.")
    return content.decode("utf-8")


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror or error}).") from error
