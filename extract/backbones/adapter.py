"""LoRA adapters: the folder of one is read here, and merged into the weights of its base in memory, by peft.

Nothing of an adapter is run or unpickled: peft is given its tensors and the numbers that scale them, and no other key
of ``adapter_config.json``.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.data.errors import first_line
from permafrost.extract.architecture.configuration import BackboneError, read_json

if TYPE_CHECKING:  # a run whose latents are all stored does without torch
    from torch import Tensor, nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

READ = (
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_alpha",
    "lora_bias",
    "r",
    "rank_pattern",
    "use_dora",
    "use_rslora",
)
"""Keys that decide what is added to the weights of the base."""

UNUSED = (
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)
"""Keys that change nothing here: which modules are adapted follows from the names of the tensors."""

HARMLESS_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of ``init_lora_weights`` that leave the weights of the base as they are; others replace these too."""

SAVED_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """LoRA adapter in a folder; nothing is loaded yet."""

    folder: Path
    config: Mapping[str, Any]
    """Keys of ``adapter_config.json`` in :data:`READ`."""

    base: str
    """Name of its base by ``adapter_config.json``, for messages."""

    @property
    def weights(self) -> Path:
        """File of its tensors."""
        return self.folder / WEIGHTS


def find_adapter(name: str) -> Adapter:
    """Return the adapter in a folder.

    Raises:
        BackboneError: there is none, it is not LoRA, or its tensors are pickled.
    """
    folder = Path(name).expanduser()
    if not (folder / CONFIG).is_file():
        raise BackboneError(f"plan.adapter = '{name}' is no folder of an adapter: it has no {CONFIG}.")
    values = read_json(folder / CONFIG)
    if values.get("peft_type") != "LORA":
        raise BackboneError(f"{folder}: its peft_type is {values.get('peft_type')!r}, and only LORA is merged.")
    if (start := values.get("init_lora_weights")) not in HARMLESS_STARTS:
        raise BackboneError(
            f"{folder}: init_lora_weights = {start!r} replaces the weights of its base too; convert it with the "
            "argument path_initial_model_for_weight_conversion of peft's save_pretrained."
        )
    for key, value in values.items():
        if value and key not in (*READ, *UNUSED):
            raise BackboneError(
                f"{folder}: its {CONFIG} sets '{key}', which is not supported; merge it by peft itself."
            )
    if not (folder / WEIGHTS).is_file():
        pickled = " It has adapter_model.bin, which can run code when loaded; convert it to safetensors."
        reason = pickled if (folder / "adapter_model.bin").is_file() else ""
        raise BackboneError(f"{folder} holds no weights ({WEIGHTS}).{reason}")
    config = {key: values[key] for key in READ if values.get(key)}
    return Adapter(folder=folder, config=config, base=str(values.get("base_model_name_or_path") or ""))


def merge_adapter(model: "nn.Module", adapter: Adapter, name: str) -> None:
    """Add an adapter to the weights of a model, each in float32 and then in its own dtype.

    Tensors of a head or a pooler, which the model does not have, are left out.

    Args:
        model: as transformers makes it, without a head.
        name: of the model, for messages.

    Raises:
        BackboneError: the adapter is of another model, or peft is not installed.
    """
    from safetensors.torch import load_file

    if any(weight.is_meta for weight in model.parameters()):
        raise BackboneError(
            f'{adapter.folder}: an adapter is merged in memory, and extract.device_map = "auto" left weights of '
            f"'{name}' on the disk; merge it by peft itself, and set plan.backbone to the merged model."
        )
    try:
        root, tensors = _fitted_to(model, load_file(adapter.weights))
        if not tensors:
            raise ValueError("none of its tensors is of a module of the model")
        added = {key: tensor for key, tensor in tensors.items() if ".lora_" in key}
        for key in tensors.keys() - added.keys():
            root.get_parameter(key).data.copy_(_of_shape(tensors[key], root.get_parameter(key), key))
        _merge(root, adapter.config, added)
    except ImportError as error:
        raise BackboneError(
            f"plan.adapter needs the package peft ({first_line(error)}); install it: pip install 'permafrost[peft]'."
        ) from error
    except Exception as error:  # a foreign adapter fails in as many ways as it has tensors
        said = f", its base is '{adapter.base}' by its {CONFIG}" if adapter.base else ""
        raise BackboneError(
            f"plan.adapter: {adapter.folder} is no adapter of '{name}'{said} ({first_line(error)})."
        ) from error


def _fitted_to(model: "nn.Module", tensors: "Mapping[str, Tensor]") -> "tuple[nn.Module, dict[str, Tensor]]":
    """Return a module in which the parts of ``model`` have the names of an adapter, and the tensors for these parts.

    An adapter that was trained on a model with a head names the model below the head first.
    """
    from torch import nn

    parts = {name for name, _ in model.named_children()}
    prefix = f"{model.base_model_prefix}."
    named = {key.removeprefix(SAVED_PREFIX).replace(".base_layer.", "."): value for key, value in tensors.items()}
    root = model
    if not any(key.split(".")[0] in parts for key in named):
        root = nn.Module()
        root.add_module(prefix[:-1], model)
        named = {key: value for key, value in named.items() if key.startswith(prefix)}
    start = 0 if root is model else len(prefix)
    return root, {key: value for key, value in named.items() if key[start:].split(".")[0] in parts}


def _of_shape(tensor: "Tensor", weight: "Tensor", key: str) -> "Tensor":
    if tensor.shape != weight.shape:
        raise ValueError(f"{key} is {list(tensor.shape)}, and that of the model {list(weight.shape)}")
    return tensor


def _merge(root: "nn.Module", config: Mapping[str, Any], added: "Mapping[str, Tensor]") -> None:
    """Add the products of low rank to the weights of the modules that they are named after."""
    from peft import LoraConfig, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer, LoraModel

    targets = sorted({key.rpartition(".lora_")[0] for key in added})
    modules = dict(root.named_modules())
    if lacking := [target for target in targets if target not in modules]:
        raise ValueError(f"the model has no module {lacking[0]}")
    if not targets:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(**config, target_modules=targets)
        tuner = LoraModel(root, {"default": config}, "default", low_cpu_mem_usage=True, state_dict=added)
        loaded = set_peft_model_state_dict(root, added, low_cpu_mem_usage=True)
        wrong = [*loaded.unexpected_keys, *(key for key in loaded.missing_keys if ".lora_" in key)]
        if wrong:
            raise ValueError(f"{wrong[0]} is of one of them only")
        for layer in [module for module in root.modules() if isinstance(module, LoraLayer)]:
            dtype = layer.get_base_layer().weight.dtype
            layer.float().merge(safe_merge=True)
            layer.get_base_layer().to(dtype)
        tuner.unload()
