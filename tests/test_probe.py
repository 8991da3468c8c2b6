"""Probes: symmetric, highest for identical texts, centred on training texts only, and whole in their state."""

import itertools

import numpy as np
import pytest
import torch

from data.corpus import Corpus, Rows
from data.spec import SpecError
from probes.experiment import Inputs, sides_of, train_variant
from probes.heads import MIXERS
from probes.layerwise import ENCODERS
from probes.probe import ClassProbe, ProbeSpec, ScoreProbe
from probes.recipe import Recipe
from probes.siamese import layer_cosines, pair_features
from probes.train import TrainSpec

LAYERS, TEXTS, WIDTH = 3, 40, 8
EVERY = list(itertools.product(ENCODERS, MIXERS))


def latents() -> torch.Tensor:
    return torch.randn(LAYERS, TEXTS, WIDTH, generator=torch.Generator().manual_seed(0)) + 3


def score_probe(encoder: str, mixer: str, **settings) -> ScoreProbe:
    """A probe that has left its starting point, as training would leave it."""
    probe = ScoreProbe(ProbeSpec(encoder=encoder, mixer=mixer, **settings), LAYERS, WIDTH)
    probe.adapt(latents())
    with torch.no_grad():
        for weight in probe.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return probe.eval()


@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_swapping_the_texts_of_a_pair_changes_no_bit(encoder, mixer):
    probe, x = score_probe(encoder, mixer), latents()
    first, second = x[:, :20], x[:, 20:]
    assert torch.equal(probe([first, second]), probe([second, first]))


@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_identical_texts_reach_the_top_and_without_an_mlp_nothing_exceeds_it(encoder, mixer):
    probe, x = score_probe(encoder, mixer), latents()
    with torch.inference_mode():
        top = probe.top()
        assert (probe([x, x]) >= top).all()
        if mixer != "mlp":  # a network over cosines may put something else on top
            assert (probe([x[:, :20], x[:, 20:]]) < top).all()


def test_an_identity_start_without_centre_begins_at_the_raw_cosine():
    probe, x = ScoreProbe(ProbeSpec(center=False, mixer="last"), LAYERS, WIDTH), latents()
    probe.adapt(x)
    torch.testing.assert_close(probe([x[:, :20], x[:, 20:]]), layer_cosines(x[-1, :20], x[-1, 20:]))


def test_the_softmax_mixer_starts_as_the_mean_over_layers():
    x = torch.randn(LAYERS, 5)
    torch.testing.assert_close(MIXERS["softmax"](LAYERS)(x), x.mean(0))
    torch.testing.assert_close(MIXERS["last"](LAYERS)(x), x[-1])


def test_centre_and_scale_make_the_training_texts_mean_zero_and_spread_one():
    probe = ScoreProbe(ProbeSpec(encoder="none"), LAYERS, WIDTH)
    probe.adapt(latents())
    encoded = probe.encode(latents())
    torch.testing.assert_close(encoded.mean(1), torch.zeros(LAYERS, WIDTH), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.square().mean((1, 2)), torch.ones(LAYERS))


def test_latents_that_are_all_equal_are_not_divided_by_zero():
    probe = ScoreProbe(ProbeSpec(), LAYERS, WIDTH)
    x = torch.ones(LAYERS, TEXTS, WIDTH)
    probe.adapt(x)
    assert probe([x, x]).isfinite().all()


def scored_corpus() -> tuple[Corpus, Inputs]:
    """Pairs whose score is a cosine of their latents; every split has texts of its own."""
    x = latents() - 3
    sides = np.arange(TEXTS).reshape(-1, 2)
    cosines = layer_cosines(x[1, sides[:, 0]], x[1, sides[:, 1]]).double().numpy() / 2 + 0.5
    splits = {"train": slice(0, 10), "validation": slice(10, 15), "test": slice(15, 20)}
    rows = {name: Rows(sides[part], cosines[part]) for name, part in splits.items()}
    corpus = Corpus("toy", tuple(map(str, range(TEXTS))), rows, score_range=(0.0, 1.0))
    return corpus, Inputs(x, tuple(("mean", layer) for layer in range(LAYERS)))


def test_latents_are_centred_on_the_training_texts_only():
    corpus, inputs = scored_corpus()
    trained = train_variant("toy", Recipe(train=TrainSpec(epochs=1)), corpus, inputs, seed=0)
    torch.testing.assert_close(trained.probe.center, inputs.values[:, :20].mean(1, keepdim=True))
    assert not torch.allclose(trained.probe.center, inputs.values.mean(1, keepdim=True))


def test_without_centre_the_latents_stay_where_they_are():
    probe = ScoreProbe(ProbeSpec(center=False), LAYERS, WIDTH)
    probe.adapt(latents())
    assert (probe.center == 0).all()


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("hidden", [0, 5])
def test_a_class_probe_reads_one_text_or_two(sides, hidden):
    probe = ClassProbe(ProbeSpec(hidden=hidden), LAYERS, WIDTH, sides, classes=4).eval()
    given = list(latents().chunk(2, 1))[:sides]
    logits = probe(given)
    assert logits.shape == (20, 4)
    mixed = [side.mean(0) for side in given]  # a fresh encoder is the identity, a fresh mixer the mean
    torch.testing.assert_close(logits, probe.head(pair_features(*mixed) if sides == 2 else mixed[0]))


def test_pair_features_are_both_sides_their_distance_and_their_product():
    u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert pair_features(u, v).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]


def test_classes_cannot_be_mixed_from_cosines():
    with pytest.raises(SpecError, match=r"probe\.mixer = 'mlp' mixes cosines.*use 'softmax' or 'last'"):
        ClassProbe(ProbeSpec(mixer="mlp"), LAYERS, WIDTH, sides=1, classes=2)


@pytest.mark.parametrize("wrong", [{"code": 0.0}, {"code": 1.5}, {"dropout": 1.0}, {"hidden": -1}])
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        ProbeSpec(**wrong)


@pytest.mark.parametrize(
    ("train", "message"), [({"loss": "cross_entropy"}, "loss"), ({"metric": "accuracy"}, "metric")]
)
def test_a_loss_or_metric_of_classes_does_not_fit_scores(train, message):
    corpus, inputs = scored_corpus()
    with pytest.raises(SpecError, match=f"train.{message} = '.*' does not fit similarity; use one of"):
        train_variant("toy", Recipe(train=TrainSpec(**train)), corpus, inputs, seed=0)


@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_the_state_holds_all_that_a_prediction_needs(encoder, mixer):
    probe, x = score_probe(encoder, mixer, code=0.5), latents()
    fresh = ScoreProbe(ProbeSpec(encoder=encoder, mixer=mixer, code=0.5), LAYERS, WIDTH).eval()
    fresh.load_state_dict(probe.state_dict())
    assert torch.equal(fresh([x, x.flip(1)]), probe([x, x.flip(1)]))


def test_sides_are_read_by_row_and_side():
    _, inputs = scored_corpus()
    first, second = sides_of(inputs, np.array([[3, 5], [0, 1]]))
    assert torch.equal(first, inputs.values[:, [3, 0]])
    assert torch.equal(second, inputs.values[:, [5, 1]])
