"""Structure proof: masks, positions, padding, prefixes, pooling and layers are right, shown in float64 before a run.

The proof runs on a float64 copy of the backbone if that costs a small share of the run. Otherwise it runs on a small
twin of the backbone's configuration, and the result is remembered for the same configuration and the same code.
"""

import sys
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from permafrost.data import ragged
from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.data.machine import package_version
from permafrost.extract.backbones import configuration, load, locate
from permafrost.extract.backbones.configuration import canonical_json
from permafrost.extract.backbones.file_digest import Memo
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.capture import forward, packing, pooling, reference, structure, twin
from permafrost.extract.capture.code_digest import code_digest
from permafrost.extract.capture.errors import SelfCheckError
from permafrost.extract.capture.structure import Deviation, Runner, evenly_spaced, structure_deviation
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


def prove_structure(runner: Runner, tokens: TokenBatch, run_tokens: int) -> None:
    """Show that texts run together have the latents of each alone.

    Args:
        run_tokens: number of tokens that are to run.

    Raises:
        SelfCheckError: they have not.
    """
    if _copy_is_cheap(runner.backbone, runner.identity.compute_dtype, run_tokens):
        ids = np.unique(tokens.ids[:KNOWN_TOKENS])
        _prove_on(runner, make_copy(runner.backbone), ids[evenly_spaced(np.arange(len(ids)), VOCABULARY)])
    else:
        memo = Memo(Path(runner.spec.cache) / MEMO)
        largest = memo.get(_proof_key(runner), lambda: f"{_prove_on_twin(runner):.1e}")
        _check_deviation(Deviation(float(largest)))


def _proof_key(runner: Runner) -> str:
    """Return a key of everything that a proof on a twin depends on, the code included."""
    source = runner.source
    subject = [canonical_json(source.config), source.family, runner.plan.final_norm, runner.backbone.device.type]
    code_under_proof = (
        ragged,
        locate,
        configuration,
        load,
        forward,
        packing,
        pooling,
        token_batch,
        sys.modules[type(runner).__module__],
    )
    code_of_proof = (reference, structure, twin, sys.modules[__name__])
    versions = [torch.__version__, package_version("transformers"), code_digest(*code_under_proof, *code_of_proof)]
    return f"structure {digest_of(repr((subject, versions)).encode())}"


def _prove_on_twin(runner: Runner) -> float:
    small = make_twin(runner.backbone)
    ids = np.array(sorted({*range(VOCABULARY)} - special_ids(small.source)), np.int32)
    return _prove_on(runner, small, ids)


def _prove_on(runner: Runner, model: Backbone, ids: NDArray[np.int32]) -> float:
    try:
        largest = structure_deviation(runner, model, ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # with wrong masks or positions, the model may not run at all
        raise SelfCheckError(f"texts together cannot be run in float64 ({first_line(error)})") from error
    _check_deviation(largest)
    return largest.value


def _check_deviation(largest: Deviation) -> None:
    if not largest.value <= STRUCTURE_TOLERANCE:
        raise SelfCheckError(
            f"in float64 texts together differ from texts alone by {largest.value:.2g} of the spread of a dimension "
            f"(view {largest.view}, layer {largest.layer}); {STRUCTURE_TOLERANCE:g} is allowed"
        )


def _copy_is_cheap(backbone: Backbone, dtype: str, run_tokens: int) -> bool:
    """Return whether a float64 copy fits into half of the free memory, and a proof on it costs little of the run."""
    cost = COPY_TOKENS.get((backbone.device.type, dtype), COPY_TOKENS_ELSEWHERE)
    copy_bytes = backbone.parameter_count * (8 + backbone.dtype.itemsize)
    return cost <= COPY_SHARE * run_tokens and copy_bytes <= _free_memory(backbone.device) / 2


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
