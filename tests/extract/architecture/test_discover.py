"""The architecture of a model is found by running it: laws that hold for kinds of every nature."""

import ast
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from permafrost.data.memo import Memo
from permafrost.extract.architecture import architecture, discover, small_config, small_model
from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError, model_config
from permafrost.extract.architecture.discover import call, watched
from permafrost.extract.architecture.lookup import architecture_of
from permafrost.extract.capture import forward, packing, roads
from permafrost.extract.proofs import reference
from tests.support.models.kinds import BLOCKS, tiny_config

CAUSAL = {"gpt2", "opt", "llama", "mistral", "gemma3_text", "mamba", "clip"}
KINDS = sorted(CAUSAL | {"bert", "roberta", "mpnet", "albert", "t5", "bart", "xlnet"})
TABLES = {"gpt2": 64, "opt": 64, "clip": 64, "bert": 64, "albert": 64, "bart": 64, "roberta": 62, "mpnet": 62}
"""Kinds with a table of positions -> its rows that a token may have; a padding id takes two of the last ones."""

UNLIMITED = {"mamba", "t5", "xlnet"}
NOT_REPORTED = {"mamba", "xlnet"}
"""Kinds whose ``output_hidden_states`` are shifted by one, or not all."""

NORMED = CAUSAL | {"t5"}
"""Kinds with a norm after the last block."""

TOWERS = {"clip": "text_model", "t5": "encoder", "bart": "encoder"}


def found(kind: str, **changes: Any) -> Architecture:
    values = json.loads(json.dumps(tiny_config(kind, **changes).to_dict()))
    return architecture_of(model_config(values, kind))


@lru_cache
def tower_of(kind: str) -> nn.Module:
    """The part of a random model of a kind that reads texts, with all of its blocks."""
    from transformers import AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(tiny_config(kind)).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model.requires_grad_(False).get_submodule(found(kind).tower)


def drawn(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 90, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_what_enters_a_block_and_transformers_reports_it(kind):
    facts, tower = found(kind), tower_of(kind)
    with watched(tower, facts.blocks) as watch:
        output = call(tower, input_ids=drawn(9), output_hidden_states=True)
    assert (len(watch.entering), facts.layers) == (BLOCKS, BLOCKS + 1)
    assert {states.shape[-1] for states in watch.entering} == {facts.width} == {32}
    assert (facts.reported, facts.tower) == (kind not in NOT_REPORTED, TOWERS.get(kind, ""))
    for expected, actual in zip(output.hidden_states, watch.entering, strict=False):
        if facts.reported:
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tail_turns_what_the_last_block_returns_into_the_last_hidden_state(kind):
    facts, tower = found(kind), tower_of(kind)
    with watched(tower, facts.blocks) as watch:
        states = call(tower, input_ids=drawn(9))[0]
    assert (facts.chained, bool(facts.tail)) == (True, kind in NORMED)
    ended = nn.Sequential(*map(tower.get_submodule, facts.tail))(watch.leaving[-1])
    torch.testing.assert_close(ended.transpose(0, 1) if facts.tokens_first else ended, states)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_causal_if_no_token_sees_a_later_one(kind):
    tower, ids = tower_of(kind), drawn(9)
    changed = torch.cat([ids[:, :6], drawn(3, seed=1)], 1)
    before, after = (call(tower, input_ids=each)[0][:, :6] for each in (ids, changed))
    assert found(kind).causal == (kind in CAUSAL) == torch.allclose(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_text_is_the_one_that_the_table_of_positions_has_rows_for(kind):
    longest = found(kind).positions
    assert longest == (None if kind in UNLIMITED else TABLES.get(kind, 64))
    if kind in TABLES:
        assert call(tower_of(kind), input_ids=drawn(TABLES[kind]))[0].isfinite().all()
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            call(tower_of(kind), input_ids=drawn(TABLES[kind] + 1))


@pytest.mark.parametrize(("kind", "types"), [("bert", 2), ("bert", 1), ("roberta", 2), ("roberta", 1), ("albert", 2)])
def test_segments_are_told_apart_if_there_are_two_of_them(kind, types):
    assert found(kind, type_vocab_size=types).segments == (types > 1)
    assert not found("gpt2").segments


def test_sizes_are_those_of_the_large_model_and_not_of_the_small_one_that_was_run():
    kinds = ["full_attention"] * 7 + ["sliding_attention"] * 2
    facts = found("qwen2", num_hidden_layers=9, layer_types=kinds, use_sliding_window=True, sliding_window=4096)
    assert (facts.layers, facts.window) == (10, 4096)
    assert facts.layer_types == ("full_attention", "sliding_attention")


LARGE: list[tuple[dict[str, Any], int]] = [
    (
        {"model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
        | {"num_key_value_heads": 8, "intermediate_size": 28672},
        8192,
    ),
    ({"model_type": "t5", "d_model": 4096, "d_kv": 64, "num_heads": 64, "d_ff": 10240, "num_layers": 24}, 4096),
    ({"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32}, 4544),
    ({"model_type": "deepseek_v3", "num_key_value_heads": 128, "n_group": 8, "n_routed_experts": 256}, 7168),
]
"""Configurations of large models, and the width of their hidden states."""


@pytest.mark.parametrize(("values", "width"), LARGE, ids=[values["model_type"] for values, _ in LARGE])
def test_the_small_model_of_a_large_one_takes_little_memory_and_its_width_is_told(values, width):
    small = small_model.small_values(values)
    weights = sum(weight.numel() for weight in small_model.small_model(small).parameters())
    assert weights < 25_000_000  # 200 MB in float64
    assert architecture_of(values).width == width


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("vit", {}, "no part of it takes token ids, so it is no model of text"),
    ("wav2vec2", {}, "no part of it takes token ids, so it is no model of text"),
    ("gemma3n_text", {"num_kv_shared_layers": 0}, "several streams or skips tokens"),
    ("pegasus_x", {}, "several streams or skips tokens"),
    ("canine", {}, "none of its modules is called once for each of its 2 blocks"),
    ("albert", {"inner_group_num": 2, "num_hidden_groups": 2}, "it reports the states of 4: some lie in others"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_has_no_vector_for_each_token_is_refused_with_the_reason(kind, changes, message):
    with pytest.raises(BackboneError, match=message):
        found(kind, **changes)


def test_an_architecture_is_remembered_for_its_configuration(tmp_path, monkeypatch):
    values = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 50}
    memo = Memo(tmp_path / "architectures.json")
    first = architecture_of(values, memo)
    monkeypatch.setattr(small_model, "find_architecture", lambda _: pytest.fail("a model was run"))
    assert architecture_of(dict(reversed(values.items())), memo) == first
    with pytest.raises(pytest.fail.Exception, match="a model was run"):
        architecture_of(values | {"n_positions": 51}, memo)


def test_no_kind_of_model_is_named_where_models_are_found_and_run():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for module in (architecture, discover, small_config, small_model, forward, packing, reference, roads):
        nodes = ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        assert not {node.value for node in nodes if isinstance(node, ast.Constant)} & {*CONFIG_MAPPING}


@pytest.mark.parametrize("kind", ["gemma3_text", "llama4_text", "qwen3_next", "modernbert", "lfm2"])
def test_a_small_model_has_a_block_of_every_type_of_the_large_one(kind):
    from transformers import AutoConfig

    values = json.loads(json.dumps(AutoConfig.for_model(kind).to_dict()))
    small = small_model.small_values(model_config(values, kind))
    assert {*small["layer_types"]} == {*values["layer_types"]}
    assert len(small["layer_types"]) == small["num_hidden_layers"] < values["num_hidden_layers"]
