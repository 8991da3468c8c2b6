"""Arrays and stores in a notebook: facts, escaped, without reading latents."""

import pytest

import permafrost as pf
from permafrost.data.latents.html import facts_html, layers_text

EVIL = "<img src=x onerror=alert(1)> & \n\t\u202eevil" + "x" * 500


@pytest.fixture
def latents(tiny, tmp_path):
    return pf.latents(["the dog runs", "<b>dog</b>", *["dog"] * 9], str(tiny("bert")), cache=tmp_path / "cache")["mean"]


def test_an_array_shows_what_it_is_and_reads_nothing(latents, monkeypatch):
    monkeypatch.setattr(type(latents._source), "read", None)
    text = latents._repr_html_()
    for shown in ("mean", "4: 0 to 3", ">11<", ">32<", "float16", "the dog runs", "&lt;b&gt;dog&lt;/b&gt;"):
        assert shown in text
    assert "<b>dog" not in text
    assert text.count("text ") == 3


def test_a_store_shows_its_views_and_what_made_them(latents, tmp_path):
    store = pf.open(tmp_path / "cache")
    text = store._repr_html_()
    for shown in (str(store.path), "view mean", "layers 0 to 3", ">3<", store.identity.compute_dtype, "not kept"):
        assert shown in text
    whole = store.latents(view="mean")
    assert "text 0" not in whole._repr_html_()


def test_a_store_that_is_gone_is_no_error(latents, tmp_path):
    store = pf.open(tmp_path / "cache")
    for path in store.path.iterdir():
        path.unlink()
    store.path.rmdir()
    assert "StoreReader" in store._repr_html_()


def test_facts_are_escaped_short_and_never_an_error():
    text = facts_html("T<", lambda: {EVIL: EVIL, "n": 12345})
    assert "<img" not in text
    assert "\u202e" not in text
    assert "12,345" in text
    assert len(text) < 800

    def fail():
        raise OSError(EVIL)

    assert "cannot be read" in facts_html("T", fail)
    assert "<img" not in facts_html("T", fail)


def test_layers_are_told_in_short():
    assert [layers_text(layers) for layers in ((0, 1, 2), (0, 6, 12), (4,), (4, 5))] == [
        "0 to 2", "0, 6, 12", "4", "4, 5",
    ]  # fmt: skip
