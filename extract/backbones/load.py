"""Backbone loading: a frozen model in evaluation mode, without head or pooler, and its tokenizer.

No code that ships with a model is run, nothing is unpickled, and nothing is downloaded: transformers is given the
filtered configuration, the attention implementation of the family, and folders that hold the digested files only.

transformers and tokenizers are imported where they are used: they are slow to import, and a run whose latents are all
stored does without them.
"""

import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import blocks_of
from permafrost.extract.architecture.small_model import make_config, model_arguments
from permafrost.extract.backbones.locate import INDEX, Source
from permafrost.extract.backbones.tokenizer_files import CONFIG, TokenizerFiles, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


FUSED = {"gelu_new": "gelu_pytorch_tanh"}
"""Activation function -> the same function, in one pass."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Frozen backbone in memory."""

    source: Source
    model: "PreTrainedModel"
    tokenizer: "Tokenizer"
    dtype: torch.dtype
    device: torch.device

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """Modules whose calls are the blocks."""
        return blocks_of(self.model, self.source.architecture.blocks)

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())


def load_backbone(source: Source, plan: CapturePlan, dtype: str, device: str) -> Backbone:
    """Load a frozen backbone, in evaluation mode, without language-model head or pooler.

    Raises:
        BackboneError: the files do not hold the whole model.
        FileChangedError: a weight file is another than the one whose digest was taken.
    """
    model = load_whole_model(source, plan)
    tower = model.get_submodule(source.architecture.tower)
    tower.requires_grad_(False).eval().to(device=device, dtype=getattr(torch, dtype))
    return Backbone(
        source=source,
        model=tower,
        tokenizer=load_tokenizer(source.tokenizer_files),
        dtype=getattr(torch, dtype),
        device=torch.device(device),
    )


def load_whole_model(source: Source, plan: CapturePlan) -> "PreTrainedModel":
    """Load a backbone in float32 with the parts beside the one that reads texts; errors as of :func:`load_backbone`."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return _pretrained(source, source.folder) if source.folder else untrained_model(source, plan.init_seed)


def untrained_model(source: Source, seed: int) -> "PreTrainedModel":
    """Return a model of the architecture of ``source`` with weights drawn from ``seed``, in float32."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(**_model_arguments(source))


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
    except Exception as error:  # a broken tokenizer file fails in as many ways as it has fields
        reason = first_line(error)
        raise BackboneError(f"{files.folder}: no tokenizer can be made of it ({reason}).") from error
    return tokenizer


def tokenizer_digest(tokenizer: "Tokenizer") -> str:
    """Return the hex digest of everything that decides how a tokenizer turns a text into ids."""
    special = "special tokens in a text are text" if tokenizer.encode_special_tokens else ""
    return digest_of(tokenizer.to_str().encode() + special.encode())


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
    tokenizer = load_tokenizer(files)
    settings = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}).encode()
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


def _pretrained(source: Source, folder: Path) -> "PreTrainedModel":
    from transformers import AutoModel

    try:
        with TemporaryDirectory(prefix="weights-") as name:  # with links to the weight files and nothing else
            weights = Path(name)
            for path in source.stamps:
                (weights / path.name).symlink_to(path.absolute())
            if (folder / INDEX).is_file():
                shutil.copyfile(folder / INDEX, weights / INDEX)
            model, loading = AutoModel.from_pretrained(
                weights,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **_model_arguments(source),
            )
            for weight in (*model.parameters(), *model.buffers()):
                weight.data = weight.data.clone()  # else it is a memory map of the file, and changes with the file
    except Exception as error:  # a broken configuration fails in as many ways as it has fields
        source.check_unchanged()
        raise BackboneError(f"'{source.name}': {folder} cannot be loaded ({first_line(error)}).") from error
    source.check_unchanged()
    missing = sorted(name for name in loading["missing_keys"] if name.startswith(source.architecture.tower))
    if missing:
        raise BackboneError(f"'{source.name}': {folder} lacks {len(missing)} weights, the first is {missing[0]}.")
    model.config.name_or_path = str(folder)
    return model


def _model_arguments(source: Source) -> dict[str, Any]:
    """Return the arguments that decide which model transformers makes."""
    config = make_config(
        {key: FUSED.get(value, value) if isinstance(value, str) else value for key, value in source.config.items()}
    )
    return {"config": config, "attn_implementation": source.architecture.attention, **model_arguments(config)}
