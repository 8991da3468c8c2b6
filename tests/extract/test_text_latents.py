"""Latents of texts as arrays: the same from the store and from memory, one row for every text as it was given."""

import numpy as np
import pandas as pd
import pytest

from permafrost import inspection
from permafrost.data.errors import InputError
from tests.support.models.gguf import tiny_gguf

TEXTS = ["the small brown dog runs", "it sleeps", "the small brown dog runs", "then a dog"]


def test_the_store_and_the_memory_give_the_same_latents_of_every_text(tiny, tmp_path):
    asked = {"backbone": str(tiny("gpt2")), "views": ("last", "mean"), "layers": (0, -1), "stored_dtype": "float32"}
    kept = inspection.latents(TEXTS, cache=tmp_path / "cache", **asked)
    unkept = inspection.latents(TEXTS, cache=None, **asked)
    assert {view: values.shape for view, values in kept.items()} == {"last": (2, 4, 32), "mean": (2, 4, 32)}
    for view, values in kept.items():
        np.testing.assert_array_equal(values, unkept[view])
        np.testing.assert_array_equal(values[:, 0], values[:, 2])
        assert not np.array_equal(values[:, 0], values[:, 1])


def test_a_prompt_may_be_given(tiny):
    folder, views = str(tiny("gpt2")), ("last", "text_last")
    found = inspection.latents(["a dog"], folder, views, cache=None, template="{system} {text} then", system="the old")
    whole = inspection.latents(["the old a dog then", "the old a dog"], folder, views, cache=None)
    np.testing.assert_allclose(found["last"][:, 0], whole["last"][:, 0], atol=2e-3)
    np.testing.assert_allclose(found["text_last"][:, 0], whole["last"][:, 1], atol=2e-3)


def test_in_memory_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    """Not even of a GGUF file, which is converted."""
    tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert inspection.latents(["a dog"], str(tmp_path / "tiny.gguf"), cache=None)["mean"].shape[1] == 1
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": ("tokens",)}, "the view tokens has one latent for each token"),
        ({"views": ("meen",)}, "Did you mean 'mean'"),
        ({"layers": (9,)}, "layer 9 is out of range"),
        ({"temlate": "so {text}"}, "unknown key 'temlate'. Did you mean 'template'"),
        ({"texts": []}, "there are no texts"),
        ({"texts": "a dog"}, "got one text"),
        ({"texts": {"text": ["a dog"]}}, "give one column of it"),
        ({"texts": pd.DataFrame({"text": ["a dog"]})}, "give one column of it"),
        ({"texts": ["a dog", None]}, "text 2 is None, of type NoneType, not str"),
        ({"texts": [("a dog", "a cat")]}, "of type tuple"),
        ({"texts": None}, "must be a list of texts, got None, of type NoneType"),
        ({"texts": b"a dog"}, "of type bytes"),
        ({"texts": [" "]}, "text 1 is empty"),
        ({"texts": ["\ud800"]}, "text 1 holds half a character"),
        ({"layers": (0.5,)}, "layers must be whole numbers"),
        ({"stored_dtype": "int4"}, "stored_dtype"),
    ],
)
def test_what_gives_no_array_is_refused(change, message, tiny):
    with pytest.raises(InputError, match=message):
        inspection.latents(**{"texts": TEXTS, "backbone": str(tiny("gpt2")), "cache": None} | change)


@pytest.mark.parametrize("layers", [1, np.int64(1), [1], np.array([1]), (np.int32(1),), range(1, 2), "1"])
def test_layers_are_one_number_or_numbers_of_any_library(layers, tiny, tmp_path):
    cache = tmp_path / "cache"
    (found,) = inspection.latents(TEXTS[:2], str(tiny("gpt2")), "mean", layers, cache=cache).values()
    assert found.layers == (1,)
    np.testing.assert_array_equal(inspection.open_store(cache).latents(TEXTS[:2], "mean", layers), found)
