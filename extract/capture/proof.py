"""Structure proof: masks, positions, padding, prefixes, pooling and layers are right, shown in float64 before a run.

The proof runs on a float64 copy of the backbone if that costs a small share of the run. Otherwise it runs on a small
twin of the backbone's configuration, and the result is remembered for the same configuration and the same code.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from permafrost.data import ragged
from permafrost.data.digests import digest_of, digest_of_stream
from permafrost.data.errors import MachineError, first_line
from permafrost.data.machine import package_version
from permafrost.extract.backbones import configuration, load, locate
from permafrost.extract.backbones.configuration import canonical_json
from permafrost.extract.backbones.file_digest import Memo
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.capture import forward, packing, pooling, reference, structure, twin
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.capture.structure import evenly_spaced, structure_deviation
from permafrost.extract.capture.twin import VOCABULARY, make_copy, make_twin, special_ids
from permafrost.extract.tokenization import token_batch
from permafrost.extract.tokenization.token_batch import TokenBatch

STRUCTURE_TOLERANCE = 1e-5
"""Largest deviation allowed in float64, as a share of the spread of each dimension over texts."""

MEMO = "self-checks.json"
"""File of the remembered proofs, in the cache."""

KNOWN_TOKENS = 1_000_000
"""Tokens of the run that ids for the proof on a copy are taken from."""

COPY_SHARE = 0.02
"""Largest cost of a proof on a copy of the backbone, as a share of the run's cost."""

COPY_TOKENS = {("cpu", "float32"): 3_000, ("cpu", "bfloat16"): 12_000}
"""(device, precision) -> cost of a proof on a copy, in tokens of the run: float64 and single texts are slow."""

COPY_TOKENS_ELSEWHERE = 24_000


class SelfCheckError(MachineError):
    """Latents that differ from those of each text alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f'self-check: {reason}. These latents cannot be trusted and are not kept. Try extract.device = "cpu" or '
            'plan.compute_dtype = "float32"; if it stays, report this message: torch '
            f"{torch.__version__}, transformers {package_version('transformers')}."
        )


def prove_structure(runner: BackboneRunner, tokens: TokenBatch, run_tokens: int) -> None:
    """Show that texts run together have the latents of each alone.

    Args:
        run_tokens: number of tokens that are to run.

    Raises:
        SelfCheckError: they have not.
    """
    backbone = runner.backbone
    cost = COPY_TOKENS.get((backbone.device.type, runner.identity.compute_dtype), COPY_TOKENS_ELSEWHERE)
    copy_bytes = backbone.parameter_count * (8 + backbone.dtype.itemsize)
    if cost <= COPY_SHARE * run_tokens and copy_bytes <= _free_memory(backbone.device) / 2:
        ids = np.unique(tokens.ids[:KNOWN_TOKENS])
        _prove_on(runner, make_copy(backbone), ids[evenly_spaced(np.arange(len(ids)), VOCABULARY)])
        return

    def prove_on_twin() -> str:
        small = make_twin(backbone)
        ids = np.array(sorted({*range(VOCABULARY)} - special_ids(small.source)), np.int32)
        return f"{_prove_on(runner, small, ids):.1e}"

    Memo(Path(runner.spec.cache) / MEMO).get(_proof_key(runner), prove_on_twin)


def _proof_key(runner: BackboneRunner) -> str:
    """Return a key of everything that a proof on a twin depends on, the code included."""
    source = runner.source
    subject = [canonical_json(source.config), source.family, runner.plan.final_norm, runner.backbone.device.type]
    under_proof = (ragged, locate, configuration, load, forward, packing, pooling, token_batch)
    modules = [*under_proof, sys.modules[BackboneRunner.__module__], reference, structure, twin, sys.modules[__name__]]
    versions = [torch.__version__, package_version("transformers"), _code_digest(modules)]
    return f"structure {digest_of(repr((subject, versions)).encode())}"


def _prove_on(runner: BackboneRunner, model: Backbone, ids: NDArray[np.int32]) -> float:
    try:
        largest = structure_deviation(runner, model, ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # with wrong masks or positions, the model may not run at all
        raise SelfCheckError(f"texts together cannot be run in float64 ({first_line(error)})") from error
    if not largest.value <= STRUCTURE_TOLERANCE:
        raise SelfCheckError(
            f"in float64 texts together differ from texts alone by {largest.value:.2g} of the spread of a dimension "
            f"(view {largest.view}, layer {largest.layer}); {STRUCTURE_TOLERANCE:g} is allowed"
        )
    return largest.value


def _free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still allocate."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current")]  # of a container
    try:
        most, used = (int(path.read_text()) for path in limits)
    except (OSError, ValueError):  # there is none, or no limit
        return int(psutil.virtual_memory().available)
    return min(most - used, int(psutil.virtual_memory().available))


def _code_digest(modules: Iterable[ModuleType]) -> str:
    """Return a hex digest of every function and constant of modules, as they are loaded."""
    return digest_of_stream(
        f"{name} {description}\n".encode()
        for module in modules
        for name, value in sorted(vars(module).items())
        if not name.startswith("__")
        for description in _describe(value, module.__name__)
    )


def _describe(value: Any, module: str) -> Iterator[str]:
    """Yield the code and constants of a definition; classes of other modules are skipped."""
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, FunctionType):
        yield f"{value.__defaults__} {value.__kwdefaults__}"
        yield from _instructions(value.__code__)
    elif isinstance(value, type):
        for member in vars(value).values() if value.__module__ == module else ():
            yield from _describe(getattr(member, "__func__", getattr(member, "fget", member)), module)
    elif isinstance(value, dict):
        for key, member in value.items():
            yield f"{key}"
            yield from _describe(member, module)
    elif isinstance(value, str | int | float | tuple) or is_dataclass(value):
        yield repr(value)


def _instructions(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
