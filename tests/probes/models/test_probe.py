"""Probes: every layer apart, symmetric, highest for identical texts, whole in their state, alone as beside others."""

import itertools

import numpy as np
import pytest
import torch

from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS
from permafrost.probes.models.pair_features import cosines, difference_features, pair_features
from permafrost.probes.models.probe import Probe, layout_for, stack, unstack
from permafrost.probes.models.sentence_probes import ROUNDING, ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.variants.members import initial_probe
from tests.support.synthetic import EVEN, RAGGED, classed, encode, inputs, latents, layout, moved, normal, say, scored
from tests.support.trainings import build, member_config

ENCODERS = {
    "none": {"encoder": "none"},
    "linear": {"encoder": "linear"},
    "linear, halves, dropout": {"encoder": "linear", "code": (0.25, 0.5), "dropout": 0.3},
    "lowrank": {"encoder": "lowrank", "rank": 3},
    "mlp": {"encoder": "mlp", "code": (0.5,)},
    "mlp, norm, deep, dropout": {"encoder": "mlp", "norm": True, "depth": 3, "dropout": 0.3},
    "mlp, halves, norm, dropout": {"encoder": "mlp", "code": (0.25, 0.5), "norm": True, "dropout": 0.3},
}
MIXED = [*MIXERS, *CODE_MIXERS]
EVERY = list(itertools.product(ENCODERS, MIXED))
WIDTHS = pytest.mark.parametrize("widths", [EVEN, RAGGED], ids=["even", "ragged"])


def spec_of(encoder: str, mixer: str = "softmax", **settings) -> ProbeSpec:
    return ProbeSpec(**(ENCODERS[encoder] | {"mixer": mixer} | settings))


def score_probe(encoder: str, mixer: str = "softmax", widths=EVEN, **settings) -> ScoreProbe:
    """A probe that has left its starting point, as training would leave it."""
    spec = spec_of(encoder, mixer, **settings)
    probe = ScoreProbe(spec, layout_for(spec, [(0, 1, 2, 3)], widths))
    adapt(probe, widths)
    return moved(probe).eval()


def adapt(probe: Probe, widths=EVEN) -> None:
    probe.set_normalization(*inputs(widths).moments(np.arange(40), probe.spec.center, probe.spec.scale))


@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_dropout_has_a_say_in_every_encoder(encoder, mixer):
    probe, x = score_probe(encoder, mixer, dropout=0.5), latents(EVEN)
    quiet = encode(probe, x)
    probe.seed([0])
    assert not torch.equal(encode(probe.train(), x), quiet)


def halves(x: torch.Tensor) -> list[torch.Tensor]:
    return list(x.chunk(2, 1))


@WIDTHS
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_layer_is_encoded_by_itself_noise_and_dropout_included(encoder, widths):
    probe, x = score_probe(encoder, widths=widths, noise=0.2).train(), latents(widths)
    codes = []
    for changed in (False, True):
        x = x.clone()
        x[2, :, : widths[2]] += changed
        probe.seed([0])
        codes.append(encode(probe, x))
    assert (codes[0] != codes[1]).flatten(1).any(1).tolist() == [False, False, True, False]


@WIDTHS
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_loss_of_one_layer_sends_no_gradient_into_another(encoder, widths):
    probe, x = score_probe(encoder, widths=widths, noise=0.2).train(), latents(widths).requires_grad_()
    probe.seed([0])
    encode(probe, x)[2].square().sum().backward()
    assert (x.grad != 0).flatten(1).any(1).tolist() == [False, False, True, False]
    weights = dict(probe.encoder.named_parameters())
    for name, run in probe.encoder.layer_runs():
        moved_layers = (weights[name].grad != 0).flatten(1).any(1).tolist()
        assert moved_layers == [layer == 2 for layer in range(run.start, run.stop)], name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_encoder_of_one_layer_does_not_depend_on_how_wide_another_is(encoder):
    x = latents(RAGGED)
    probe = score_probe(encoder, widths=RAGGED)
    together, encoded = encode(probe, x), []
    for run, part in zip(probe.encoder.runs, probe.encoder.parts, strict=True):
        width = RAGGED[run.start]
        encoded += list(part(normal(probe, x)[run, :, :width]))
    for layer, code in enumerate(encoded):
        torch.testing.assert_close(together[layer, :, : code.shape[1]], code)
        assert (together[layer, :, code.shape[1] :] == 0).all()


@WIDTHS
@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_swapping_the_texts_of_a_pair_changes_no_bit(encoder, mixer, widths):
    probe, x = score_probe(encoder, mixer, widths), latents(widths)
    first, second = halves(x)
    assert torch.equal(say(probe, [first, second]), say(probe, [second, first]))


@WIDTHS
@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_identical_texts_reach_the_top_and_without_an_mlp_nothing_exceeds_it(encoder, mixer, widths):
    probe, x = score_probe(encoder, mixer, widths), latents(widths)
    with torch.inference_mode():
        top = probe.top()
        assert (say(probe, [x, x]) >= top).all()
        if mixer != "mlp":  # a network over cosines may put something else on top
            assert (say(probe, halves(x)) <= top + 1.1 * ROUNDING).all()  # by which the top is lowered
            assert (say(probe, halves(x)) < top).float().mean() > 0.5


@pytest.mark.parametrize("encoder", ["none", "linear", "lowrank"])
def test_training_begins_at_the_raw_cosine(encoder):
    spec, (first, second) = ProbeSpec(center=False, mixer="last", encoder=encoder), halves(latents())
    probe = ScoreProbe(spec, layout())
    rounding = 1e-6 if encoder == "lowrank" else 0.0  # whose cosines are put together from parts
    torch.testing.assert_close(say(probe, [first, second])[0], cosines(first, second)[-1], rtol=0, atol=rounding)
    adapt(probe)  # a spread of one layer changes its cosines by no more than rounding
    torch.testing.assert_close(say(probe, [first, second])[0], cosines(first, second)[-1], rtol=0, atol=1e-6)
    assert torch.equal(encode(ScoreProbe(spec, layout()), first), first)  # and its codes are the latents


@pytest.mark.parametrize("width", [1, 7, 768])
def test_equal_vectors_have_cosine_one_exactly_zeros_included(width):
    x = torch.randn(100, width)
    x[3] = 0
    assert (cosines(x, x.clone()) == 1).all()
    assert cosines(x[3:4], x[:1]).tolist() == [0]
    torch.testing.assert_close(cosines(x[:1], -x[:1]), torch.tensor([-1.0]))


def test_centre_and_scale_make_the_training_texts_mean_zero_and_spread_one():
    for scale in ("layer", "dimension"):
        probe, found = ScoreProbe(ProbeSpec(encoder="none", scale=scale), layout()), inputs()
        probe.set_normalization(*found.moments(np.arange(40), True, scale))
        encoded = encode(probe, found.values[:, :40])
        torch.testing.assert_close(encoded.mean(1), torch.zeros(4, 8), rtol=0, atol=1e-5)
        spread = encoded.square().mean(1 if scale == "dimension" else (1, 2))
        torch.testing.assert_close(spread, torch.ones_like(spread))


def test_latents_are_centred_on_the_training_texts_only():
    found = inputs()
    corpus = scored(found)
    probe = initial_probe(member_config(Recipe(), found, corpus))
    torch.testing.assert_close(probe.center, found.values[:, :40].mean(1, keepdim=True))
    assert not torch.allclose(probe.center, found.values.mean(1, keepdim=True))
    raw = initial_probe(member_config(Recipe(probe=ProbeSpec(center=False)), found, corpus))
    assert (raw.center == 0).all()


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("hidden", [0, 5])
def test_a_class_probe_reads_one_text_or_two(sides, hidden):
    probe = ClassProbe(ProbeSpec(hidden=hidden), layout(), sides, outputs=4).eval()
    given = halves(latents())[:sides]
    logits = say(probe, given)
    assert logits.shape == (1, 30, 4)
    mixed = [side.mean(0, keepdim=True) for side in given]  # a fresh encoder is the identity, a fresh mixer the mean
    torch.testing.assert_close(logits, probe.head(pair_features(*mixed) if sides == 2 else mixed[0]))


def test_without_their_product_the_features_of_two_texts_are_both_and_their_distance():
    probe = ClassProbe(ProbeSpec(product=False), layout(), 2, outputs=4).eval()
    given = halves(latents())
    mixed = [side.mean(0, keepdim=True) for side in given]
    torch.testing.assert_close(say(probe, given), probe.head(difference_features(*mixed)))


def test_features_are_both_sides_their_distance_and_their_product():
    u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert pair_features(u, v).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]
    assert difference_features(u, v).tolist() == [[1, 2, 3, -1, 2, 3]]


@pytest.mark.parametrize("sides", [1, 2])
def test_a_regression_probe_reads_one_text_or_two_to_a_number(sides):
    probe = RegressionProbe(ProbeSpec(hidden=5), layout(), sides, outputs=1).eval()
    given = halves(latents())[:sides]
    said = say(probe, given)
    assert said.shape == (1, 30)
    mixed = [side.mean(0, keepdim=True) for side in given]
    torch.testing.assert_close(said, probe.head(pair_features(*mixed) if sides == 2 else mixed[0])[..., 0])


@pytest.mark.parametrize(
    ("code", "widths", "codes"),
    [
        ((1.0,), (8, 8, 8), [8, 8, 8]),
        ((0.5,), (8, 6, 4), [4, 3, 2]),
        ((0.25, 0.5), (8, 8, 8, 8), [2, 2, 4, 4]),
        ((0.25, 0.5), (8, 8, 8), [2, 2, 4]),
        ((0.25, 0.5, 1.0), (8, 8, 8), [2, 4, 8]),
        ((0.25, 0.5, 1.0), (8,) * 7, [2, 2, 4, 4, 4, 8, 8]),
        ((0.01,), (8, 8), [1, 1]),  # never none
    ],
)
def test_codes_are_fractions_of_the_widths_for_all_for_parts_or_for_each(code, widths, codes):
    assert ProbeSpec(code=code).code_widths(widths) == codes


def test_more_codes_than_layers_are_refused():
    with pytest.raises(SpecError) as refused:
        layout_for(ProbeSpec(code=(0.5, 0.5, 0.5)), [(0,)], (8, 8))
    assert str(refused.value) == "probe.code names 3 fractions, but the probe reads 2 layers."


def test_a_layer_has_the_same_code_whoever_reads_it():
    shared = layout_for(ProbeSpec(code=(0.25, 0.5)), [(0, 1, 2, 3), (1, 3), (3,)], EVEN)
    assert shared.codes == (2, 2, 4, 4, 2, 4, 4)
    probe = ScoreProbe(ProbeSpec(code=(0.25, 0.5)), shared)
    runs = zip(probe.encoder.parts, probe.encoder.runs, strict=True)
    assert [part.weight.shape[2] for part, run in runs for _ in range(run.start, run.stop)] == list(shared.codes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": ()},
        {"code": (0.0,)},
        {"code": (0.5, 1.5)},
        {"code": (0.5,), "encoder": "none"},
        {"code": (0.5,), "encoder": "lowrank"},
        {"dropout": 1.0},
        {"hidden": -1},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"depth": 0},
        {"rank": 0},
        {"context_width": 0},
        {"context_blocks": 0},
    ],
)
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        ProbeSpec(**wrong)


@pytest.mark.parametrize(("encoder", "mixer"), EVERY)
def test_the_state_holds_all_that_a_prediction_needs(encoder, mixer):
    probe, x = score_probe(encoder, mixer), latents()
    fresh = ScoreProbe(probe.spec, probe.layout).eval()
    fresh.load_state_dict(probe.state_dict())
    assert torch.equal(say(fresh, [x, x.flip(1)]), say(probe, [x, x.flip(1)]))


def built(encoder: str, mixer: str, layers: tuple[int, ...], seed: int, kind: str, widths=EVEN) -> Probe:
    """A moved probe of one member, for scores or classes."""
    spec = spec_of(encoder, mixer, hidden=5 if kind == "class" else 0)
    torch.manual_seed(seed)
    probe = build(spec, kind, 3, 2, layout_for(spec, [layers], widths))
    adapt(probe, widths)
    return moved(probe, seed=seed).eval()


MEMBERS = [(0, 1, 2, 3), (1, 3), (2, 3), (3,)]
PAIRS = [(0, 2), (1, 3), (2, 3), (0, 3)]
KINDS = [("score", mixer) for mixer in MIXED] + [("class", mixer) for mixer in MIXED if mixer != "mlp"]


def members_for(kind: str, mixer: str) -> list[tuple[int, ...]]:
    """Layers of members that can stand side by side: codes that are joined are as many as there are layers."""
    return PAIRS if (kind, mixer) == ("class", "concat") else MEMBERS


@pytest.mark.parametrize(("kind", "mixer"), KINDS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_beside_and_then_alone_is_the_identity(encoder, kind, mixer):
    probes = [built(encoder, mixer, layers, seed, kind) for seed, layers in enumerate(members_for(kind, mixer))]
    together = stack(probes)
    for member, probe in enumerate(probes):
        again = unstack(together, member)
        assert again.layout == probe.layout
        assert again.state_dict().keys() == probe.state_dict().keys()
        for name, value in probe.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


@WIDTHS
@pytest.mark.parametrize(("kind", "mixer"), KINDS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_members_beside_each_other_say_what_each_says_alone(encoder, kind, mixer, widths):
    members = members_for(kind, mixer)
    if widths == RAGGED:  # with codes as wide as each other's
        members = [(0, 2), (1, 2), (0, 2)] if members is PAIRS else [(0, 1, 2, 3), (0, 2), (1, 2, 3)]
    probes = [built(encoder, mixer, layers, seed, kind, widths) for seed, layers in enumerate(members)]
    sides, together = halves(latents(widths)), stack(probes).eval()
    said = say(together, sides)
    for member, probe in enumerate(probes):
        own = say(probe, sides)[0]
        torch.testing.assert_close(said[member], own, rtol=1e-5, atol=1e-5)  # sums in another order
    if kind == "score":
        torch.testing.assert_close(together.top(), torch.cat([probe.top() for probe in probes]))


def test_probes_whose_features_are_not_as_wide_do_not_stand_side_by_side():
    probes = [built("linear", "concat", layers, 0, "class") for layers in MEMBERS[:2]]
    with pytest.raises(ValueError, match="latents, codes and features of one largest width"):
        stack(probes)


@pytest.mark.parametrize("kind", ["score", "class"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_belongs_to_a_member_part_by_part(encoder, kind):
    together = stack([built(encoder, "softmax", layers, seed, kind) for seed, layers in enumerate(MEMBERS)]).eval()
    member_of = together.member_of()
    assert member_of.keys() == {name for name, _ in together.named_parameters()}
    for name, part in together.named_parameters():
        assert len(member_of[name]) == len(part), name
    say(together, halves(latents()))[1].square().sum().backward()
    for name, part in together.named_parameters():
        learns = (part.grad != 0).flatten(1).any(1)
        assert learns[member_of[name] != 1].sum() == 0, name
        assert learns.any() == bool((member_of[name] == 1).any()), name


def test_a_class_probe_starts_and_tells_the_classes_of_its_corpus():
    found = inputs()
    probe = initial_probe(member_config(Recipe(), found, classed(found, sides=1), layers=(1, 2)))
    assert (probe.outputs, probe.sides, probe.layout) == (3, 1, layout([(1, 2)]))


def test_the_seed_draws_the_start_and_nothing_else_does():
    found = inputs()
    recipe, corpus = Recipe(probe=ProbeSpec(encoder="mlp")), scored(found)
    first, again, other = (initial_probe(member_config(recipe, found, corpus, seed, (0, 1))) for seed in (0, 0, 1))
    weights = [next(iter(probe.parameters())) for probe in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_seeds_leave_the_global_generator_alone():
    found = inputs()
    before = torch.get_rng_state()
    initial_probe(member_config(Recipe(probe=ProbeSpec(encoder="mlp")), found, scored(found), 3, (0, 1)))
    assert torch.equal(torch.get_rng_state(), before)
