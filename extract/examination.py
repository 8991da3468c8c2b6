"""Examination of a backbone: its architecture, by which roads texts may share a forward pass, its peaks and speed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from permafrost.data.memo import Memo
from permafrost.data.plan.plan import TOKENS, CapturePlan, ExtractSpec
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.encoding import vector_bytes
from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.locate import Source
from permafrost.extract.backbones.stored_dtype import PILOT_TEXTS
from permafrost.extract.backbones.tokenizer import special_tokens_around
from permafrost.extract.proofs.proof import STRUCTURE_TOLERANCE, deviations_by_road
from permafrost.extract.resolved_plan import resolve_plan
from permafrost.extract.tokenization.prompt import chat_template

PASSES = 3
"""Number of times that the texts are run for the speed; the fastest counts."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Facts about a backbone on this machine."""

    name: str
    kind: str
    """``model_type`` of its configuration."""

    folder: str
    """Folder of the weights; empty if they are drawn."""

    architecture: Architecture
    parameters: int
    longest: int
    """Longest text that it reads, in tokens."""

    special_tokens: str
    """Special tokens that the tokenizer puts around a text, which "..." stands for; empty if there are none."""

    chat_template: str
    """What ``plan.template = "chat"`` stands for; empty if the tokenizer has no chat template, or none for a text."""

    device: str
    compute_dtype: str
    stored_dtype: str
    road: str
    """The road that is taken."""

    roads: Mapping[str, float | str]
    """Road -> deviation of texts together from texts alone, as a share of the spread; or why it cannot be run."""

    peaks: Sequence[float]
    """``[layer]``, largest absolute value over the tokens of the texts that were run."""

    texts_per_second: float
    tokens_per_second: float
    bytes_per_text: int
    """Bytes of one view of all layers in the store."""

    @property
    def exact(self) -> list[str]:
        """Roads by which texts together have the latents of each alone."""
        return [road for road, value in self.roads.items() if isinstance(value, float) and value <= STRUCTURE_TOLERANCE]


def examine(name: str, spec: ExtractSpec, adapter: str = "") -> Examination:
    """Examine a backbone, named as in a plan, as is its adapter.

    Raises:
        BackboneError: it cannot be found, read or loaded.
        SelfCheckError: there is no way to run texts together that gives the latents of each alone.
    """
    resolved = resolve_plan(CapturePlan(backbone=name, adapter=adapter), spec)
    runner, source = resolved.runner(), resolved.source
    texts = [text for text in PILOT_TEXTS if runner.backbone.tokenizer.encode(text).ids]
    tokens, packs = runner.tokenize_and_pack(texts)
    everything = {TOKENS: tuple(range(source.layers))}
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        captured = [runner.forward(pack, tokens, everything)[TOKENS] for pack in packs]
        seconds.append(time.perf_counter() - started)
    return Examination(
        name=name,
        kind=str(source.config["model_type"]),
        folder=str(source.folder or ""),
        architecture=source.architecture,
        parameters=runner.backbone.parameter_count,
        longest=source.longest,
        special_tokens=special_tokens_around(runner.backbone.tokenizer),
        chat_template=_chat_template(source, spec),
        device=runner.backbone.device.type,
        compute_dtype=resolved.identity.compute_dtype,
        stored_dtype=resolved.identity.stored_dtype,
        road=runner.road.value,
        roads={road.value: value for road, value in deviations_by_road(runner).items()},
        peaks=np.max([np.abs(states).max((1, 2)) for states in captured], axis=0).tolist(),
        texts_per_second=len(texts) / min(seconds),
        tokens_per_second=float(tokens.lengths.sum()) / min(seconds),
        bytes_per_text=source.layers * vector_bytes(resolved.identity.stored_dtype, source.width),
    )


def _chat_template(source: Source, spec: ExtractSpec) -> str:
    try:
        return chat_template(source.tokenizer_files, "", Memo(local_cache(spec.cache) / MEMO))
    except BackboneError:
        return ""
