"""The examination of a backbone says what it is, which roads are exact, and how large its values are."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from permafrost import inspection
from permafrost.cli.main import app
from permafrost.extract.backbones.stored_dtype import PILOT_TEXTS

ROADS = {"gpt2": ["tree", "padded, unmasked", "equal lengths"], "bert": ["padded", "equal lengths"]}


@pytest.mark.parametrize("family", ROADS)
def test_the_facts_of_a_backbone_are_those_of_its_latents(family, tiny, tmp_path):
    folder = str(tiny(family))
    shown = CliRunner().invoke(app, ["backbone", folder, "--cache", str(tmp_path), "--json"])
    found = json.loads(shown.stdout)["backbone"]
    assert list(found["roads"]) == found["exact"] == ROADS[family]
    assert found["road"] == ROADS[family][0]
    assert (found["special_tokens"], found["chat_template"]) == ({"gpt2": "", "bert": "<s> ... </s>"}[family], "")
    assert (found["architecture"]["layers"], found["architecture"]["width"], found["longest"]) == (
        4,
        32,
        64 + 2 * (family == "bert"),
    )
    latents = inspection.latents(
        PILOT_TEXTS, folder, views=("max",), cache=None, compute_dtype="float32", stored_dtype="float32"
    )
    assert (np.array(found["peaks"]) >= 0.99 * latents["max"].max((1, 2))).all()  # measured in bfloat16 where native


def test_a_table_shows_every_road_and_layer(tiny, tmp_path):
    shown = CliRunner().invoke(app, ["backbone", str(tiny("llama")), "--cache", str(tmp_path)])
    for word in ("LlamaDecoderLayer", "padded, unmasked", "causal", "texts/s", "largest value", "<s> ... </s>"):
        assert word in shown.stdout


def test_short_names_are_listed_with_where_they_are():
    lines = json.loads(CliRunner().invoke(app, ["backbones", "--json"]).stdout)["backbones"]
    by_name = {line["name"]: line for line in lines}
    assert by_name["minilm"]["here"].startswith("package")
    assert by_name["gpt2"]["model"] == "openai-community/gpt2"
