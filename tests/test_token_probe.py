"""A probe that reads tokens pools them by attention: the mean at the start, never what is beyond a text's end."""

import numpy as np
import pandas as pd
import pytest
import torch
from bench import Bench
from synthetic import moved

import pipeline
from data.corpus import Corpus, Rows
from data.spec import SpecError
from probes.experiment import Member, predictions, train_members
from probes.heads import TokenPooling
from probes.inputs import Column, Inputs, sides_of, tokens_of
from probes.probe import ProbeSpec, ScoreProbe, alone, beside, seats_for
from probes.reading import both_sides, reading
from probes.recipe import Recipe
from probes.siamese import cosines
from probes.train import TrainSpec

WIDTH, TEXTS = 8, 200


def token_inputs(layers: int = 2, seed: int = 0) -> Inputs:
    """Texts of one to six tokens."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 7, TEXTS))])
    values = torch.from_numpy(rng.normal(size=(layers, offsets[-1], WIDTH)).astype(np.float32))
    columns = tuple(Column("", "tokens", layer) for layer in range(layers))
    return Inputs(values, columns, (WIDTH,) * layers, offsets)


def text(found: Inputs, layer: int, number: int) -> torch.Tensor:
    return found.values[layer, found.offsets[number] : found.offsets[number + 1]]


def token_probe(found: Inputs, spec: ProbeSpec | None = None) -> ScoreProbe:
    spec = spec or ProbeSpec(encoder="none")
    return ScoreProbe(spec, seats_for(spec, [tuple(range(len(found.columns)))], found.widths, tokens=True))


def test_tokens_of_texts_are_fetched_with_what_is_real_of_them():
    found = token_inputs()
    read = tokens_of(found.values, found.offsets, np.array([3, 0, 3]))
    for row, number in enumerate((3, 0, 3)):
        for layer in range(2):
            assert torch.equal(read.values[layer, row, read.real[row]], text(found, layer, number))


def test_pooling_starts_at_the_mean_and_never_reads_beyond_the_end():
    found = token_inputs()
    pooling = TokenPooling(token_probe(found).seats)
    read = tokens_of(found.values, found.offsets, np.arange(5))
    expected = torch.stack([torch.stack([text(found, layer, n).mean(0) for n in range(5)]) for layer in range(2)])
    torch.testing.assert_close(pooling(*read), expected)
    moved(pooling)
    before = pooling(*read)
    read.values[:, ~read.real] = float("nan")
    torch.testing.assert_close(pooling(*read), before)


def test_pooling_weighs_tokens_by_softmax_of_query_and_state():
    found = token_inputs(layers=1)
    pooling = moved(TokenPooling(token_probe(found).seats))
    states = text(found, 0, 4)
    weights = torch.softmax(states @ pooling.query.detach().flatten() / WIDTH**0.5, 0)
    made = pooling(*tokens_of(found.values, found.offsets, np.array([4, 1])))
    torch.testing.assert_close(made[0, 0], weights @ states)


def test_a_layer_is_pooled_by_its_own_query_alone():
    found = token_inputs()
    pooling = moved(TokenPooling(token_probe(found).seats))
    read = tokens_of(found.values, found.offsets, np.arange(9))
    before = pooling(*read)
    read.values[0] += 1
    after = pooling(*read)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_two_sides_of_other_lengths_become_one():
    found = token_inputs()
    sides = [tokens_of(found.values, found.offsets, np.array(texts)) for texts in ([0], [1, 2])]
    pooling = moved(TokenPooling(token_probe(found).seats))
    apart = torch.cat([pooling(*side) for side in sides], 1)
    torch.testing.assert_close(pooling(*both_sides(*sides)), apart)


def test_untrained_tokens_are_compared_by_their_means():
    found = token_inputs()
    probe, sides = token_probe(found), np.arange(20).reshape(10, 2)
    how = reading(probe.seats)
    said = probe(sides_of(found, how, sides[None]), how)[0]
    means = [torch.stack([found.pooled(layer, column) for layer in range(2)]) for column in sides.T]
    torch.testing.assert_close(said, cosines(*means).mean(0))


def test_members_beside_each_other_and_alone_again_keep_their_queries():
    found = token_inputs()
    probes = [moved(token_probe(found), seed=seed) for seed in (1, 2)]
    together = beside(probes)
    for member, probe in enumerate(probes):
        single = alone(together, member)
        assert all(torch.equal(single.state_dict()[name], value) for name, value in probe.state_dict().items())


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_seeds_that_read_tokens_answer_each_for_itself(layers):
    found = token_inputs()
    rows = Rows(np.arange(20).reshape(10, 2), np.zeros(10))
    singles = [
        moved(ScoreProbe(ProbeSpec(), seats_for(ProbeSpec(), [layers], found.widths, True)), seed=n) for n in range(3)
    ]
    with torch.inference_mode():
        said = predictions(beside(singles), found, rows)
        apart = np.concatenate([predictions(single, found, rows) for single in singles])
    np.testing.assert_array_equal(said, apart)
    assert np.ptp(said, axis=0).min() > 0


def test_several_seeds_and_their_average_run_on_tokens(tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    for average in ("false", "true"):
        more = [f"train.average={average}", "train.seeds=0,1", "train.epochs=2", "plan.layers=1,2"]
        done = pipeline.run("pairs", bench.of_pairs("plan.views=tokens", *more), bench.runs, only=["linear"])
        table = pd.read_csv(done.path / "predictions.csv")
        items = list(zip(table["sentence1"], table["sentence2"], strict=True))[:15]
        said = [answer["score"] for answer in pipeline.load(done.path).predict(items)]
        assert len(said) == 15
        if average == "true":
            np.testing.assert_allclose(said, table["score"][:15], atol=2e-3)  # stored in float16


def test_a_probe_learns_which_token_tells():
    """The score is the cosine of the tokens whose first number is large; the mean of all tokens hardly shows it."""
    found = token_inputs(layers=1)
    rng = np.random.default_rng(1)
    telling = []
    for number in range(TEXTS):
        states = text(found, 0, number)
        states[:, 0] = 0
        at = rng.integers(len(states))
        states[at, 0] = 3
        telling.append(states[at])
    sides = np.arange(TEXTS).reshape(-1, 2)
    scores = cosines(*(torch.stack([telling[n] for n in column]) for column in sides.T)).double().numpy() / 2 + 0.5
    splits = {"train": Rows(sides[:70], scores[:70]), "validation": Rows(sides[70:], scores[70:])}
    corpus = Corpus("toy", tuple(map(str, range(TEXTS))), splits, (), (0.0, 1.0), "score")
    recipe = Recipe(
        probe=ProbeSpec(encoder="none", center=False), train=TrainSpec(epochs=40, batch_rows=16, learning_rate=0.1)
    )
    (trained,) = train_members([Member("toy", recipe, found, (0,), 0)], corpus)
    untrained = predictions(token_probe(found), found, splits["validation"])[0]
    before = np.corrcoef(untrained, splits["validation"].targets)[0, 1]
    assert trained.fitted.best_value > before + 0.15


@pytest.mark.parametrize("more", [["probe.encoder=linear"], ["probe.encoder=mlp", "probe.code=0.5", "probe.mixer=mlp"]])
def test_a_run_on_tokens_predicts_what_it_said(more, tiny, tmp_path, quick):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs("plan.views=tokens", "plan.layers=-2..-1", *bench.of_other_texts(*more))
    settings += ["corpus.target=score", "plan.stored_dtype=float32"]
    (tmp_path / "own.toml").write_text("")
    done = pipeline.run(str(tmp_path / "own.toml"), settings, bench.runs)

    table = pd.read_csv(done.path / "predictions.csv")
    items = list(zip(table["sentence1"], table["sentence2"], strict=True))
    said = [answer["score"] for answer in pipeline.load(done.path).predict(items)]
    np.testing.assert_allclose(said, table["score"], atol=1e-4)


def test_tokens_are_read_alone(tiny, tmp_path):
    bench = Bench(tmp_path, tiny("bert"))
    with pytest.raises(SpecError, match="tokens are read alone"):
        pipeline.run("pairs", bench.of_pairs("plan.views=tokens,mean", "probe.inputs=tokens,mean"), bench.runs)
