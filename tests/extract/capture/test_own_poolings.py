"""Poolings from outside: exact beside other texts, cached by their code, and refused where they cannot be exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Pooling
from permafrost.data.spec import SpecError
from permafrost.extract.extraction import extract
from tests.support.models.backbones import WORDS

TEXTS = [" ".join(WORDS[start : start + size]) for start, size in [(0, 1), (3, 9), (2, 4), (5, 2), (1, 12)]]


def first(hidden, mask):
    return hidden[:, 0]


def mean(hidden, mask):
    return hidden.sum(1) / mask.sum(1)[:, None]


@pytest.fixture
def plan(tiny) -> CapturePlan:
    return CapturePlan(backbone=str(tiny("bert")), compute_dtype="float32", stored_dtype="float32", max_tokens=32)


def read(plan, tmp_path, *views):
    done = extract(replace(plan, views=views), TEXTS, ExtractSpec(cache=str(tmp_path), device="cpu"))
    return done, {view: done.store.read(TEXTS, view, (0, 1, 2, 3)) for view in views}


@pytest.mark.parametrize("template", ["{text}", "a film : {text} , in short"])
def test_a_pooling_written_by_others_is_ours(template, plan, registered, tmp_path):
    registered("their_mean", Pooling(mean))
    registered("their_first", Pooling(first))
    plan = replace(plan, template=template)
    _, latents = read(plan, tmp_path, "mean", "their_mean", "cls", "their_first")
    np.testing.assert_allclose(latents["their_mean"], latents["mean"], atol=1e-6)
    same = np.allclose(latents["their_first"], latents["cls"])
    assert same == (template == "{text}")  # of a template, it sees the tokens of the text alone, as the mean does


def test_changed_code_is_other_latents(plan, registered, tmp_path):
    registered("own", Pooling(mean))
    before, _ = read(plan, tmp_path, "own")
    assert (before.texts_run, read(plan, tmp_path, "own")[0].texts_run) == (len(TEXTS), 0)
    registered("own", Pooling(first))
    after, latents = read(plan, tmp_path, "own")
    assert after.texts_run == len(TEXTS)
    assert after.store.identity.name != before.store.identity.name
    np.testing.assert_array_equal(latents["own"], read(plan, tmp_path, "own", "cls")[1]["cls"])
    ours, _ = read(plan, tmp_path, "cls", "mean")
    assert ours.store.identity.poolings is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda hidden, mask: hidden.mean(1), "a text of 5 tokens another latent beside one of 9 than alone"),
        (lambda hidden, mask: hidden.amax(1), "another latent beside"),
        (lambda hidden, mask: hidden - hidden.mean(0), "must return a tensor of torch.float32 and shape"),
        (lambda hidden, mask: hidden[:, 0] - hidden[:, 0].mean(0), "another latent beside"),
        (lambda hidden, mask: hidden[:, 0].half(), "must return a tensor of torch.float32 and shape"),
        (lambda hidden, mask: hidden[:, 0] * torch.nan, "returns nan or infinity"),
        (lambda hidden, mask: None, "got NoneType"),
        (lambda hidden, mask: torch.nn.functional.dropout(hidden[:, 0]), "nothing random"),
        (lambda hidden, mask: hidden[:, 1], r"fails for states of shape \[1, 1, 32\] .*IndexError"),
    ],
)
def test_a_pooling_that_is_not_exact_is_refused(function, message, plan, registered, tmp_path):
    registered("own", Pooling(function))
    with pytest.raises(PluginError, match=message):
        read(plan, tmp_path, "own")
    assert not list(tmp_path.rglob("*.h5"))


def test_a_pooling_may_have_weights_of_the_width_of_its_backbone(plan, registered, tmp_path):
    query = torch.linspace(-1, 1, 32)

    def attention(hidden, mask):
        weights = (hidden.float() @ query).masked_fill(~mask, -torch.inf).softmax(1)
        return (weights[:, :, None] * hidden.float()).sum(1).to(hidden.dtype)

    registered("own", Pooling(attention))
    _, latents = read(plan, tmp_path, "own")
    assert np.isfinite(latents["own"]).all()


def test_an_unknown_view_and_windows_are_refused(registered):
    with pytest.raises(SpecError, match=r"views = 'men': Did you mean 'mean'\?"):
        CapturePlan(views=("men",))
    registered("own", Pooling(first))
    with pytest.raises(SpecError, match="views has 'own', a pooling that cannot be made of the windows of a text"):
        CapturePlan(views=("mean", "own"), truncation="windows")


def test_a_store_is_read_where_its_pooling_is_not_known(plan, registered, tmp_path, monkeypatch):
    import permafrost

    registered("own", Pooling(first))
    done, _ = read(plan, tmp_path, "own")
    monkeypatch.setattr("permafrost.data.plugin_registry._registered", {})
    store = permafrost.open(done.store.path)
    assert set(store.columns) == {"own"}
