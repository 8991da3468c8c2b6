"""Model configurations: the keys of a ``config.json`` that describe the model; transformers is given no others.

Keys that name code, a kernel, a download, or how a forward pass is run are left out at any depth. Keys that would load
other weights than those in the folder are refused. The remaining keys are part of a store's identity.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.errors import InputError
from permafrost.data.settings.json import read_json_object

REFUSED = (
    "adapter_config",
    "compression_config",
    "gguf_file",
    "peft_config",
    "quantization_config",
    "transformers_weights",
    "use_pretrained_backbone",
    "use_timm_backbone",
)
"""Keys that would load other weights than those whose digest is taken; refused."""

LEFT_OUT = (
    "allow_all_kernels",
    "architectures",
    "compile_config",
    "device_map",
    "distributed_config",
    "dtype",
    "extra_config_files",
    "extra_files",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
)
"""Keys that change no hidden state; ``tokenizer_class`` is part of the tokenizer's digest instead."""

LEFT_OUT_WORDS = {
    "auto", "custom", "download", "flash", "hub", "impl", "implementation", "kernels", "plan", "remote", "repo",
    "revision", "url",
}  # fmt: skip
"""Words of keys that name code, a download, or how to run (``auto_map``, ``attn_implementation``,
``base_model_tp_plan``, ...)."""


FLOATS = {text: float(text) for text in ("Infinity", "-Infinity", "NaN")}
"""Numbers that JSON lacks; transformers writes them as ``{"__float__": "Infinity"}``."""


class BackboneError(InputError):
    """A backbone that is not on this machine, is of no supported family, or cannot be loaded safely."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise :class:`BackboneError` if the file does not hold one."""
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def model_config(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return the keys of a configuration that describe the model, sorted.

    Args:
        origin: folder or name that the configuration belongs to, for messages.

    Raises:
        BackboneError: the configuration asks for other weights than those in its folder.
    """
    described: dict[str, Any] = {}
    for key, value in sorted(config.items()):
        if key in REFUSED and value:
            raise BackboneError(f"{origin}: its config.json sets '{key}', which is not supported: take plain weights.")
        kept = _described(value, origin)
        emptied = bool(value) and isinstance(value, Mapping | list | tuple) and not kept
        if key not in REFUSED and not emptied and not _is_left_out(key, value):
            described[key] = kept
    return described


def canonical_json(config: Mapping[str, Any]) -> str:
    """Return a configuration as canonical JSON, for digests."""
    return json.dumps(config, sort_keys=True)


def _described(value: Any, origin: str) -> Any:
    if isinstance(value, Mapping):
        number = FLOATS.get(str(value.get("__float__"))) if len(value) == 1 else None
        return model_config(value, origin) if number is None else number
    if isinstance(value, list | tuple):
        kept = [_described(item, origin) for item in value]
        return kept if any(item is not None and item != {} for item in kept) else []
    return value


def _is_left_out(key: str, value: Any) -> bool:
    words = key.lower().split("_")
    if key in LEFT_OUT or key.startswith("_") or not LEFT_OUT_WORDS.isdisjoint(words):
        return True
    return "kernel" in words and not _is_size(value)  # kernel_config; the kernel_size of a convolution stays


def _is_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_size(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
