"""Loading: a backbone in memory, frozen, in evaluation mode, without head or pooler; and its tokenizer.

Nothing that ships with a model is run, nothing is unpickled, nothing is fetched: transformers is given the
configuration that we read, the attention that we name, and folders that hold the files that we digest and nothing else.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.configuration import BackboneError, first_line
from permafrost.extract.backbones.locate import INDEX, Source
from permafrost.extract.backbones.tokenizer_files import CONFIG, TokenizerFiles, read_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


_ONE_PASS = {"gelu_new": "gelu_pytorch_tanh"}  # the same function, fused


@dataclass(frozen=True)
class Backbone:
    """A frozen backbone in memory."""

    source: Source
    model: "PreTrainedModel"
    tokenizer: "Tokenizer"
    dtype: "torch.dtype"
    device: "torch.device"

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(weight.numel() for weight in self.model.parameters())


def load(source: Source, plan: CapturePlan, dtype: str, device: str) -> Backbone:
    """Load a frozen backbone, in evaluation mode, without language-model head or pooler.

    Raises:
        BackboneError: the files do not make the whole model.
        FileChangedError: a file of weights is another than the one that was digested.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = _pretrained(source, source.folder) if source.folder else untrained(source, plan.init_seed)
    model.requires_grad_(False).eval().to(device=device, dtype=getattr(torch, dtype))
    tokenizer = load_tokenizer(source.tokenizer_files)
    return Backbone(source, model, tokenizer, getattr(torch, dtype), torch.device(device))


def untrained(source: Source, seed: int) -> "PreTrainedModel":
    """The architecture of ``source`` with weights drawn from ``seed``, in float32."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(_config(source), **_model_kwargs(source))


def load_tokenizer(of: Path | TokenizerFiles) -> "Tokenizer":
    """The fast tokenizer of a folder or of its files, with padding and truncation off: those are ours.

    Raises:
        BackboneError: no tokenizer can be made of the files, or only by code of their own.
    """
    tokenizer: Tokenizer = make_tokenizer(read_tokenizer(of) if isinstance(of, Path) else of).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def make_tokenizer(files: TokenizerFiles) -> "PreTrainedTokenizerFast":
    """The tokenizer that transformers makes of some files.

    Raises:
        BackboneError: none can be made of the files, or no fast one, or only by code of their own.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    try:
        with files.as_folder() as folder:
            if "encoder.json" in files.files and "vocab.bpe" in files.files:  # as OpenAI published GPT-2
                made = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
            else:
                config = _tokenizer_config(files)
                made = AutoTokenizer.from_pretrained(
                    folder, config=config, trust_remote_code=False, local_files_only=True
                )
        assert made.backend_tokenizer is not None
    except BackboneError:
        raise
    except Exception as error:  # a broken tokenizer file fails in as many ways as it has fields
        reason = first_line(error)
        raise BackboneError(f"{files.folder}: no tokenizer can be made of it ({reason}).") from error
    return made


def tokenizer_digest(tokenizer: "Tokenizer") -> str:
    """Hex digest of all that decides how a tokenizer makes ids of a text."""
    how = "special tokens in a text are text" if tokenizer.encode_special_tokens else ""
    return hashlib.sha256(tokenizer.to_str().encode() + how.encode()).hexdigest()


def tokenizer_beside(source: Source) -> TokenizerFiles:
    """Files that make the tokenizer of ``source`` beside the ``config.json`` of its model, as a saved model has them.

    Raises:
        BackboneError: there, transformers would make another tokenizer of them.
    """
    import transformers

    files, kind = source.tokenizer_files, source.config["model_type"]
    config = {CONFIG: json.dumps({"model_type": kind, "transformers_version": transformers.__version__}).encode()}
    beside = replace(files, files={**files.files, **config})
    if {key: value for key, value in files.config.items() if key != "transformers_version"} == {"model_type": kind}:
        return beside
    tokenizer = load_tokenizer(files)
    settings = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}).encode()
    whole = {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": settings}
    for candidate in (beside, replace(files, files={**whole, **config}, custom=False)):
        if tokenizer_digest(load_tokenizer(candidate)) == tokenizer_digest(tokenizer):
            return candidate
    raise BackboneError(
        f"the tokenizer in {files.folder} is another one beside the configuration of '{source.name}', so blocks that "
        f"learn cannot be saved with it; set plan.tokenizer to a folder of a {kind} model."
    )


def _tokenizer_config(files: TokenizerFiles) -> "PreTrainedConfig":
    """What the choice of a tokenizer's class asks of a configuration; without it, names of folders would count."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING, tokenizer_class_from_name

    said = files.config
    kind, name = said.get("model_type"), files.tokenizer_class
    config: PreTrainedConfig = CONFIG_MAPPING[kind]() if kind in CONFIG_MAPPING else transformers.PreTrainedConfig()
    if files.custom and type(config) not in TOKENIZER_MAPPING and not (name and tokenizer_class_from_name(name)):
        raise BackboneError(f"{files.folder}: its tokenizer is code of its own, which is never run.")
    for key in ("tokenizer_class", "model_name"):
        if key in said:
            setattr(config, key, said[key])
    return config


def _pretrained(source: Source, folder: Path) -> "PreTrainedModel":
    import torch
    from transformers import AutoModel

    try:
        with _weights_alone(source, folder) as alone:
            model, loading = AutoModel.from_pretrained(
                alone,
                config=_config(source),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **_model_kwargs(source),
            )
            for weight in (*model.parameters(), *model.buffers()):
                weight.data = weight.data.clone()  # else it is a map of the file, and changes with it
    except Exception as error:  # a broken configuration fails in as many ways as it has fields
        source.check_unchanged()
        raise BackboneError(f"'{source.name}': {folder} cannot be loaded ({first_line(error)}).") from error
    source.check_unchanged()
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise BackboneError(f"'{source.name}': {folder} lacks {len(missing)} weights, the first is {missing[0]}.")
    model.config.name_or_path = str(folder)
    return model


@contextmanager
def _weights_alone(source: Source, folder: Path) -> Iterator[Path]:
    """A temporary folder that leads to the weights of a model folder and to nothing else in it."""
    with TemporaryDirectory(prefix="weights-") as name:
        alone = Path(name)
        for path in source.stamps:
            (alone / path.name).symlink_to(path.absolute())
        if (folder / INDEX).is_file():
            shutil.copyfile(folder / INDEX, alone / INDEX)
        yield alone


def _config(source: Source) -> "PreTrainedConfig":
    """The configuration as transformers has it, of what we read and nothing else."""
    from transformers import AutoConfig

    values = dict(source.config)
    config: PreTrainedConfig = AutoConfig.for_model(values.pop("model_type"), **_with_fused_activations(values))
    return config


def _model_kwargs(source: Source) -> dict[str, Any]:
    """What a model is told beside its configuration."""
    pooler = {"add_pooling_layer": False} if source.family.pooler else {}
    return {"attn_implementation": source.family.attention, **pooler}


def _with_fused_activations(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _ONE_PASS.get(value, value) if isinstance(value, str) else value for key, value in config.items()}
