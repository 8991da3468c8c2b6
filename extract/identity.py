"""What a capture plan means here: digests of weights and tokenizer, and the dtype that ``auto`` stands for.

A digest is memoised by path, size and time of change, so a warm start reads no weights.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from data.language_model import refuse_damage
from data.plan import CapturePlan, ExtractSpec, Identity
from data.spec import SpecError
from data.whole import write_whole
from extract.backbones import Source, find, meaning, tokenizer_files, weight_files
from extract.loading import untrained

MEMO = "digests.json"


def identify(source: Source, plan: CapturePlan, device: str, cache: Path) -> Identity:
    """The identity of the store that ``plan`` leads to on this machine."""
    memo = Memo(cache / MEMO)
    weights = _random_digest(source, plan.init_seed, memo) if source.folder is None else _file_digest(source, memo)
    files = [path.name.encode() + b"\0" + path.read_bytes() for path in tokenizer_files(source.tokenizer)]
    return Identity(
        weights=weights,
        tokenizer=_sha256_of(*files),
        template=plan.template,
        rewording=json.dumps(plan.rewording),
        max_tokens=plan.max_tokens,
        compute_dtype=compute_dtype(plan, device),
        stored_dtype=plan.stored_dtype,
        final_norm=plan.final_norm,
        stride=plan.overlap,
    )


def digests(plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
    """Digests of the weights and of the tokenizer of a plan's backbone, where none of its latents are stored."""
    found = identify(find(plan), plan, pick_device(spec.device), Path(spec.cache))
    return {"weights": found.weights, "tokenizer": found.tokenizer}


def pick_device(wanted: str) -> str:
    """``auto`` is the GPU where torch sees one; any other name must be a device of this machine.

    Raises:
        SpecError: torch knows no such device, or it is not here.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SpecError(f"extract.device = '{wanted}' is not to be had here; use auto or cpu. ({error})") from None
    return wanted


def compute_dtype(plan: CapturePlan, device: str) -> str:
    """What ``auto`` means here, by the hardware's flags and never by timing: it is part of the identity."""
    import torch

    if plan.compute_dtype != "auto":
        return plan.compute_dtype
    if device.startswith("cuda"):
        native = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        flags = torch.cpu.get_capabilities()
        native = device == "cpu" and bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
    return "bfloat16" if native else "float32"


class Memo:
    """Digests by key in a small JSON file. Losing it costs a read of the weights, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, compute: Callable[[], str]) -> str:
        """The digest under ``key``, computed where it is not there yet."""
        known = self._read()
        if key in known:
            return known[key]
        known = {**self._read(), key: compute()}
        write_whole(self.path, json.dumps(known, indent=1, sort_keys=True).encode())
        return known[key]

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


def _file_digest(source: Source, memo: Memo) -> str:
    assert source.folder is not None
    found = {path.name: _memoised(path, memo) for path in weight_files(source.folder)}
    refuse_damage(source.folder, found)
    digests = found.values()
    return _sha256_of(meaning(source.config).encode(), *map(str.encode, digests))


def _memoised(path: Path, memo: Memo) -> str:
    real = path.resolve()
    status = real.stat()
    return memo.get(f"{real} {status.st_size} {status.st_mtime_ns}", lambda: _sha256_file(real))


def _random_digest(source: Source, seed: int, memo: Memo) -> str:
    """Digest of the untrained weights themselves; what determines them is the key of the memo."""
    import torch
    import transformers

    versions = f"torch {torch.__version__} transformers {transformers.__version__}"
    key = f"untrained {_sha256_of(meaning(source.config).encode())} seed {seed} {versions}"

    def digest() -> str:
        running = hashlib.sha256()
        for name, weight in untrained(source, seed).state_dict().items():
            running.update(name.encode() + weight.contiguous().numpy().tobytes())
        return running.hexdigest()

    return _sha256_of(meaning(source.config).encode(), memo.get(key, digest).encode())


def _sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(*parts: bytes) -> str:
    """Hex digest of several byte strings, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
