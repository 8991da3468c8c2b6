"""A model's ``config.json``: the part of it that describes a model, which is all that transformers is given.

What names code, a kernel, a download, or how a forward pass is run is left out, at any depth: that is for us to say.
What stands for other weights than those in the folder is refused. What is left is part of a store's identity.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.errors import InputError

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
"""Keys that would load other weights than those that are digested."""

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
"""Keys that change no hidden state as we compute it; ``tokenizer_class`` counts with the tokenizer."""

LEFT_OUT_WORDS = {
    "auto", "custom", "download", "flash", "hub", "impl", "implementation", "kernels", "plan", "remote", "repo",
    "revision", "url",
}  # fmt: skip
"""A key with one of these words in it (``auto_map``, ``attn_implementation``, ``base_model_tp_plan``, ...) names code,
a download, or a way to run."""

PARTS = ("audio_config", "decoder", "encoder", "generator", "text_config", "text_encoder", "vision_config")
"""Configurations of parts, by which transformers would take a model for a composite; none of ours is one."""


class BackboneError(InputError):
    """A backbone that is not here, is no model we know, or cannot be loaded safely."""


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder, as it is.

    Raises:
        BackboneError: there is none, or it is no JSON object.
    """
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder} is no model folder: it has no config.json.")
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A file that is one JSON object; raises :class:`BackboneError` if it is not."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path} cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise BackboneError(f"{path} is not a JSON object.")
    return values


def model_config(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What a configuration says of the model, keys in order.

    Args:
        place: where it comes from, for messages.

    Raises:
        BackboneError: it asks for other weights than those in its folder.
    """
    described: dict[str, Any] = {}
    for key, value in sorted(config.items()):
        if key in REFUSED and value:
            raise BackboneError(f"{place}: its config.json sets '{key}', which is not supported: take plain weights.")
        kept = _described(value, place)
        emptied = bool(value) and isinstance(value, Mapping | list | tuple) and not kept
        if key not in REFUSED and not emptied and not _is_left_out(key, value):
            described[key] = kept
    return described


def canonical_json(config: Mapping[str, Any]) -> str:
    """A configuration as canonical JSON, for digests."""
    return json.dumps(config, sort_keys=True)


def first_line(error: BaseException) -> str:
    """An error's message, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _described(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return model_config(value, place)
    if isinstance(value, list | tuple):
        kept = [_described(part, place) for part in value]
        return kept if any(part is not None and part != {} for part in kept) else []
    return value


def _is_left_out(key: str, value: Any) -> bool:
    words = key.lower().split("_")
    if key in LEFT_OUT or key.startswith("_") or not LEFT_OUT_WORDS.isdisjoint(words):
        return True
    if key in PARTS and isinstance(value, Mapping):
        return True
    return "kernel" in words and not _is_size(value)  # kernel_config; the kernel_size of a convolution stays


def _is_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_size(part) for part in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
