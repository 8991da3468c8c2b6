"""Tokenizer files: read once, and passed to transformers in a temporary folder that holds nothing else.

The digest therefore covers exactly the files in use: transformers sees neither the name of the original folder nor code
in it, and no setting of ``tokenizer_config.json`` leads to another file, to a hub, or to code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from permafrost.data.digests import digest_of_parts
from permafrost.data.errors import first_line
from permafrost.data.settings.bounds import read_file_of_settings
from permafrost.data.settings.json import read_json_object
from permafrost.extract.architecture.configuration import BackboneError

MOST_BYTES = 1 << 28
"""Bytes of the largest file of a tokenizer."""

SUFFIXES = (".json", ".txt", ".model", ".tiktoken", ".spm", ".bpe", ".codes", ".vocab", ".tokenizer")

VOCABULARIES = SUFFIXES[2:]
"""Suffixes of files that belong to a tokenizer whatever their name; other files are recognised by name."""

BEGINNINGS = (
    "tokenizer",
    "vocab",
    "merges",
    "special_tokens",
    "added_tokens",
    "spiece",
    "encoder.json",
    "sentencepiece",
    "dict.txt",
    "tekken",
    "normalizer.json",
    "emoji.json",
    "byte_maps.json",
    "word_shape.json",
    "word_pronunciation.json",
)

CONFIG = "config.json"

CHAT_TEMPLATE = "chat_template.jinja"
"""File of the chat template; older folders have it in ``tokenizer_config.json``."""

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""Files whose keys become arguments of a tokenizer's class."""

OF_CONFIG = ("model_type", "model_name", "tokenizer_class", "transformers_version")
"""Keys of the model's ``config.json`` that decide which tokenizer class is made."""

LEFT_OUT = (
    "_commit_hash",
    "auto_map",
    "cache_dir",
    "chat_template",
    "code_revision",
    "fast_tokenizer_files",
    "force_download",
    "init_inputs",
    "is_local",
    "local_files_only",
    "merges",
    "name_or_path",
    "post_processor",
    "processor_class",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "tokenizer_object",
    "tokenizer_padding",
    "tokenizer_truncation",
    "trust_remote_code",
    "vocab",
)
"""Settings that are dropped: they name code, a file or a download, or change no token."""

LEFT_OUT_ENDS = ("_file", "_files", "_spm", "_path", "_url")
"""Endings of further settings that are dropped."""


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a tokenizer's files."""

    folder: Path
    """Folder that they were read from, for messages."""

    files: Mapping[str, bytes] = field(repr=False)
    """File name -> content, without the dropped settings; of ``config.json`` only the keys in :data:`OF_CONFIG`."""

    custom: bool = False
    """Whether the folder asks for its own code to make the tokenizer."""

    chat_template: str = field(default="", repr=False)
    """Chat template, a Jinja program; empty if there is none. :attr:`digest` leaves it out: it changes no token."""

    @property
    def config(self) -> dict[str, str]:
        """Keys of ``config.json`` that decide which tokenizer class is made."""
        return dict(json.loads(self.files.get(CONFIG, b"{}")))

    @property
    def tokenizer_class(self) -> str:
        """Class that the settings name; empty if they name none."""
        name = json.loads(self.files.get(SETTINGS[0], b"{}")).get("tokenizer_class")
        return name if isinstance(name, str) else ""

    @property
    def digest(self) -> str:
        """Hex digest of all files. Equal files make equal tokenizers; different files may still make the same one."""
        parts = [name.encode() + b"\0" + content for name, content in sorted(self.files.items())]
        return digest_of_parts([b"custom" if self.custom else b"", *parts])

    def write(self, folder: Path) -> None:
        """Write the files and the chat template; a ``config.json`` that is already there stays."""
        for name, content in self.files.items():
            if name != CONFIG or not (folder / name).exists():
                (folder / name).write_bytes(content)
        if self.chat_template:
            (folder / CHAT_TEMPLATE).write_text(self.chat_template, "utf-8")


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """Read the files that make the tokenizer of a folder.

    Raises:
        BackboneError: there are none, or one cannot be read.
    """
    try:
        paths = [path for path in sorted(folder.iterdir()) if is_of_tokenizer(path.name) and path.is_file()]
        files = {path.name: read_file_of_settings(path, MOST_BYTES) for path in paths}
        settings = {name: read_json_object(folder / name) for name in SETTINGS if name in files}
        config = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else None
        template = None
        if (folder / CHAT_TEMPLATE).is_file():
            template = read_file_of_settings(folder / CHAT_TEMPLATE, MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise BackboneError(f"{folder}: no tokenizer can be made of it ({first_line(error)}).") from error
    if not files:
        raise BackboneError(f"{folder} holds no tokenizer; set plan.tokenizer to a folder that does.")
    for name, values in settings.items():
        files[name] = json.dumps(_without_dropped(values, LEFT_OUT)).encode()
    if config is not None:
        deciding = {key: config[key] for key in OF_CONFIG if isinstance(config.get(key), str)}
        files[CONFIG] = json.dumps(deciding).encode()
    tokenizer_settings = settings.get(SETTINGS[0], {})
    template = tokenizer_settings.get("chat_template") if template is None else template
    for entry in template if isinstance(template, list) else ():  # several, by name
        if isinstance(entry, dict) and entry.get("name") == "default":
            template = entry.get("template")
    chat_template = template if isinstance(template, str) else ""
    return TokenizerFiles(folder, files, bool(tokenizer_settings.get("auto_map")), chat_template)


def is_of_tokenizer(name: str) -> bool:
    """Return whether a file of this name can belong to a tokenizer."""
    if not name.endswith(SUFFIXES) or name.endswith(".index.json"):
        return False
    return name.startswith(BEGINNINGS) or name.endswith((*VOCABULARIES, "_vocab.json"))


def _without_dropped(values: Mapping[str, Any], left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Drop keys in ``left_out`` and, at any depth, those with a dropped ending; the order numbers special tokens."""
    return {
        key: _without_dropped(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in left_out and not key.endswith(LEFT_OUT_ENDS)
    }
