"""Vectors of texts that a trained probe makes: its projection of one text, so scaled that cosines are scores.

A probe whose score is a weighted mean of the cosines of layers, with weights that are not negative, or the cosine of
mixed codes, has such vectors; several members, which predict by their mean, have theirs side by side. Of other
probes the same projection is given, and :func:`describe_vectors` says what it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from permafrost.data.spec import SpecError
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.sentence_probes import FeatureProbe, ScoreProbe
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives.fitted import LoadedRun

SMALLEST_CODE = 1e-12
"""Length below which a code counts as zeros; ``torch.nn.functional.normalize`` leaves such codes shorter than 1."""


class VectorMeaning(NamedTuple):
    """What the vectors of a probe are."""

    is_score: bool
    """Whether the cosine of the vectors of two texts is the raw score of the pair."""

    text: str
    """The same in a line for the user."""


def describe_vectors(run: LoadedRun) -> VectorMeaning:
    """Return what the vectors of a run are.

    Raises:
        SpecError: the run predicts from single tokens, and makes no vector of a text.
    """
    probe = run.probe
    if isinstance(probe, ScoreProbe):
        if probe.over_codes or _layer_weights(probe) is not None:
            return VectorMeaning(True, "the cosine of two vectors is the raw score of the run")
        return VectorMeaning(
            False,
            f"the cosine of two vectors is not the score of the run, because the mixer '{probe.spec.mixer}' is a "
            "network over the cosines of the layers: it is their mean",
        )
    if isinstance(probe, FeatureProbe):
        return VectorMeaning(
            False,
            f"the cosine of two vectors is no prediction of the run, whose head predicts {run.kind}: they are what the "
            "head reads of a text, the mixed codes of the layers",
        )
    raise SpecError(
        f"{run.path}: this run predicts {run.kind} from single tokens and makes no vector of a text; embed with its "
        f"backbone: permafrost embed {run.recipe.plan.backbone} --file FILE --out FILE."
    )


def text_vectors(probe: Probe, inputs: ProbeInputs, texts: int) -> Tensor:
    """Return the vectors of texts, ``[text, width]``; of a probe of scores they have length 1.

    Args:
        inputs: of the probe, for that many texts.
    """
    members = len(probe.layout.members)
    index = torch.arange(texts)[None, :, None].numpy()
    parts = []
    for member in range(members):
        single = unstack(probe, member).eval()
        reads = shared_reads(single.layout, device=single.device)
        (states,) = inputs.text_states(reads, index)
        parts.append(_member_vectors(single, single.encode(states, reads)))
    vectors = torch.cat(parts, 1)
    return vectors / members**0.5 if isinstance(probe, ScoreProbe) else vectors


def _member_vectors(probe: Probe, codes: Tensor) -> Tensor:
    """Return the vectors of a probe with a single member from its codes ``[layer, row, code]``."""
    if isinstance(probe, ScoreProbe) and not probe.over_codes:
        weights = _layer_weights(probe)
        weights = codes.new_full((1, len(codes)), 1 / len(codes)) if weights is None else weights
        parts = [
            weight.sqrt() * _unit(code[:, :width])
            for weight, code, width in zip(weights[0], codes, probe.layout.codes, strict=True)
            if weight > 0
        ]
        return torch.cat(parts, 1)
    mixer = probe.mixer
    assert isinstance(mixer, torch.nn.Module)
    mixed: Tensor = mixer(probe.layout.by_member(codes))[0]
    return _unit(mixed) if isinstance(probe, ScoreProbe) else mixed


def _unit(codes: Tensor) -> Tensor:
    """Return codes ``[text, width]`` scaled to length 1.

    Zeros become the first axis, so that they have cosine 1 with each other, as :func:`cosines` defines it: a layer that
    is the same for every text, such as ``cls`` of layer 0, has codes of zeros.
    """
    is_zero = codes.norm(dim=-1, keepdim=True) < SMALLEST_CODE
    first_axis = functional.one_hot(torch.zeros_like(codes[:, 0], dtype=torch.long), codes.shape[-1]).to(codes)
    return torch.where(is_zero, first_axis, functional.normalize(codes, dim=-1))


def _layer_weights(probe: ScoreProbe) -> Tensor | None:
    """Return the weights ``[member, layer]`` by which a score is a mean of cosines; None if it is no such mean."""
    weights = getattr(probe.mixer, "weights", None)
    values: Tensor | None = weights().detach() if weights else None
    return values if values is not None and bool((values >= 0).all()) else None
