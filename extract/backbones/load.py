"""Backbone loading: a frozen model in evaluation mode, without head or pooler.

No code that ships with a model is run, nothing is unpickled, and nothing is downloaded: transformers is given the
filtered configuration, the attention implementation of the family, and folders that hold the digested files only.

transformers is imported where it is used, because it is slow to import.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from permafrost.data.errors import first_line
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import blocks_of
from permafrost.extract.architecture.small_model import make_config, model_arguments
from permafrost.extract.backbones.locate import INDEX, Source
from permafrost.extract.backbones.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


_FUSED = {"gelu_new": "gelu_pytorch_tanh"}  # the same function, in one pass


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
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = _pretrained(source, source.folder) if source.folder else untrained_model(source, plan.init_seed)
    tower = model.get_submodule(source.architecture.tower)
    tower.requires_grad_(False).eval().to(device=device, dtype=getattr(torch, dtype))
    return Backbone(
        source=source,
        model=tower,
        tokenizer=load_tokenizer(source.tokenizer_files),
        dtype=getattr(torch, dtype),
        device=torch.device(device),
    )


def untrained_model(source: Source, seed: int) -> "PreTrainedModel":
    """Return a model of the architecture of ``source`` with weights drawn from ``seed``, in float32."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(**_model_arguments(source))


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
        {key: _FUSED.get(value, value) if isinstance(value, str) else value for key, value in source.config.items()}
    )
    return {"config": config, "attn_implementation": source.architecture.attention, **model_arguments(config)}
