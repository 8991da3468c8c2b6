"""Structure proof: masks, positions, padding, prefixes, pooling and layers are right, shown in float64 before a run.

The proof runs on a small twin of the backbone's configuration, and its result is remembered for the same configuration
and the same code; and on a float64 copy of the backbone too, if that costs a small share of the run.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass, replace
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data import ragged
from permafrost.data.digests import digest_of, digest_of_stream
from permafrost.data.errors import MachineError, first_line
from permafrost.data.machine import package_version
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import NO_WINDOWS
from permafrost.data.remote.mirror import local_cache
from permafrost.extract.architecture import architecture, configuration, discover, lookup, small_config, small_model
from permafrost.extract.architecture.configuration import canonical_json
from permafrost.extract.architecture.small_config import VOCABULARY, WINDOW, special_ids
from permafrost.extract.attention import kernel, varlen
from permafrost.extract.attention.kernel import has_kernel
from permafrost.extract.backbones import load, locate
from permafrost.extract.backbones.load import Backbone, free_memory
from permafrost.extract.capture import forward, packing, pooling, roads
from permafrost.extract.capture.roads import Road, candidate_roads
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.proofs import reference, structure, twin
from permafrost.extract.proofs.structure import evenly_spaced, structure_deviation
from permafrost.extract.proofs.twin import make_copy, make_twin
from permafrost.extract.tokenization import text_windows, token_batch
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

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Address of an object in memory, as a default value shows it."""

_SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
_DECODER = {**_SMALL, "num_key_value_heads": 2}
_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW, "use_sliding_window": True}

CONTROLS: dict[Road, dict[str, Any]] = {
    Road.TREE: {"model_type": "gpt2", **_SMALL},
    Road.WINDOWED_TREE: {"model_type": "mistral", "sliding_window": WINDOW, **_DECODER},
    Road.TYPED_TREE: {"model_type": "qwen2", **_LAYERS, **_DECODER},
    Road.UNMASKED: {"model_type": "llama", **_DECODER},
    Road.ROWS: {"model_type": "bert", **_SMALL},
    Road.PADDED: {"model_type": "bert", **_SMALL},
    Road.EQUAL: {"model_type": "bert", **_SMALL},
}
"""Configurations of models for which a road is exact; that of a tree has absolute positions, which a shift changes."""


class SelfCheckError(MachineError):
    """Latents that differ from those of each text alone."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f'self-check: {reason}. These latents cannot be trusted and are not kept. Try extract.device = "cpu" or '
            'plan.compute_dtype = "float32"; if it stays, report this message: torch '
            f"{torch.__version__}, transformers {package_version('transformers')}."
        )


def on_fastest_road(runner: BackboneRunner) -> BackboneRunner:
    """Return the runner on the fastest road by which texts together have the latents of each alone.

    That is proven on a small twin, unless it was before.

    Raises:
        SelfCheckError: there is none; or a road fails on the model that stands for those that allow it, so that
            something is wrong with the code and not with the backbone.
    """
    rows = has_kernel(runner.backbone.device, runner.backbone.dtype) and not runner.backbone.spread
    subject = _proof_key(runner)

    def choose() -> str:
        failures = []
        for road in candidate_roads(runner.source.architecture, rows):
            try:
                _prove_on_twin(replace(runner, road=road), subject)
            except SelfCheckError as error:
                failures.append(f"{road}: {error.reason}")
                _prove_control(replace(runner, road=road))
            else:
                return road.value
        raise SelfCheckError(f"'{runner.source.name}' allows no way to run texts together ({'; '.join(failures)})")

    key = f"road {f'with {Road.ROWS} ' * rows}{subject}"
    return replace(runner, road=Road(Memo(local_cache(runner.spec.cache) / MEMO).get(key, choose)))


def deviations_by_road(runner: BackboneRunner) -> dict[Road, float | str]:
    """Return, for each road, the deviation of texts together from texts alone on a small twin, or why it cannot be run.

    Deviations are shares of the spread of a dimension over texts; a road whose deviation is at most
    :data:`STRUCTURE_TOLERANCE` is exact.
    """
    small, found = make_twin(runner.backbone), dict[Road, float | str]()
    for road in candidate_roads(runner.source.architecture):
        try:
            value = structure_deviation(replace(runner, road=road), small, _ids_of(small)).value
            found[road] = value if np.isfinite(value) else "it gives numbers that are not finite"
        except Exception as error:  # a mask or positions that a model does not take
            found[road] = first_line(error)
    return found


def prove_structure(runner: BackboneRunner, tokens: TokenBatch, run_tokens: int) -> None:
    """Show that texts run together have the latents of each alone.

    Args:
        run_tokens: number of tokens that are to run.

    Raises:
        SelfCheckError: they have not.
    """
    backbone = runner.backbone
    _prove_on_twin(runner, _proof_key(runner))
    cost = COPY_TOKENS.get((backbone.device.type, runner.identity.compute_dtype), COPY_TOKENS_ELSEWHERE)
    copy_bytes = backbone.parameter_count * (8 + backbone.dtype.itemsize)
    affordable = cost <= COPY_SHARE * run_tokens and copy_bytes <= free_memory(backbone.device) / 2
    if affordable and not backbone.spread:
        ids = np.unique(tokens.ids[:KNOWN_TOKENS])
        _prove_on(runner, make_copy(backbone), ids[evenly_spaced(np.arange(len(ids)), VOCABULARY)])


def _prove_on_twin(runner: BackboneRunner, subject: str) -> None:
    """Show it on a small twin, unless it was shown before of the same ``subject``."""

    def prove() -> str:
        small = make_twin(runner.backbone)
        return f"{_prove_on(runner, small, _ids_of(small)):.1e}"

    what = f"structure{' in windows' * (runner.plan.overlap != NO_WINDOWS)}"
    Memo(local_cache(runner.spec.cache) / MEMO).get(f"{what} {runner.road} {subject}", prove)


def _prove_control(runner: BackboneRunner) -> None:
    """Show that a road is exact for a model that is known to allow it; else the code is wrong, not the backbone."""
    control = make_twin(runner.backbone, CONTROLS[runner.road])
    try:
        _prove_on(
            replace(runner, source=control.source, plan=replace(runner.plan, final_norm=False)),
            control,
            _ids_of(control),
        )
    except SelfCheckError as error:
        raise SelfCheckError(f"{error.reason}, also for a model that is known to allow it") from error


def _ids_of(model: Backbone) -> NDArray[np.int32]:
    return np.array(sorted({*range(VOCABULARY)} - special_ids(model.source.config)), np.int32)


def _proof_key(runner: BackboneRunner) -> str:
    """Return a key of everything that a proof on a twin depends on, the code included."""
    source = runner.source
    subject = [canonical_json(source.config), source.architecture, runner.plan.final_norm, runner.backbone.device.type]
    under_proof = (
        ragged,
        architecture,
        lookup,
        locate,
        configuration,
        load,
        forward,
        packing,
        pooling,
        token_batch,
        text_windows,
        discover,
        roads,
        kernel,
        varlen,
    )
    of_proof = (small_config, small_model, reference, structure, twin, sys.modules[__name__])
    modules = [*under_proof, *of_proof, sys.modules[BackboneRunner.__module__]]
    versions = [torch.__version__, package_version("transformers"), _code_digest(modules)]
    return digest_of(repr((subject, versions)).encode())


def _prove_on(runner: BackboneRunner, model: Backbone, ids: NDArray[np.int32]) -> float:
    try:
        largest = structure_deviation(runner, model, ids)
    except (torch.OutOfMemoryError, MachineError):  # memory is short
        raise
    except Exception as error:  # with wrong masks or positions, the model may not run at all
        raise SelfCheckError(f"texts together cannot be run in float64 ({first_line(error)})") from error
    if not largest.value <= STRUCTURE_TOLERANCE:
        raise SelfCheckError(
            f"in float64 texts together differ from texts alone by {largest.value:.2g} of the spread of a dimension "
            f"(view {largest.view}, layer {largest.layer}); {STRUCTURE_TOLERANCE:g} is allowed"
        )
    return largest.value


def _code_digest(modules: Iterable[ModuleType]) -> str:
    """Return a hex digest of every function and constant of modules, as they are loaded; the same in every process."""
    return digest_of_stream(
        ADDRESS.sub("", f"{name} {description}\n").encode()
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
