"""Fine-tuned blocks on one device: nothing is made elsewhere, and no forward pass waits for the device."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.finetuning.cut import Batching
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone

META = torch.device("meta")
LENGTHS = [3, 9, 1, 5]


@pytest.fixture(params=[("bert", 0), ("bert", "none"), ("gpt2", 1), ("qwen2", 1), ("t5", 1), ("mpnet", 0)], ids=str)
def blocks(request: pytest.FixtureRequest, tiny: Any, tmp_path) -> FinetunedBackbone:
    family, cut = request.param
    plan = CapturePlan(backbone=str(tiny(family)), compute_dtype="float32", stored_dtype="float32", max_tokens=32)
    return FinetunedBackbone(plan, cut, cache=str(tmp_path)).train()


def inputs_of(blocks: FinetunedBackbone) -> Tensor:
    tokens = sum(LENGTHS)
    return torch.full([tokens], 5) if blocks.cut == "none" else torch.randn(1, tokens, blocks.width)


@pytest.mark.parametrize("view", ["mean", "last", "cls", "tokens"])
def test_what_blocks_make_lies_where_their_inputs_do(blocks, view):
    inputs, seen = inputs_of(blocks), np.array([[0, length] for length in LENGTHS])
    expected = blocks.eval()(inputs, LENGTHS, view, seen=seen)
    with META:  # where a tensor lies that is made without a device
        found = blocks(inputs, LENGTHS, view, seen=seen)
        blocks.train()(inputs, LENGTHS, view, seen=seen).sum().backward()
    assert torch.equal(found, expected)  # an index of another device is not refused, and gives any numbers


@pytest.mark.parametrize("view", ["mean", "last", "cls", "tokens"])
def test_blocks_read_no_number_back_from_the_device(blocks, view):
    if blocks.blocks.road.batching is not Batching.ROWS:
        pytest.skip("transformers reads the mask of padded texts")
    found = blocks.to(META)(inputs_of(blocks), LENGTHS, view, seen=np.array([[0, length] for length in LENGTHS]))
    assert found.device == META
    found.sum().backward()
