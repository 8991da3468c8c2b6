"""The pilot: its peak is the largest value that transformers itself gives, and no text stops it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.stored_dtype import PILOT_TEXTS, PILOT_TOKENS, choose_stored_dtype
from permafrost.extract.pilot import pilot_peak


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_peak_is_that_of_the_hidden_states_of_transformers(family, tiny):
    plan = CapturePlan(backbone=str(tiny(family)), max_tokens=32)
    source = find_backbone(plan)
    backbone = load_backbone(source, plan, "float32", "cpu")
    largest = {False: 0.0, True: 0.0}
    before_norm: list[float] = []
    if family == "llama":
        backbone.model.norm.register_forward_pre_hook(
            lambda _, inputs: before_norm.append(float(inputs[0].abs().max()))
        )
    for text in PILOT_TEXTS:
        ids = backbone.tokenizer.encode(text).ids
        room = min(PILOT_TOKENS, source.longest)
        ids = ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
        with torch.inference_mode():
            states = backbone.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        peaks = [float(layer.abs().max()) for layer in states]
        largest[True] = max(largest[True], *peaks)
        largest[False] = max(largest[False], *peaks[:-1], *(before_norm[-1:] or peaks[-1:]))
    assert pilot_peak(backbone, False) == pytest.approx(largest[False], rel=1e-4)
    if family == "llama":
        assert pilot_peak(backbone, True) == pytest.approx(largest[True], rel=1e-4)


def test_a_tokenizer_that_makes_no_token_of_any_text_leaves_the_wider_range(tiny):
    plan = CapturePlan(backbone=str(tiny("gpt2")), max_tokens=32)
    backbone = load_backbone(find_backbone(plan), plan, "float32", "cpu")
    mute = replace(backbone, tokenizer=Tokenizer(models.WordLevel({"xyz": 0}, unk_token="<none>")))
    mute.tokenizer.model = models.BPE()
    assert choose_stored_dtype(pilot_peak(mute, False)) == "bfloat16"


@pytest.mark.parametrize(
    ("peak", "dtype"), [(0.0, "float16"), (16_376.0, "float16"), (16_377.0, "bfloat16"), (np.nan, "bfloat16")]
)
def test_four_times_the_peak_must_fit_float16(peak, dtype):
    assert choose_stored_dtype(peak) == dtype


def test_the_texts_are_varied():
    assert len(set(PILOT_TEXTS)) == len(PILOT_TEXTS)
    lengths = sorted(len(text.split()) for text in PILOT_TEXTS)
    assert lengths[0] <= 1
    assert lengths[-1] > PILOT_TOKENS, "one is truncated for every tokenizer"
    assert all(text.strip() for text in PILOT_TEXTS)
