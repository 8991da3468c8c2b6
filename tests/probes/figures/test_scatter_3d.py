"""Projections: the same for the same input, faithful where they can be, and harmless in a page."""

import json

import numpy as np
import pandas as pd
import pytest

from permafrost.probes.figures.scatter_3d import latent_scatter
from permafrost.probes.figures.sentence_map import few_points_note
from permafrost.probes.metrics.projection import MAX_TEXTS, project
from tests.support.example_run import latents


def test_a_projection_depends_on_its_input_alone():
    values = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    pd.testing.assert_frame_equal(project(values), project(values.copy()))


def test_pca_keeps_the_distances_of_latents_that_have_three_dimensions():
    values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    found = project(values)
    points = found.loc[found["method"] == "pca", ["x", "y", "z"]].to_numpy()
    far = np.linalg.norm(values[:, None] - values, axis=-1)
    assert np.linalg.norm(points[:, None] - points, axis=-1) == pytest.approx(far, abs=1e-5)  # float32 input


def test_tsne_keeps_two_clusters_apart():
    values = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    values[30:] += 20
    found = project(values)
    points = found.loc[found["method"] == "tsne", ["x", "y", "z"]].to_numpy()
    nearest = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag([np.inf] * 60)
    assert ((nearest.argmin(1) >= 30) == (np.arange(60) >= 30)).all()


@pytest.mark.parametrize(("texts", "width"), [(20, 32), (26, 384), (40, 32), (100, 32)])
def test_tsne_does_not_throw_texts_without_clusters_into_one_place(texts, width):
    found = project(np.random.default_rng(0).normal(size=(texts, width)).astype(np.float32))
    assert found.loc[found["method"] == "tsne", ["x", "y", "z"]].std().min() > 0.1


def test_a_projection_says_which_rows_its_points_are():
    values = np.random.default_rng(0).normal(size=(15, 2)).astype(np.float32)
    values[3] = np.nan
    for _, points in project(values).groupby("method"):
        assert points.index.tolist() == [row for row in range(15) if row != 3]


@pytest.mark.parametrize(("texts", "methods"), [(4, {"pca"}), (5, {"pca", "tsne"}), (9, {"pca", "tsne"})])
def test_tsne_begins_with_five_texts_and_keeps_few_apart(texts, methods):
    found = project(np.random.default_rng(0).normal(size=(texts, 384)).astype(np.float32))
    assert set(found["method"]) == methods
    assert np.isfinite(found[["x", "y", "z"]]).all(axis=None)
    for _, points in found.groupby("method"):
        assert len(points[["x", "y", "z"]].round(4).drop_duplicates()) == texts


@pytest.mark.parametrize(("counts", "note"), [([4, 30], ""), ([9], "t-SNE of 9 points"), ([5, 19, 40], "5 to 19")])
def test_a_caution_is_given_where_tsne_has_few_points(counts, note):
    caution = few_points_note(counts)
    assert (note in caution and "caution" in caution) if note else caution == ""


def test_of_many_texts_some_are_projected(monkeypatch):
    monkeypatch.setattr("permafrost.probes.metrics.projection.MAX_TEXTS", 30)
    found = project(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    assert len(found) == 60
    assert found.index[:30].is_monotonic_increasing
    assert MAX_TEXTS == 1000


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 1), (30, 4)])
def test_latents_without_spread_are_projected_to_one_place(shape):
    found = project(np.ones(shape, np.float32))
    assert len(found) == shape[0]
    assert (found[["x", "y", "z"]] == 0).all(axis=None)


@pytest.mark.parametrize("classes", [False, True])
def test_panels_hold_every_point_once_and_texts_once_for_all_layers(classes):
    table = latents(classes).reset_index(drop=True)
    found = latent_scatter(table)
    assert [one["name"] for one in found["inputs"]] == ["mean, layer 0", "mean, layer 6"]
    assert sum(map(len, found["texts"])) == 60
    for one in found["inputs"]:
        for method in ("pca", "tsne"):
            assert sum(len(found["texts"][trace["meta"]]) for trace in one[method]) == 60
            assert len(one[method]) == (2 if classes else 1)
            assert len({trace["marker"].get("symbol") for trace in one[method]}) == len(one[method])
    said = json.dumps(found)
    assert "<script" not in said
    assert "<a" not in said
    assert "&lt;script&gt;" in said
