"""Proof of a cut: blocks above a layer, entered by its states, have the states of the whole model.

Masks, positions and what blocks hand to each other are proven in float64, for every cut of a small twin of the
backbone's configuration; the cut itself, with the backbone's weights, in float32 and in bfloat16. Both results are
remembered.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.data.memo import Memo
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.small_config import VOCABULARY, special_ids
from permafrost.extract.architecture.small_model import resized, small_model, small_values
from permafrost.extract.attention.varlen import rows_of
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.finetuning.cut import Batching, Cut, CutRoad, proof_key
from permafrost.extract.finetuning.cut_model import CutModel
from permafrost.extract.proofs.proof import STRUCTURE_TOLERANCE
from permafrost.extract.proofs.reference import reference_states
from permafrost.extract.proofs.self_check import PRECISION_TOLERANCE, TOLERATED_SHARE
from permafrost.extract.proofs.structure import draw_texts, relative_to_spread
from permafrost.extract.proofs.twin import Float64

CHECKED_TEXTS = 2
"""Texts that the backbone itself is run on."""


class ProofTexts:
    """Texts, back to back, and the states that each has in the whole model, alone."""

    def __init__(self, backbone: Backbone, final_norm: bool, texts: Sequence[Sequence[int]]) -> None:
        """Run each text through the whole model; of two segments if the model tells them apart."""
        self.lengths = np.array([len(text) for text in texts])
        self.ids = torch.tensor([token for text in texts for token in text])
        segments = [[int(place >= len(text) // 2) for place in range(len(text))] for text in texts]
        self.token_type_ids = (
            torch.tensor([kind for text in segments for kind in text]) if backbone.source.segments else None
        )
        states = [
            reference_states(backbone, final_norm, text, kinds if backbone.source.segments else None)
            for text, kinds in zip(texts, segments, strict=True)
        ]
        self.states = torch.cat(states, 1)
        """``[layer, token, width]``."""

    def states_above(self, model: CutModel) -> Tensor:
        """Return ``[layer, token, width]`` of the layers above a cut, by texts together."""
        inputs = self.ids if model.cut == "none" else self.states[model.cut]
        segments = self.token_type_ids if model.cut == "none" else None
        rows = rows_of(self.lengths, torch.device("cpu"), model.road.batching is Batching.EQUAL)
        with torch.no_grad():
            outputs = [
                model.run_row(inputs[row.tokens], row, None if segments is None else segments[row.tokens])
                for row in rows
            ]
        return torch.cat(outputs, 1)[:, torch.cat([row.tokens for row in rows]).argsort()]


def candidate_roads(source: Source, cut: Cut) -> list[CutRoad]:
    """Return the roads that may be exact for a model, the fastest first."""
    rows = [Batching.ROWS] if source.architecture.attention == "sdpa" else []  # others know no registered attention
    firsts = (False,) if cut in (0, "none") else (False, True)
    return [
        CutRoad(batching=batching, runs_first=first)
        for first in firsts
        for batching in (*rows, Batching.PADDED, Batching.EQUAL)
    ]


def choose_road(source: Source, cut: Cut, final_norm: bool) -> CutRoad:
    """Return the first road that is exact for every such cut of a small twin, and for all of its blocks.

    Raises:
        SpecError: there is none.
    """
    small = _twin(source)
    cuts: Sequence[Cut] = [cut] if cut in (0, "none") else range(small.source.layers - 1)
    ids = sorted({*range(VOCABULARY)} - special_ids(small.source.config))
    longest = small.source.longest
    failures: list[tuple[float, str]] = []
    with Float64():
        texts = ProofTexts(small, final_norm, [[ids[n % len(ids)] for n in text[:longest]] for text in draw_texts()])
        for road in candidate_roads(source, cut):
            try:
                deviations = [_deviation(small, texts, each, final_norm, road) for each in cuts]
            except SpecError:
                raise
            except Exception as error:  # masks, positions or returned values that a model does not take
                failures.append((np.inf, f"they cannot be run so ({first_line(error)})"))
                continue
            largest, layer = max(deviations)
            if largest <= STRUCTURE_TOLERANCE:
                return road
            size = f"{largest:.2g} of the spread of a dimension of a small model"
            failures.append((largest, f"{_difference(size, layer)}; {STRUCTURE_TOLERANCE:g} is allowed"))
    raise _refusal(source, cut, min(failures)[1])


def _difference(size: str, layer: int) -> str:
    return f"their states differ from those of the whole model by {size}, at layer {layer}"


def _refusal(source: Source, cut: Cut, reason: str) -> SpecError:
    kind, others = source.config["model_type"], '"frozen"' if cut == "none" else '"none" or "frozen"'
    return SpecError(
        f"finetune.cut = {cut}: the blocks of '{source.name}', of the kind '{kind}', cannot be trained from there: "
        f"{reason}. Set finetune.cut = {others}."
    )


def _twin(source: Source) -> Backbone:
    values = small_values(source.config)
    architecture = resized(source.architecture, source.config, values)
    tower = small_model(values).get_submodule(architecture.tower).double()
    small = replace(source, folder=None, config=values, architecture=architecture)
    tokenizer = load_tokenizer(source.tokenizer_files)
    return Backbone(source=small, model=tower, tokenizer=tokenizer, dtype=torch.float64, device=torch.device("cpu"))


def _deviation(backbone: Backbone, texts: ProofTexts, cut: Cut, final_norm: bool, road: CutRoad) -> tuple[float, int]:
    """Return the largest deviation of a cut copy from the whole model, and its layer; infinite if not finite."""
    copied = replace(backbone, model=copy.deepcopy(backbone.model))
    layers = tuple(range(0 if cut == "none" else cut, backbone.source.layers))[1:]
    model = CutModel(copied, cut, layers, final_norm, road)
    model.set_dropout(0.1, 0.1)  # it must run in training mode too
    model.set_attention()
    found = texts.states_above(model)
    deviations = [
        relative_to_spread(states.numpy(), texts.states[layer].numpy())
        for layer, states in zip(layers, found, strict=True)
    ]
    finite = [value if np.isfinite(value) else np.inf for value in deviations]
    return max(finite), layers[int(np.argmax(finite))]


class CutCheck:
    """Check that a cut backbone has the states of the whole one, in float32 and as it is trained in bfloat16."""

    def __init__(self, backbone: Backbone, cut: Cut, layers: tuple[int, ...], final_norm: bool, cache: str) -> None:
        """Run the whole backbone on a few texts, before it is cut; nothing if these layers were checked before."""
        source = backbone.source
        stamps = sorted((path.name, repr(stamp)) for path, stamp in source.stamps.items())
        self._memo = Memo(local_cache(cache) / MEMO)
        self._key = f"cut weights {digest_of(repr((cut, layers, stamps, proof_key(source, final_norm))).encode())}"
        self._texts: dict[str, ProofTexts] = {}
        if self._memo.read(self._key) is not None:
            return
        vocabulary = int(source.config.get("vocab_size") or VOCABULARY)
        ids = [token for token in range(min(vocabulary, 50_000)) if token not in special_ids(source.config)]
        drawn = sorted(draw_texts(), key=len)[-CHECKED_TEXTS:]
        texts = [[ids[n % len(ids)] for n in text[: source.longest]] for text in drawn]
        for dtype in PRECISION_TOLERANCE:
            lowered = dtype == "bfloat16"
            refusals = (RuntimeError,) if lowered else ()  # of models that know no bfloat16, such as DeBERTa
            with suppress(*refusals), torch.autocast("cpu", torch.bfloat16, enabled=lowered):
                self._texts[dtype] = ProofTexts(backbone, final_norm, texts)

    def compare(self, model: CutModel) -> None:
        """Compare the states above the cut.

        Raises:
            SpecError: they differ.
        """
        for dtype, texts in self._texts.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                found = texts.states_above(model).float()
            expected = texts.states[list(model.layers)].float()
            scale = expected.abs().amax(-1).clamp(min=1)
            apart = ((found - expected).abs().amax(-1) / scale).nan_to_num(torch.inf)
            limit, by_layer = PRECISION_TOLERANCE[dtype], apart.quantile(TOLERATED_SHARE[dtype], 1)
            if not float(by_layer.max()) <= limit:
                size = f"{float(by_layer.max()):.2g} of the largest value"
                reason = _difference(size, model.layers[int(by_layer.argmax())])
                raise _refusal(model.source, model.cut, f"in {dtype} {reason}; {limit:g} is allowed")
        if self._texts:
            self._memo.write(self._key, "equal")
