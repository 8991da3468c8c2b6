"""Probes that read tokens pool them by attention, never beyond a text's end; or score each, member by member apart."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from permafrost import api
from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.ragged import TokenLatents
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs.token_inputs import TokenInputs, padded
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.layerwise import Dropout
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import TokenPooling, layout_for, stack, unstack
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.models.shared_reads import TokenStates, both_texts, shared_reads
from permafrost.probes.models.token_probes import SpanProbe, TagProbe, TokenProbe
from permafrost.probes.objectives.heads import predictions
from tests.support.bench import Bench
from tests.support.synthetic import answered, as_inputs, moved, tagged
from tests.support.trainings import member_config, train_all

WIDTH, TEXTS = 8, 200


def token_latents(layers: int = 2, seed: int = 0) -> TokenLatents:
    """Texts of one to six tokens."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 7, TEXTS))])
    states = rng.normal(size=(layers, offsets[-1], WIDTH)).astype(np.float32)
    ids, spans = np.zeros(offsets[-1], np.int32), np.full((offsets[-1], 2), -1, np.int32)
    return TokenLatents(states, offsets, ids, spans)


def token_inputs(layers: int = 2, seed: int = 0) -> TokenInputs:
    return as_inputs(token_latents(layers, seed))


def text(found: TokenInputs, layer: int, number: int) -> torch.Tensor:
    return found.token_states(np.array([number]), [layer])[0]


def tokens_of(found: TokenInputs, texts: np.ndarray) -> TokenStates:
    """The tokens of some texts in every layer, padded."""
    return padded(found.token_states(texts, range(len(found.columns))), found.tokens.lengths[texts])


def token_probe(found: TokenInputs, spec: ProbeSpec | None = None) -> ScoreProbe:
    spec = spec or ProbeSpec(encoder="none")
    return ScoreProbe(spec, layout_for(spec, [tuple(range(len(found.columns)))], found.widths, tokens=True))


def test_tokens_of_texts_are_fetched_with_what_is_real_of_them():
    found = token_inputs()
    read = tokens_of(found, np.array([3, 0, 3]))
    for row, number in enumerate((3, 0, 3)):
        for layer in range(2):
            assert torch.equal(read.values[layer, row, read.mask[row]], text(found, layer, number))


def test_pooling_starts_at_the_mean_and_never_reads_beyond_the_end():
    found = token_inputs()
    pooling = TokenPooling(token_probe(found).layout)
    read = tokens_of(found, np.arange(5))
    expected = torch.stack([torch.stack([text(found, layer, n).mean(0) for n in range(5)]) for layer in range(2)])
    torch.testing.assert_close(pooling(*read), expected)
    moved(pooling)
    before = pooling(*read)
    read.values[:, ~read.mask] = float("nan")
    torch.testing.assert_close(pooling(*read), before)


def test_pooling_weighs_tokens_by_softmax_of_query_and_state():
    found = token_inputs(layers=1)
    pooling = moved(TokenPooling(token_probe(found).layout))
    states = text(found, 0, 4)
    weights = torch.softmax(states @ pooling.query.detach().flatten() / WIDTH**0.5, 0)
    made = pooling(*tokens_of(found, np.array([4, 1])))
    torch.testing.assert_close(made[0, 0], weights @ states)


def test_a_layer_is_pooled_by_its_own_query_alone():
    found = token_inputs()
    pooling = moved(TokenPooling(token_probe(found).layout))
    read = tokens_of(found, np.arange(9))
    before = pooling(*read)
    read.values[0] += 1
    after = pooling(*read)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_two_sides_of_other_lengths_become_one():
    found = token_inputs()
    sides = [tokens_of(found, np.array(texts)) for texts in ([0], [1, 2])]
    pooling = moved(TokenPooling(token_probe(found).layout))
    apart = torch.cat([pooling(*side) for side in sides], 1)
    torch.testing.assert_close(pooling(*both_texts(*sides)), apart)


def test_untrained_tokens_are_compared_by_their_means():
    found = token_inputs()
    probe, sides = token_probe(found), np.arange(20).reshape(10, 2)
    reads = shared_reads(probe.layout)
    said = probe(found.text_states(reads, sides[None]), reads)[0]
    means = [torch.stack([found.pooled(layer, column) for layer in range(2)]) for column in sides.T]
    torch.testing.assert_close(said, cosines(*means).mean(0))


def test_members_beside_each_other_and_alone_again_keep_their_queries():
    found = token_inputs()
    probes = [moved(token_probe(found), seed=seed) for seed in (1, 2)]
    together = stack(probes)
    for member, probe in enumerate(probes):
        single = unstack(together, member)
        assert all(torch.equal(single.state_dict()[name], value) for name, value in probe.state_dict().items())


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_seeds_that_read_tokens_answer_each_for_itself(layers):
    found = token_inputs()
    rows = Rows(np.arange(20).reshape(10, 2), np.zeros(10))
    singles = [
        moved(ScoreProbe(ProbeSpec(), layout_for(ProbeSpec(), [layers], found.widths, True)), seed=n) for n in range(3)
    ]
    with torch.inference_mode():
        said = predictions(stack(singles), found, rows)
        apart = np.concatenate([predictions(single, found, rows) for single in singles])
    np.testing.assert_array_equal(said, apart)
    assert np.ptp(said, axis=0).min() > 0


def test_several_seeds_and_their_average_run_on_tokens(tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    for average in ("false", "true"):
        more = [f"train.average={average}", "train.seeds=0,1", "train.epochs=2", "plan.layers=1,2"]
        done = api.run("pairs", bench.of_pairs("plan.views=tokens", *more), bench.runs, only=["linear"])
        table = pd.read_csv(done.path / "predictions.csv")
        items = list(zip(table["sentence1"], table["sentence2"], strict=True))[:15]
        said = [answer["score"] for answer in api.load(done.path).predict(items)]
        assert len(said) == 15
        if average == "true":
            np.testing.assert_allclose(said, table["score"][:15], atol=2e-3)  # stored in float16


def test_a_probe_learns_which_token_tells():
    """The score is the cosine of the tokens whose first number is large; the mean of all tokens hardly shows it."""
    latents = token_latents(layers=1)
    found = as_inputs(latents)
    rng = np.random.default_rng(1)
    telling = []
    for number in range(TEXTS):
        states = torch.from_numpy(latents.states[0, latents.offsets[number] : latents.offsets[number + 1]])
        states[:, 0] = 0
        at = rng.integers(len(states))
        states[at, 0] = 3
        telling.append(states[at])
    sides = np.arange(TEXTS).reshape(-1, 2)
    scores = cosines(*(torch.stack([telling[n] for n in column]) for column in sides.T)).double().numpy() / 2 + 0.5
    splits = {"train": Rows(sides[:70], scores[:70]), "validation": Rows(sides[70:], scores[70:])}
    corpus = Corpus(
        name="toy", texts=tuple(map(str, range(TEXTS))), splits=splits, labels=(), score_range=(0.0, 1.0), kind="score"
    )
    recipe = Recipe(
        probe=ProbeSpec(encoder="none", center=False), train=TrainSpec(epochs=40, batch_rows=16, learning_rate=0.1)
    )
    (trained,) = train_all([member_config(recipe, found, corpus)])
    untrained = predictions(token_probe(found), found, splits["validation"])[0]
    before = np.corrcoef(untrained, splits["validation"].targets)[0, 1]
    assert trained.history.best_value > before + 0.15


@pytest.mark.parametrize("more", [["probe.encoder=linear"], ["probe.encoder=mlp", "probe.code=0.5", "probe.mixer=mlp"]])
def test_a_run_on_tokens_predicts_what_it_said(more, tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs("plan.views=tokens", "plan.layers=-2..-1", *bench.of_other_texts(*more))
    settings += ["corpus.target=score", "plan.stored_dtype=float32"]
    (tmp_path / "own.toml").write_text("")
    done = api.run(str(tmp_path / "own.toml"), settings, bench.runs)

    table = pd.read_csv(done.path / "predictions.csv")
    items = list(zip(table["sentence1"], table["sentence2"], strict=True))
    said = [answer["score"] for answer in api.load(done.path).predict(items)]
    np.testing.assert_allclose(said, table["score"], atol=1e-4)


def test_tokens_are_read_alone(tiny, tmp_path):
    bench = Bench(tmp_path, tiny("bert"))
    with pytest.raises(
        SpecError, match=r"the view tokens cannot be combined with other views; set probe\.inputs to one"
    ):
        api.run("pairs", bench.of_pairs("plan.views=tokens,mean", "probe.inputs=tokens,mean"), bench.runs)


MEMBERS = [(0, 1, 2), (1, 2), (2,), (0, 2)]
SAME_SIZE = [(0, 1), (1, 2), (0, 2)]
MIXERS = ["last", "softmax", "concat", "attention", "self_attention", "unified"]
ENCODERS = {"none": {"encoder": "none"}, "linear": {"encoder": "linear"}, "mlp": {"encoder": "mlp", "norm": True}}
SPECS = [*itertools.product(["none", *CONTEXTS], ["none"], ["softmax"])]
SPECS += [
    *itertools.product(["none"], ENCODERS, MIXERS),
    ("bilstm", "mlp", "concat"),
    ("transformer", "linear", "last"),
]
EVERY = pytest.mark.parametrize(("context", "encoder", "mixer"), dict.fromkeys(SPECS))


def singles(context: str, encoder: str, mixer: str, dropout: float = 0.0) -> list[TokenProbe]:
    """Probes of one member each that have left their starting points, for three layers."""
    spec = ProbeSpec(**ENCODERS[encoder], context=context, context_width=6, mixer=mixer, dropout=dropout, noise=dropout)
    made = []
    for seed, layers in enumerate(SAME_SIZE if mixer == "concat" else MEMBERS):
        torch.manual_seed(seed)
        probe = moved(TagProbe(spec, layout_for(spec, [layers], (WIDTH,) * 3, True), 5), seed=seed)
        probe.set_normalization(torch.full((3, 1, WIDTH), 0.2), torch.tensor([0.5, 1.0, 1.5]).view(3, 1, 1))
        made.append(probe.eval())
    return made


def say(probe: TokenProbe, found: TokenInputs, windows: Sequence[int] = (0, 5, 3, 5)) -> torch.Tensor:
    reads = shared_reads(probe.layout)
    return probe(found.ragged(reads, np.array(windows)), reads)


@EVERY
def test_members_that_score_tokens_beside_each_other_say_what_each_says_alone(context, encoder, mixer):
    found, probes = token_inputs(3), singles(context, encoder, mixer)
    said = say(stack(probes).eval(), found)
    assert said.shape == (len(probes), sum(len(text(found, 0, at)) for at in (0, 5, 3, 5)), 5)
    for member, probe in enumerate(probes):
        torch.testing.assert_close(said[member], say(probe, found)[0], rtol=1e-5, atol=1e-5)


@EVERY
def test_members_that_score_tokens_are_whole_in_their_state(context, encoder, mixer):
    probes = singles(context, encoder, mixer)
    together = stack(probes)
    for member, probe in enumerate(probes):
        again = unstack(together, member)
        assert again.layout == probe.layout
        assert again.state_dict().keys() == probe.state_dict().keys()
        for name, value in probe.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    fresh = together.rebuild(together.layout)
    fresh.load_members(together.layer_states(), together.member_states())
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in together.state_dict().items())


@EVERY
def test_every_parameter_of_a_token_probe_belongs_to_a_member_part_by_part(context, encoder, mixer):
    together = stack(singles(context, encoder, mixer))
    member_of = together.member_of()
    assert member_of.keys() == {name for name, _ in together.named_parameters()}
    say(together, token_inputs(3))[1].square().sum().backward()
    for name, part in together.named_parameters():
        assert len(member_of[name]) == len(part), name
        learns = (part.grad.reshape(len(part), -1) != 0).any(1) if part.grad is not None else torch.zeros(len(part))
        assert learns[member_of[name] != 1].sum() == 0, name
        assert member_of[name].unique().tolist() == (
            [int(name.split(".")[1])] if name.startswith("head.") else [*range(len(together.head))]
        )


@pytest.mark.parametrize("context", ["none", *CONTEXTS])
def test_what_is_dropped_of_a_member_is_drawn_by_its_own_generator(context):
    found, probes = token_inputs(3), singles(context, "linear", "softmax", dropout=0.4)
    together = stack(probes).train()
    assert sum(isinstance(part, Dropout) for part in together.head[0].modules()) >= (context != "none") + 1
    seeds = [7, 8, 9, 10]
    together.seed(seeds)
    said = say(together, found)
    again = say(together, found)
    assert not torch.equal(said, again)  # drawn anew every time
    for member, (probe, seed) in enumerate(zip(probes, seeds, strict=True)):
        probe.train().seed([seed])
        torch.testing.assert_close(say(probe, found)[0], said[member], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(say(probe, found)[0], again[member], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", ["none", *CONTEXTS])
def test_a_text_is_scored_the_same_whatever_lies_beside_it(context):
    found = token_inputs(3)
    for probe in singles(context, "linear", "softmax"):
        own = len(text(found, 0, 5))
        before = say(probe, found, [5])[0]
        for windows in ([5, 0], [5, 0, 1, 2, 3, 4], [5, 5]):
            torch.testing.assert_close(say(probe, found, windows)[0, :own], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("made", "kind"), [(tagged, TagProbe), (answered, SpanProbe)])
@pytest.mark.parametrize("context", ["none", *CONTEXTS])
def test_a_seed_ends_the_same_to_the_bit_whatever_trained_before_it(context, made, kind):
    found, corpus = made()
    spec = ProbeSpec(encoder="linear", context=context, context_width=6, dropout=0.2)
    recipe = Recipe(probe=spec, train=TrainSpec(epochs=2, batch_rows=8, learning_rate=0.01))
    first, other, again = train_all([member_config(recipe, found, corpus, seed) for seed in (3, 4, 3)])
    assert type(first.probe) is kind
    assert first.history == again.history
    assert first.history != other.history
    for name, value in first.probe.state_dict().items():
        assert torch.equal(again.probe.state_dict()[name], value), name
    said = predictions(stack([first.probe, other.probe]).eval(), found, corpus.split("validation"))
    apart = [predictions(one.probe, found, corpus.split("validation"))[0] for one in (first, other)]
    np.testing.assert_allclose(said, apart, rtol=1e-4, atol=1e-4)


def test_tokens_are_centred_and_scaled_by_the_moments_of_tokens():
    found, corpus = tagged()
    (trained,) = train_all([member_config(Recipe(train=TrainSpec(epochs=1)), found, corpus)])
    texts = np.unique(corpus.split("train").texts)
    mean, spread = found.moments(texts, True, "layer", by_token=True)
    torch.testing.assert_close(trained.probe.center, mean)
    torch.testing.assert_close(trained.probe.scale, spread)
