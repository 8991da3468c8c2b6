"""Cosines of sentences: the arithmetic, the tables, and what is refused before anything runs."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from permafrost.data.corpora.records import CorpusError
from permafrost.data.readers.plain_text import read_sentences
from permafrost.data.spec import SpecError
from permafrost.probes.config.similarity import SimilaritySpec, with_arguments
from permafrost.probes.metrics.cosines import cosine_matrix, matrix_from_pairs, pair_table


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def test_cosines_are_those_of_scipy_symmetric_with_ones_on_the_diagonal(latents):
    found = cosine_matrix(latents)
    plain = [[1 - cosine(first, second) for second in latents.astype(float)] for first in latents.astype(float)]
    np.testing.assert_allclose(found, plain, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)


def test_neither_length_nor_magnitude_matters_and_a_latent_of_zeros_is_near_nothing(latents):
    scaled = latents * np.array([1e-12, 1, 3, 1e12, 0], np.float32)[:, None]
    expected = cosine_matrix(latents)
    expected[4, :4] = expected[:4, 4] = 0
    np.testing.assert_allclose(cosine_matrix(scaled), expected, atol=1e-6)  # float32 scaling


def test_pairs_hold_each_pair_once_and_the_square_table_comes_back_from_them(latents):
    tables = {"a": cosine_matrix(latents), "b": cosine_matrix(latents[:, :3])}
    rows = pair_table(tables)
    assert len(rows) == 2 * 10
    assert (rows["first"] < rows["second"]).all()
    assert rows["first"].min() == 1
    for backbone, table in tables.items():
        np.testing.assert_array_equal(matrix_from_pairs(rows, backbone, 5), table)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": ["one"]}, r"similarity\.texts must be two sentences or more, got 1: 'one'"),
        ({"texts": "one"}, "two sentences or more, got 1: 'one'"),
        ({"texts": []}, "two sentences or more, got none"),
        ({"texts": ["one", " \n"]}, "sentence 2 is empty"),
        ({"texts": ["one", "\ud8ff"]}, "sentence 2 holds half a character"),
        ({"pooling": "max"}, r"similarity\.pooling = 'max': Known: cls, mean"),
        ({"backbones": ["a", "b", "a"]}, r"similarity\.backbones names 'a' twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, message):
    with pytest.raises(SpecError, match=message):
        with_arguments(SimilaritySpec(("one", "two")), **given)


def test_what_is_not_given_is_the_recipes():
    spec = SimilaritySpec(("one", "two"), ("a",), "cls")
    assert with_arguments(spec) == spec
    assert with_arguments(spec, ["x", "x"], "b", "mean") == SimilaritySpec(
        ("x", "x"), ("b",), "mean"
    )  # twice the same is fine


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one two\n\nthree\n"),
        ("a.csv", "id,sentence\n1,one two\n2,three\n"),
        ("a.jsonl", '{"text": "one two"}\n{"text": "three"}\n'),
    ],
)
def test_sentences_are_read_from_lines_or_from_the_column_of_sentences(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    assert read_sentences(tmp_path / name) == ["one two", "three"]


def test_a_file_without_sentences_is_refused_at_its_line(tmp_path):
    (tmp_path / "a.csv").write_text("id,words\n1,one two\n")
    with pytest.raises(CorpusError, match=r"a\.csv:2: expected the column sentence or text; found id, words"):
        read_sentences(tmp_path / "a.csv")


def test_an_empty_sentence_of_a_file_is_refused_at_its_line(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,one two\n2,  \n")
    with pytest.raises(CorpusError, match=r"a\.csv:3: the sentence is empty\."):
        read_sentences(tmp_path / "a.csv")
