"""Loading: a backbone in memory, frozen, in evaluation mode, without head or pooler; and its tokenizer.

Nothing that ships with a model is run, and nothing is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.plan import CapturePlan
from extract.backbones import SAYS_NOTHING, BackboneError, Source, first_line, tokenizer_files

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

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
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = untrained(source, plan.init_seed) if source.folder is None else _pretrained(source)
    model.set_attn_implementation(source.family.attention)  # a configuration may have asked for another
    model.requires_grad_(False).eval().to(device=device, dtype=getattr(torch, dtype))
    return Backbone(source, model, load_tokenizer(source.tokenizer), getattr(torch, dtype), torch.device(device))


def untrained(source: Source, seed: int) -> "PreTrainedModel":
    """The architecture of ``source`` with weights drawn from ``seed``, in float32."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = {key: value for key, value in source.config.items() if key not in SAYS_NOTHING}
    kind = config.pop("model_type")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(AutoConfig.for_model(kind, **_fused(config)), **_no_pooler(source))


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The fast tokenizer of a folder, with padding and truncation off: those are ours.

    Raises:
        BackboneError: no tokenizer can be made of the folder's files.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    tokenizer_files(folder)
    try:
        if (folder / "encoder.json").is_file() and (folder / "vocab.bpe").is_file():  # as OpenAI published GPT-2
            made = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
        else:
            made = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer: Tokenizer = made.backend_tokenizer
    except Exception as error:  # a broken tokenizer file fails in as many ways as it has fields
        raise BackboneError(f"{folder}: no tokenizer can be made of it ({first_line(error)}).") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _pretrained(source: Source) -> "PreTrainedModel":
    import torch
    from transformers import AutoModel

    try:
        model, loading = AutoModel.from_pretrained(
            source.folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **_fused(
                {key: source.config[key] for key in ("activation_function", "hidden_act") if key in source.config}
            ),
            **_no_pooler(source),
        )
    except Exception as error:  # a broken configuration fails in as many ways as it has fields
        raise BackboneError(f"'{source.name}': {source.folder} cannot be loaded ({first_line(error)}).") from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise BackboneError(
            f"'{source.name}': {source.folder} lacks {len(missing)} weights, the first is {missing[0]}."
        )
    return model


def _no_pooler(source: Source) -> dict[str, bool]:
    return {"add_pooling_layer": False} if source.family.pooler else {}


def _fused(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _ONE_PASS.get(value, value) if isinstance(value, str) else value for key, value in config.items()}
