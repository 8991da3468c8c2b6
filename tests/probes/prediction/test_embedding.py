"""Vectors of texts: where it is said, the cosine of two is the raw score of the pair, for every mixer and encoder."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from permafrost import api
from permafrost.data.corpora.corpus import Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import Probe, layout_for, stack
from permafrost.probes.models.sentence_probes import ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.models.shared_reads import both_texts
from permafrost.probes.objectives.heads import mean_prediction
from permafrost.probes.prediction.embedding import describe_vectors, text_vectors
from tests.support.bench import pairs
from tests.support.synthetic import EVEN, RAGGED, inputs, moved, token_inputs

ENCODERS = {"none": (1.0,), "linear": (0.25, 0.5), "lowrank": (1.0,), "mlp": (0.5,)}
EXACT = [mixer for mixer in (*MIXERS, *CODE_MIXERS) if mixer != "mlp"]


def probe_of(mixer: str, encoder: str, members: int, widths: tuple[int, ...], tokens: bool = False) -> ScoreProbe:
    """Members with weights of their own, which read the last three layers."""
    spec = ProbeSpec(mixer=mixer, encoder=encoder, code=ENCODERS[encoder], rank=3)
    single = []
    for member in range(members):
        torch.manual_seed(member)
        probe = ScoreProbe(spec, layout_for(spec, [tuple(range(len(widths)))[-3:]], widths, tokens))
        single.append(moved(probe, seed=member + 1).eval())
    return stack(single).eval() if members > 1 else single[0]


def run_of(probe: Probe, kind: str = "score") -> Any:
    return SimpleNamespace(
        probe=probe, kind=kind, path="run", recipe=SimpleNamespace(plan=SimpleNamespace(backbone="b"))
    )


def compared(probe: ScoreProbe, read: Any) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of all pairs of ten texts, and the products of their vectors."""
    chosen = np.array(list(itertools.product(range(10), repeat=2)))
    with torch.inference_mode():
        raw = mean_prediction(probe, read, Rows(chosen, np.zeros(len(chosen))))
        vectors = text_vectors(probe, read, 10).numpy()
    return raw, (vectors @ vectors.T).reshape(-1)


@pytest.mark.parametrize("widths", [EVEN, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize(("mixer", "encoder"), list(itertools.product(EXACT, ENCODERS)))
def test_products_of_vectors_are_raw_scores(mixer, encoder, widths):
    read = inputs(widths)
    for members in (1, 3):
        probe = probe_of(mixer, encoder, members, widths)
        assert describe_vectors(run_of(probe)).is_score
        raw, products = compared(probe, read)
        assert np.ptp(raw) > 0.1
        np.testing.assert_allclose(products, raw, atol=1e-5)


def test_products_are_scores_of_probes_that_pool_tokens_too():
    read = token_inputs([[(0, 1)] * (1 + number % 5) for number in range(12)])
    probe = probe_of("softmax", "linear", 2, read.widths, tokens=True)
    raw, products = compared(probe, read)
    np.testing.assert_allclose(products, raw, atol=1e-5)


@pytest.mark.parametrize("mixer", ["softmax", "concat"])
@pytest.mark.parametrize("encoder", ["none", "linear"])
def test_products_are_scores_if_a_layer_is_the_same_for_every_text(mixer, encoder):
    read = inputs(EVEN)
    probe = probe_of(mixer, encoder, 1, EVEN)
    encode = Probe.encode

    def with_a_constant_layer(self: Probe, states: Any, reads: Any) -> torch.Tensor:
        codes = encode(self, states, reads).clone()
        codes[0] = 0
        return codes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe, "encode", with_a_constant_layer)
        patch.setattr(
            ScoreProbe,
            "_layer_cosines",
            lambda self, first, second, reads: cosines(*self.encode(both_texts(first, second), reads).chunk(2, 1)),
        )
        raw, products = compared(probe, read)
    np.testing.assert_allclose(products, raw, atol=1e-5)


def test_of_a_network_over_cosines_the_mean_cosine_is_given_and_said():
    probe, read = probe_of("mlp", "linear", 2, EVEN), inputs(EVEN)
    meaning = describe_vectors(run_of(probe))
    assert not meaning.is_score
    assert "the mixer 'mlp' is a network over the cosines of the layers: it is their mean" in meaning.text
    even = probe_of("softmax", "linear", 2, EVEN)
    even.load_state_dict(
        {name: value for name, value in probe.state_dict().items() if "mixer" not in name}, strict=False
    )
    with torch.no_grad():
        even.mixer.logits.zero_()
    np.testing.assert_allclose(compared(probe, read)[1], compared(even, read)[0], atol=1e-5)


def test_weights_below_zero_are_no_vectors_length():
    probe = probe_of("softmax", "linear", 1, EVEN)
    probe.mixer.weights = lambda: torch.tensor([[1.2, 0.2, -0.4]])
    assert not describe_vectors(run_of(probe)).is_score


def test_of_heads_that_read_features_the_mixed_code_is_given_and_said():
    spec = ProbeSpec(mixer="concat", encoder="linear")
    for probe, kind in (
        (ClassProbe(spec, layout_for(spec, [(0, 1)], EVEN), 1, 3), "class"),
        (RegressionProbe(spec, layout_for(spec, [(0, 1)], EVEN), 2, 1), "score"),
    ):
        meaning = describe_vectors(run_of(probe.eval(), kind))
        assert not meaning.is_score
        assert f"whose head predicts {kind}: they are what the head reads" in meaning.text
        vectors = text_vectors(probe, inputs(EVEN), 5)
        assert vectors.shape == (5, 2 * EVEN[0])


def test_a_run_of_single_tokens_makes_no_vectors():
    with pytest.raises(SpecError, match="permafrost embed b --file"):
        describe_vectors(run_of(torch.nn.Module(), "tags"))


def test_a_finished_run_embeds_what_it_predicts(finished):
    _, done = finished
    predictor = api.load(done.path)
    rows = [(row[0], row[1]) for row in pairs(seed=5)][:20]
    first, second = (predictor.embed([row[side] for row in rows]) for side in (0, 1))
    raw = [answer["raw"] for answer in predictor.predict(rows)]
    np.testing.assert_allclose((first * second).sum(1), raw, atol=1e-5)
    again = predictor.embed([rows[3][0], rows[0][0], rows[3][0]])
    np.testing.assert_allclose(again, first[[3, 0, 3]], atol=1e-6)
    assert np.array_equal(again[0], again[2])
    with pytest.raises(CorpusError, match="text 2: the text is empty"):
        predictor.embed(["a dog", " "])
    several = replace_tasks(predictor)
    with pytest.raises(SpecError, match=r"set task \(--task\) to one of one, two"):
        several.embed(["a dog"])
    np.testing.assert_allclose(several.embed(rows[0][0], "two")[0], first[0], atol=1e-6)
    with pytest.raises(SpecError, match="Did you mean 'two'"):
        several.embed(["a dog"], "tow")


def replace_tasks(predictor: Any) -> Any:
    """A predictor of two tasks, each that of the run."""
    (run,) = predictor.tasks.values()
    predictor.tasks = {"one": run, "two": replace(run)}
    return predictor
