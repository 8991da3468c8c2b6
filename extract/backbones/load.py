"""Backbone loading: a frozen model in evaluation mode, without head or pooler, and its tokenizer.

No code that ships with a model is run, nothing is unpickled, and nothing is downloaded: transformers is given the
filtered configuration, the attention implementation of the family, and folders that hold the digested files only.

transformers and tokenizers are imported where they are used: they are slow to import, and a run whose latents are all
stored does without them.
"""

import importlib.util
import json
import shutil
import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from permafrost.data.digests import digest_of
from permafrost.data.errors import MachineError, PermafrostError, first_line
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import blocks_of
from permafrost.extract.architecture.small_model import make_config, model_arguments
from permafrost.extract.backbones.adapter import merge_adapter
from permafrost.extract.backbones.locate import INDEX, Source
from permafrost.extract.backbones.memory import free_memory
from permafrost.extract.backbones.tokenizer_files import CONFIG, TokenizerFiles, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


_FUSED = {"gelu_new": "gelu_pytorch_tanh"}  # the same function, in one pass


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Frozen backbone in memory."""

    source: Source
    model: "PreTrainedModel"
    tokenizer: "Tokenizer"
    dtype: torch.dtype
    device: torch.device
    spread: bool = False
    """Whether its weights may lie on several devices and on the disk."""

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """Modules whose calls are the blocks."""
        return blocks_of(self.model, self.source.architecture.blocks)

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())


def load_backbone(source: Source, plan: CapturePlan, dtype: str, device: str, device_map: str = "") -> Backbone:
    """Load a frozen backbone, in evaluation mode, without language-model head or pooler.

    Args:
        device_map: as of :class:`permafrost.data.store.plan.ExtractSpec`.

    Raises:
        BackboneError: the files do not hold the whole model, or its adapter is of another one.
        FileChangedError: a weight file is another than the one whose digest was taken.
        MachineError: the weights do not fit the memory.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    precision, spread = getattr(torch, dtype), bool(device_map and source.folder)
    if source.folder:
        if not spread:
            _check_memory(source, precision, torch.device(device))
        model = _pretrained(source, source.folder, precision, device_map or None)
    else:
        model = untrained_model(source, plan.init_seed)
    tower = model.get_submodule(source.architecture.tower).requires_grad_(False).eval()
    if spread:
        tower.register_forward_pre_hook(lambda *_: source.check_unchanged())  # of what is on the disk
    else:
        tower.to(device=device, dtype=precision)
    return Backbone(
        source=source,
        model=tower,
        tokenizer=load_tokenizer(source.tokenizer_files),
        dtype=precision,
        device=torch.device(device),
        spread=spread,
    )


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


def _check_memory(source: Source, dtype: torch.dtype, device: torch.device) -> None:
    """Raise :class:`MachineError` if the weights do not fit the memory of the CPU, which reads them, or of the device.

    Files that are far smaller than the memory are not looked at.
    """
    from transformers import AutoModel

    free = {place.type: free_memory(place) for place in (torch.device("cpu"), device)}
    if sum(stamp.size for stamp in source.stamps.values()) * dtype.itemsize < min(free.values()):
        return
    with torch.device("meta"):
        model = AutoModel.from_config(**_model_arguments(source))
    size = sum(weight.numel() for weight in model.parameters()) * dtype.itemsize
    place = min(free, key=lambda place: free[place])
    if size > free[place]:
        halved = ' plan.compute_dtype = "bfloat16", which halves it, or' if dtype is torch.float32 else ""
        raise MachineError(
            f"'{source.name}' takes {size / 1e9:,.1f} GB in {str(dtype).removeprefix('torch.')}, and the {place} has "
            f'{free[place] / 1e9:,.1f} GB free: set{halved} extract.device_map = "auto", which spreads it over all '
            "devices and the disk."
        )


def _pretrained(source: Source, folder: Path, dtype: torch.dtype, device_map: str | None) -> "PreTrainedModel":
    from transformers import AutoModel

    if device_map and importlib.util.find_spec("accelerate") is None:
        raise BackboneError(
            f'extract.device_map = "{device_map}" needs the package accelerate; install it: pip install accelerate.'
        )
    weights = Path(mkdtemp(prefix="weights-"))  # with links to the weight files and nothing else
    remove = weakref.finalize(source, shutil.rmtree, weights, ignore_errors=True)
    try:
        for path in source.weights:
            (weights / path.name).symlink_to(path.absolute())
        if (folder / INDEX).is_file():
            shutil.copyfile(folder / INDEX, weights / INDEX)
        model, loading = AutoModel.from_pretrained(
            weights,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=dtype,
            device_map=device_map,
            offload_folder=weights / "offloaded" if device_map else None,
            output_loading_info=True,
            **_model_arguments(source),
        )
        _own_memory(model, dtype)
        if source.adapter:
            merge_adapter(model, source.adapter, source.name)
    except PermafrostError:
        raise
    except Exception as error:  # a broken configuration fails in as many ways as it has fields
        source.check_unchanged()
        raise BackboneError(f"'{source.name}': {folder} cannot be loaded ({first_line(error)}).") from error
    finally:
        if not device_map:  # else weights are read from the disk as long as the model runs
            remove()
    source.check_unchanged()
    computed = model._keys_to_ignore_on_load_missing or ()  # positions of Marian, which no file holds
    missing = sorted(
        name
        for name in loading["missing_keys"]
        if name.startswith(source.architecture.tower) and f"{model.base_model_prefix}.{name}" not in computed
    )
    if missing:
        raise BackboneError(f"'{source.name}': {folder} lacks {len(missing)} weights, the first is {missing[0]}.")
    model.config.name_or_path = str(folder)
    return model


def _own_memory(model: nn.Module, dtype: torch.dtype) -> None:
    """Copy the tensors of a model one by one, in ``dtype`` if they are floating-point.

    Else they are memory maps of the files, and change with these; and buffers stay in float32.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_meta:
            tensor.data = tensor.data.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _model_arguments(source: Source) -> dict[str, Any]:
    """Return the arguments that decide which model transformers makes."""
    config = make_config(
        {key: _FUSED.get(value, value) if isinstance(value, str) else value for key, value in source.config.items()}
    )
    return {"config": config, "attn_implementation": source.architecture.attention, **model_arguments(config)}
