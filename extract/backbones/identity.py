"""Store identity of a capture plan on this machine: digests of weights and tokenizer, and the resolved dtypes.

Slow digests, the peak by which the stored dtype is decided, and what torch says of the processor are remembered in the
cache, so a run whose latents are all stored hashes no large file, loads no backbone, and imports neither transformers
nor, on a machine without a GPU, torch.
"""

import os
from collections.abc import Callable
from pathlib import Path

from permafrost.data.digests import digest_of, digest_of_parts, digest_of_stream
from permafrost.data.errors import first_line
from permafrost.data.language.record import check_model_files
from permafrost.data.machine import native_bfloat16, package_version, processor
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.identity import Identity
from permafrost.extract.architecture.configuration import BackboneError, canonical_json
from permafrost.extract.backbones.file_digest import MEMO, cached_digest
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.backbones.stored_dtype import choose_stored_dtype, pilot_key
from permafrost.extract.backbones.tokenizer import load_tokenizer, tokenizer_digest


def identify(
    source: Source, plan: CapturePlan, device: str, cache: Path, measure_peak: Callable[[], float]
) -> Identity:
    """Return the identity of the store that holds the latents of ``plan`` on this machine.

    Args:
        measure_peak: returns the largest magnitude in the latents of the pilot texts; called if ``plan.stored_dtype``
            is ``auto`` and the cache does not remember it.

    Raises:
        BackboneError: the weights cannot be read, or no tokenizer can be made of its files.
        FileChangedError: a weight file changed while it was read.
    """
    memo = Memo(cache / MEMO)
    weights, tokenizer = _digests(source, plan.init_seed, memo)
    computed, stored = compute_dtype(plan, device, memo), str(plan.stored_dtype)
    if stored == "auto":
        key = pilot_key(weights, tokenizer, computed, plan.final_norm)
        stored = choose_stored_dtype(float(memo.get(key, lambda: f"{measure_peak():.6g}")))
    return Identity.of(plan, weights=weights, tokenizer=tokenizer, compute_dtype=computed, stored_dtype=stored)


def backbone_digests(plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
    """Return the digests of a plan's backbone, ``weights`` and ``tokenizer``; no latents need to be stored."""
    source = find_backbone(plan, spec.cache)
    weights, tokenizer = _digests(source, plan.init_seed, Memo(local_cache(spec.cache) / MEMO))
    return {"weights": weights, "tokenizer": tokenizer}


def compute_dtype(plan: CapturePlan, device: str, memo: Memo | None = None) -> str:
    """Return the plan's compute dtype; ``auto`` is bfloat16 if the hardware's flags report native support.

    Never decided by timing, because the dtype is part of the identity.

    Args:
        memo: where it is remembered what torch says of the processor.
    """
    if plan.compute_dtype != "auto":
        return plan.compute_dtype
    if device != "cpu":
        return _native_dtype(device)
    key = f"compute dtype of torch {package_version('torch')} on {digest_of(processor().encode())}"
    return memo.get(key, _native_dtype) if memo else _native_dtype()


def _native_dtype(device: str = "cpu") -> str:
    return "bfloat16" if native_bfloat16(device) else "float32"


def _digests(source: Source, seed: int, memo: Memo) -> tuple[str, str]:
    """Return the digests of the weights and of the tokenizer."""
    weights = _random_digest(source, seed, memo) if source.folder is None else _weights_digest(source, memo)
    files = source.tokenizer_files
    versions = _versions("transformers", "tokenizers", "sentencepiece", "tiktoken")
    key = f"tokenizer {files.digest} {versions}"
    return weights, memo.get(key, lambda: tokenizer_digest(load_tokenizer(files)))


def _weights_digest(source: Source, memo: Memo) -> str:
    """Return the digest of the weight files and of the model configuration, and those of the adapter."""
    try:
        digests = {path: cached_digest(path, memo) for path in source.stamps}
        file_digests = {path.name: digests[path] for path in source.weights}
        if source.folder:
            check_model_files(source.folder, file_digests)
        parts = [canonical_json(source.config), *file_digests.values()]
        if source.adapter:
            parts += [canonical_json(source.adapter.config), digests[source.adapter.weights]]
    except OSError as error:
        raise BackboneError(f"{error.filename or source.folder} cannot be read ({first_line(error)}).") from error
    return digest_of_parts(map(str.encode, parts))


def _random_digest(source: Source, seed: int, memo: Memo) -> str:
    """Return the digest of the untrained weights, remembered by configuration, seed, versions and processor."""
    config = canonical_json(source.config).encode()
    environment = f"{_versions('torch', 'transformers')} {os.environ.get('ATEN_CPU_CAPABILITY')} {processor()}"

    def digest() -> str:
        from permafrost.extract.backbones.load import untrained_model

        weights = untrained_model(source, seed).state_dict().items()
        return digest_of_stream(name.encode() + weight.contiguous().numpy().tobytes() for name, weight in weights)

    key = f"untrained {digest_of_parts([config, environment.encode()])} seed {seed}"
    return digest_of_parts([config, memo.get(key, digest).encode()])


def _versions(*packages: str) -> str:
    return " ".join(f"{package} {package_version(package) or 'none'}" for package in packages)
