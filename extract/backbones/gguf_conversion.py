"""Conversion of a GGUF file into a model folder.

A weight keeps the value that it is dequantised to: a tensor is stored in bfloat16 or float16 if that holds all of its
values, else in float32. Four-bit blocks need float32: 79 % of the weights of SmolLM2-135M in Q4_1 are no bfloat16
numbers.

A GGUF file holds no code, but it may be damaged or hostile: its header is read by bounds-checked code first, and
compared with the size of the file before anything is allocated by the sizes that it states.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers

from permafrost.data.atomic import file_lock, move_into_place, remove_leftovers, temporary_path
from permafrost.data.errors import MachineError, PermafrostError, first_line
from permafrost.data.machine import package_version
from permafrost.data.progress import Progress
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.file_digest import FileChangedError, Stamp, stamp_of
from permafrost.extract.backbones.tokenizer_files import CONFIG

if TYPE_CHECKING:  # transformers is imported where it is used, because it is slow to import
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

WEIGHTS_PER_BYTE = 8
"""Most weights that a byte of a file can stand for: blocks of one bit."""

SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Pre-tokenizers, as ``tokenizer.ggml.pre`` names them, that split numbers into digits before GPT-2's rule applies.

transformers 5.23 takes GPT-2's rule alone for them, which differs where several spaces or line feeds precede a digit.
"""


def convert_once(file: Path, stamp: Stamp, folder: Path, progress: Progress) -> None:
    """Make the model folder of a GGUF file of this stamp, unless another process has just made it.

    Raises:
        BackboneError: the file is no whole GGUF file, or is of a model that transformers cannot read.
        FileChangedError: the file changed while it was read.
        MachineError: the folder cannot be written.
    """
    try:
        with file_lock(folder.parent / f".{folder.name}.lock"):
            if folder.is_dir():
                return
            remove_leftovers(folder.parent, f"{folder.name}-", alone=True)
            progress.note(f"{file.name}: converted to safetensors, once, in {folder}")
            with temporary_path(folder.parent, f"{folder.name}-") as temporary:
                model, tokenizer = _read_model(file)
                model.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
                for path in temporary.glob("*.safetensors"):  # written for their owner alone, unlike the others
                    path.chmod((temporary / CONFIG).stat().st_mode)
                if stamp_of(file.stat()) != stamp:
                    raise FileChangedError(file)
                move_into_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise MachineError(
            f"{folder.parent}: the converted model cannot be written ({first_line(error)}); free some disk space, or "
            "set extract.cache to another disk."
        ) from error


def _read_model(file: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return the model of a GGUF file, every tensor in its smallest exact dtype, and its tokenizer."""
    metadata = _read_header(file)
    try:
        with TemporaryDirectory(prefix="gguf-") as name:  # with a link to the file and nothing else
            link = Path(name) / "model.gguf"
            link.symlink_to(file.absolute())
            model, tokenizer = _load(file, link)
    except PermafrostError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has fields
        raise BackboneError(
            f"{file}: transformers {package_version('transformers')} cannot read this GGUF file, of the architecture "
            f"{metadata['general.architecture']!r} ({first_line(error)}); set plan.backbone to a folder of the "
            "same model in safetensors, or download the file again if it is damaged."
        ) from error
    if metadata.get("tokenizer.ggml.pre") in SINGLE_DIGITS:
        rules = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)
    return model, tokenizer


def _read_header(file: Path) -> Mapping[str, Any]:
    """Return the metadata of a GGUF file; refuse a file that states more blocks than it has tensors."""
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
        from transformers.integrations.gguf import read_gguf_metadata
    except ImportError as error:
        raise BackboneError(
            f"{file}: reading a GGUF file needs transformers 5.23 or later and the packages gguf and accelerate "
            f"({first_line(error)}); install them: pip install 'permafrost[gguf]'."
        ) from error
    try:
        metadata: dict[str, Any] = {}
        metadata, tensors = read_gguf_metadata(str(file))
        blocks = max((value for key, value in metadata.items() if key.endswith(".block_count")), default=0)
        if blocks > len(tensors):
            raise ValueError(f"it states {blocks:,} blocks and lists {len(tensors):,} tensors")
    except Exception as error:  # as above
        raise BackboneError(f"{file}: its header cannot be read ({first_line(error)}); download it again.") from error
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise BackboneError(
            f"{file} is one of {parts} parts of a model (split.count); merge them into one file first: "
            "llama-gguf-split --merge."
        )
    return metadata


def _load(file: Path, link: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return the model and the tokenizer that transformers makes of a GGUF file, which is read through a link."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    options = {"gguf_file": str(link), "trust_remote_code": False, "local_files_only": True}
    config = transformers.AutoConfig.from_pretrained(link.parent, **options)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    stated = sum(weight.numel() for weight in model.parameters())
    if stated > WEIGHTS_PER_BYTE * file.stat().st_size:
        raise BackboneError(f"{file} states {stated:,} weights, more than a file of its size holds; download it again.")
    tokenizer = transformers.AutoTokenizer.from_pretrained(link.parent, **options)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
        loaded, loading = transformers.AutoModel.from_pretrained(
            link.parent, **options, config=config, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(loading["missing_keys"]):
        raise BackboneError(f"{file} lacks {len(missing)} weights, the first is {missing[0]}.")
    weights = {key: smallest_exact(weight) for key, weight in loaded.state_dict().items()}
    model.load_state_dict(weights, assign=True)  # the loaded model itself refuses to be saved
    return model, tokenizer


def smallest_exact(weight: torch.Tensor) -> torch.Tensor:
    """Return a float32 tensor in bfloat16 or float16 if that holds all of its values, else as it is."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(weight.to(dtype).float(), weight):
            return weight.to(dtype)
    return weight
