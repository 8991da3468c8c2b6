"""Tokenizers that transformers makes of digested files, what identifies them, and how they are saved.

transformers and tokenizers are imported where they are used: they are slow to import, and a run whose latents are all
stored does without them, and without torch.
"""

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.locate import Source
from permafrost.extract.backbones.tokenizer_files import CONFIG, TokenizerFiles, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast


def load_tokenizer(files: Path | TokenizerFiles) -> "Tokenizer":
    """Return the fast tokenizer of a folder or of its files, without padding and truncation.

    Raises:
        BackboneError: no tokenizer can be made of the files, or only by code that ships with them.
    """
    files = read_tokenizer(files) if isinstance(files, Path) else files
    tokenizer: Tokenizer = make_tokenizer(files).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def make_tokenizer(files: TokenizerFiles) -> "PreTrainedTokenizerFast":
    """Return the tokenizer that transformers makes of some files.

    Raises:
        BackboneError: no fast tokenizer can be made of the files, or only by code that ships with them.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    try:
        with TemporaryDirectory(prefix="tokenizer-") as name:  # with the files and nothing else
            folder = Path(name)
            files.write(folder)
            if "encoder.json" in files.files and "vocab.bpe" in files.files:  # as OpenAI published GPT-2
                tokenizer = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
            else:
                config = _tokenizer_config(files)
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, config=config, trust_remote_code=False, local_files_only=True
                )
        assert tokenizer.backend_tokenizer is not None
    except BackboneError:
        raise
    except BaseException as error:  # a broken tokenizer file fails in as many ways as it has fields
        if not is_failure(error):
            raise
        reason = first_line(error)
        raise BackboneError(f"{files.folder}: no tokenizer can be made of it ({reason}).") from error
    return tokenizer


def is_failure(error: BaseException) -> bool:
    """Return whether tokenizers has failed: with an exception, or a panic of its Rust code, which is none of Python."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def tokenizer_digest(tokenizer: "Tokenizer") -> str:
    """Return the hex digest of everything that decides how a tokenizer turns a text into ids."""
    special = "special tokens in a text are text" if tokenizer.encode_special_tokens else ""
    return digest_of(tokenizer.to_str().encode() + special.encode())


def special_tokens_around(tokenizer: "Tokenizer") -> str:
    """Return the special tokens that a tokenizer puts around a text, as "[CLS] ... [SEP]"; empty if there are none."""
    encoding = tokenizer.encode("a")
    tokens = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
    shown = [token for token, _ in groupby(token if special else "..." for token, special in tokens)]
    return " ".join(shown) if any(encoding.special_tokens_mask) else ""


def tokenizer_for_saving(source: Source) -> TokenizerFiles:
    """Return tokenizer files to save in one folder with the ``config.json`` of the model of ``source``.

    Raises:
        BackboneError: with that ``config.json``, transformers would make another tokenizer of the files.
    """
    import transformers

    files, model_type = source.tokenizer_files, source.config["model_type"]
    version = transformers.__version__
    config = {CONFIG: json.dumps({"model_type": model_type, "transformers_version": version}).encode()}
    unchanged = replace(files, files={**files.files, **config})
    settled = {key: value for key, value in files.config.items() if key != "transformers_version"}
    if settled == {"model_type": model_type}:
        return unchanged
    tokenizer, special = load_tokenizer(files), make_tokenizer(files).special_tokens_map  # chat templates write these
    settings = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}).encode()
    serialized = {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": settings}
    for candidate in (unchanged, replace(files, files={**serialized, **config}, custom=False)):
        if tokenizer_digest(load_tokenizer(candidate)) == tokenizer_digest(tokenizer):
            return candidate
    raise BackboneError(
        f"the tokenizer in {files.folder} does not match the configuration of '{source.name}', so a fine-tuned "
        f"model cannot be saved with it; set plan.tokenizer to a folder of a {model_type} model."
    )


def _tokenizer_config(files: TokenizerFiles) -> "PreTrainedConfig":
    """Return a configuration that decides the tokenizer class; without one, the folder's name would decide it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING, tokenizer_class_from_name

    settings = files.config
    model_type, class_name = settings.get("model_type"), files.tokenizer_class
    known = model_type in CONFIG_MAPPING
    config: PreTrainedConfig = CONFIG_MAPPING[model_type]() if known else transformers.PreTrainedConfig()
    if files.custom and not (
        type(config) in TOKENIZER_MAPPING or (class_name and tokenizer_class_from_name(class_name))
    ):
        raise BackboneError(f"{files.folder}: its tokenizer is code of its own, which is never run.")
    for key in ("tokenizer_class", "model_name"):
        if key in settings:
            setattr(config, key, settings[key])
    return config
