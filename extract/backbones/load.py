"""Backbone loading: a frozen model in evaluation mode, without head or pooler.

No code that ships with a model is run, nothing is unpickled, and nothing is downloaded: transformers is given the
filtered configuration, the attention implementation of the family, and folders that hold the digested files only.

transformers is imported where it is used, because it is slow to import.
"""

import copy
import importlib.util
import shutil
import weakref
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from permafrost.data import machine
from permafrost.data.device.memory import free_bytes
from permafrost.data.errors import MachineError, PermafrostError, first_line
from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import blocks_of
from permafrost.extract.architecture.small_model import make_config, model_arguments
from permafrost.extract.backbones.adapter import merge_adapter
from permafrost.extract.backbones.locate import INDEX, Source
from permafrost.extract.backbones.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


FUSED = {"gelu_new": "gelu_pytorch_tanh"}
"""Activation function -> the same function, in one pass."""

FLOAT32_TENSORS = ("deberta", "xlnet")
"""Kinds whose classes make some weights in float32 whatever the dtype, and do not run in another one unless these are
cast."""


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

    lock: Any = field(default_factory=RLock, init=False, repr=False, compare=False)
    """Held while the model runs: the hooks that read a forward pass would read that of another thread too."""

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """Modules whose calls are the blocks."""
        return blocks_of(self.model, self.source.architecture.blocks)

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    def replica(self) -> "Backbone":
        """Return one with the same weights in modules of its own, which may run at the same time on another thread."""
        weights = {id(weight): weight for weight in self.model.parameters()}
        return replace(self, model=copy.deepcopy(self.model, weights))


def load_backbone(
    source: Source, plan: CapturePlan, dtype: str, device: str, device_map: str = "", cache: Path | None = None
) -> Backbone:
    """Load a frozen backbone, in evaluation mode, without language-model head or pooler.

    Args:
        device_map: as of :class:`permafrost.data.plan.plan.ExtractSpec`.
        cache: folder of the latent stores, in which weights are kept while the backbone lives if they are spread over
            devices and the disk; None is the system's folder of temporary files.

    Raises:
        BackboneError: the files do not hold the whole model, or its adapter is of another one.
        FileChangedError: a weight file is another than the one whose digest was taken.
        MachineError: the weights do not fit the memory.
    """
    precision, spread = getattr(torch, dtype), bool(device_map and source.folder)
    if device == "cpu":
        machine.keep_freed_memory()
    model = load_whole_model(source, plan, dtype, device, device_map, cache)
    tower = model.get_submodule(source.architecture.tower).requires_grad_(False).eval()
    if spread:
        tower.register_forward_pre_hook(lambda *_: source.check_unchanged())  # of what is on the disk
    else:
        tower.to(device=device)
    return Backbone(
        source=source,
        model=tower,
        tokenizer=load_tokenizer(source.tokenizer_files),
        dtype=precision,
        device=torch.device(device),
        spread=spread,
    )


def load_whole_model(
    source: Source, plan: CapturePlan, dtype: str, device: str, device_map: str = "", cache: Path | None = None
) -> "PreTrainedModel":
    """Load a backbone with the parts beside the one that reads texts; arguments and errors as of :func:`load_backbone`.

    It is on the CPU if there is no ``device_map``; ``device`` is where it must fit. In bfloat16, all that transformers
    keeps in float32 stays so: buffers such as the frequencies of rotary positions, and weights of some routers.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    precision = getattr(torch, dtype)
    if not source.folder:
        model = untrained_model(source, plan.init_seed)
        return model if precision is torch.float32 else _loaded_again(model, source, precision)
    if not device_map:
        _check_memory(source, precision, torch.device(device))
    return _pretrained(source, source.folder, precision, device_map or None, cache)


def untrained_model(source: Source, seed: int) -> "PreTrainedModel":
    """Return a model of the architecture of ``source`` with weights drawn from ``seed``, in float32."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(**_model_arguments(source))


def _loaded_again(model: "PreTrainedModel", source: Source, dtype: torch.dtype) -> "PreTrainedModel":
    """Return an untrained model as transformers would load it from files in ``dtype``."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])  # each once, if it is in two places
    loaded: PreTrainedModel = type(model).from_pretrained(
        None, state_dict=tensors, dtype=dtype, **_model_arguments(source)
    )
    _own_memory(loaded, dtype)
    return loaded


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still allocate."""
    return free_bytes(device) if device.type == "cuda" else machine.free_memory()


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


def _pretrained(
    source: Source, folder: Path, dtype: torch.dtype, device_map: str | None, cache: Path | None
) -> "PreTrainedModel":
    from transformers import AutoModel

    if device_map and importlib.util.find_spec("accelerate") is None:
        raise BackboneError(
            f'extract.device_map = "{device_map}" needs the package accelerate; install it: pip install accelerate.'
        )
    parent = cache if device_map else None  # spread weights may be written again, and be large
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    weights = Path(mkdtemp(prefix="weights-", dir=parent))  # with links to the weight files and nothing else
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


def _own_memory(model: "PreTrainedModel", dtype: torch.dtype) -> None:
    """Copy the tensors of a model one by one; else they are memory maps of the files, and change with these."""
    is_cast = model.config.model_type in FLOAT32_TENSORS
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_meta:
            is_left = not is_cast or not tensor.is_floating_point()
            tensor.data = tensor.data.to(tensor.dtype if is_left else dtype, copy=True)


def _model_arguments(source: Source) -> dict[str, Any]:
    """Return the arguments that decide which model transformers makes."""
    config = make_config(
        {key: FUSED.get(value, value) if isinstance(value, str) else value for key, value in source.config.items()}
    )
    return {"config": config, "attn_implementation": source.architecture.attention, **model_arguments(config)}
