"""Pretraining: what it learns, layer by layer; that training starts from it; that it is done once; what it refuses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder, pretrain
from permafrost.probes.variants import train_variant
from permafrost.probes.variants.members import MemberConfig, initial_probe
from permafrost.probes.variants.workspace import Workspace
from tests.support.bench import pairs, write
from tests.support.marks import slow_but_first
from tests.support.synthetic import EVEN, RAGGED, Shelf, classed, inputs, latents, scored, sentences
from tests.support.trainings import member_config, train_all

TRAIN = TrainSpec(epochs=40, batch_rows=16, learning_rate=0.02)
AUTO, CLASSES = PretrainingSpec(task="autoencoder", train=TRAIN), PretrainingSpec(task="classes", train=TRAIN)
SHORT = replace(TRAIN, epochs=3)
UNIFIED = ProbeSpec(mixer="unified", code=(0.5,), start="random")


def of_low_rank(widths=EVEN, rank: int = 2, texts: int = 300) -> ProbeInputs:
    """Latents of a few dimensions, the same ones behind every layer."""
    generator = torch.Generator().manual_seed(5)
    behind = torch.randn(texts, rank, generator=generator)
    found = inputs(widths, texts)
    for layer, width in enumerate(widths):
        found.values[layer, :, :width] = behind @ torch.randn(rank, width, generator=generator) + 3
    return found


def pretrained(
    spec: PretrainingSpec, probe: ProbeSpec, found: ProbeInputs, corpus: Corpus | None = None, seed: int = 0
) -> PretrainedEncoder:
    """Pretrain a probe that is to score pairs of the same texts."""
    member = member_config(Recipe(probe=probe), found, scored(found), seed)
    return pretrain(initial_probe(member), spec, corpus or sentences(found), found, seed)


def same_layers(first: PretrainedEncoder, second: PretrainedEncoder) -> list[bool]:
    """For each layer, whether two pretrained encoders are the same to the bit."""
    assert [one.keys() for one in first.by_layer] == [two.keys() for two in second.by_layer]
    pairs = zip(first.by_layer, second.by_layer, strict=True)
    return [all(torch.equal(one[name], two[name]) for name in one) for one, two in pairs]


@pytest.mark.parametrize("widths", [RAGGED, pytest.param(EVEN, marks=pytest.mark.slow)], ids=["ragged", "even"])
@pytest.mark.parametrize(
    "spec", slow_but_first([ProbeSpec(encoder="mlp", code=(0.5,)), ProbeSpec(code=(0.5,))]), ids=["mlp", "linear"]
)
def test_latents_of_low_rank_are_rebuilt_from_as_narrow_a_code(spec, widths):
    found = pretrained(AUTO, spec, of_low_rank(widths))
    assert len(found.layers) == len(found.histories) == 4
    assert max(layer.unexplained for layer in found.layers) < 0.05
    assert [layer.layer for layer in found.layers] == [0, 1, 2, 3]
    for layer, fitted in zip(found.layers, found.histories, strict=True):
        assert 1 - layer.unexplained == pytest.approx(fitted.best_value, abs=1e-5)
        assert fitted.losses[-1] < fitted.losses[0] / 2


def test_latents_of_full_rank_are_not():
    found = pretrained(AUTO, ProbeSpec(code=(0.25,)), inputs(texts=300))
    assert min(layer.unexplained for layer in found.layers) > 0.5  # two of eight equal dimensions


def test_the_loss_is_in_the_units_of_the_latents():
    small = of_low_rank()
    large = replace(small, values=10 * small.values)
    first, second = (pretrained(replace(AUTO, train=SHORT), ProbeSpec(code=(0.25,)), found) for found in (small, large))
    for one, other in zip(first.layers, second.layers, strict=True):
        assert other.unexplained == pytest.approx(one.unexplained, rel=1e-3)
        assert other.loss == pytest.approx(100 * one.loss, rel=1e-3)
        assert other.norm == pytest.approx(10 * one.norm, rel=1e-3)


@pytest.mark.parametrize("mixer", ["softmax", "attention"])
def test_a_layer_full_of_other_latents_changes_the_autoencoder_of_that_layer_only(mixer):
    found, spec = of_low_rank(), ProbeSpec(encoder="mlp", norm=True, code=(0.5,), mixer=mixer)
    other = replace(found, values=found.values.clone())
    other.values[2] = 100 * latents(texts=300, seed=9)[2]
    first, second = (pretrained(replace(AUTO, train=SHORT), spec, one) for one in (found, other))
    assert same_layers(first, second) == [True, True, False, True]
    assert [one == two for one, two in zip(first.layers, second.layers, strict=True)] == [True, True, False, True]
    assert [one == two for one, two in zip(first.histories, second.histories, strict=True)] == [True, True, False, True]


def test_the_unified_autoencoder_learns_and_keeps_its_mixer():
    found = pretrained(AUTO, UNIFIED, of_low_rank())
    assert np.mean([layer.unexplained for layer in found.layers]) < 0.05
    assert len(found.histories) == 1
    assert set(found.mixer) == {"mixer.up"}


def test_the_classes_of_pairs_are_told_beyond_chance_where_a_layer_holds_them():
    found = inputs(texts=400)
    result = pretrained(CLASSES, ProbeSpec(), found, classed(found, layer=1))
    assert len(result.histories) == 4
    assert result.histories[1].best_value > 0.7  # chance is one third
    assert max(result.histories[layer].best_value for layer in (0, 2, 3)) < 0.5
    assert result.layers == []


@pytest.mark.parametrize("spec", [AUTO, CLASSES], ids=["autoencoder", "classes"])
@pytest.mark.parametrize(
    "probe",
    [
        ProbeSpec(code=(0.25, 0.5)),
        ProbeSpec(encoder="lowrank", rank=2),
        ProbeSpec(encoder="mlp", noise=0.1),
        ProbeSpec(encoder="mlp", dropout=0.2),
        ProbeSpec(encoder="mlp", code=(0.25, 0.5), dropout=0.2),
        UNIFIED,
    ],
    ids=["linear", "lowrank", "mlp with noise", "mlp with dropout", "halves with dropout", "unified"],
)
def test_the_same_seed_pretrains_the_same_to_the_bit_whatever_was_drawn_before(probe, spec):
    found = inputs(texts=100)
    corpus = classed(found) if spec is CLASSES else sentences(found)
    short = replace(spec, train=SHORT)
    torch.manual_seed(1)
    first = pretrained(short, probe, found, corpus)
    torch.manual_seed(2)
    second = pretrained(short, probe, found, corpus)
    assert first.histories == second.histories
    assert first.layers == second.layers
    assert all(same_layers(first, second))
    for name, value in first.mixer.items():
        assert torch.equal(value, second.mixer[name]), name
    assert pretrained(short, probe, found, corpus, seed=1).histories != first.histories


@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (1, 3)])
@pytest.mark.parametrize("probe", [ProbeSpec(encoder="mlp"), UNIFIED], ids=["mlp", "unified"])
def test_training_starts_from_the_pretrained_state_of_the_layers_that_it_reads(probe, layers):
    found = inputs()
    result = pretrained(replace(AUTO, train=SHORT), probe, found)
    member = member_config(Recipe(probe=probe), found, scored(found), layers=layers)
    plain, begun = initial_probe(member), initial_probe(replace(member, pretrained=result))
    for layer, own in zip(layers, begun.layer_states(), strict=True):
        for name, value in own.items():
            assert torch.equal(value, result.by_layer[layer][name]), name
    if probe is UNIFIED:
        assert torch.equal(begun.mixer.up[0], result.mixer["mixer.up"][list(layers)])
    else:
        assert result.mixer == {}
        assert torch.equal(begun.mixer.logits, plain.mixer.logits)
    for name, value in begun.state_dict().items():
        learnt = name.startswith("encoder.") or name == "mixer.up"
        assert learnt != torch.equal(value, plain.state_dict()[name]), name


def test_a_pretrained_member_trains_on_and_leaves_what_was_pretrained_alone():
    found = inputs()
    result = pretrained(replace(AUTO, train=SHORT), ProbeSpec(encoder="mlp"), found)
    kept = replace(result, by_layer=[{name: value.clone() for name, value in one.items()} for one in result.by_layer])
    recipe = Recipe(probe=ProbeSpec(encoder="mlp"), train=SHORT)
    member = member_config(recipe, found, scored(found))
    with_it, without = train_all([replace(member, pretrained=one) for one in (result, None)])
    assert with_it.config.pretrained is result
    assert with_it.history.losses != without.history.losses
    assert all(same_layers(result, kept))


@pytest.mark.parametrize("spec", [AUTO, CLASSES], ids=["autoencoder", "classes"])
def test_an_encoder_without_weights_is_refused(spec):
    found = inputs()
    with pytest.raises(SpecError, match=r"pretraining needs an encoder with weights; set probe\.encoder to linear"):
        pretrained(spec, ProbeSpec(encoder="none"), found, classed(found))


@pytest.mark.parametrize(
    "corpus", [scored, sentences, lambda found: classed(found, sides=1)], ids=["scores", "sentences", "one text"]
)
def test_classes_need_labelled_pairs(corpus):
    found = inputs()
    with pytest.raises(CorpusError, match=r"pretraining\.task = 'classes' needs pairs of texts with a class, as snli"):
        pretrained(CLASSES, ProbeSpec(), found, corpus(found))


def test_a_corpus_that_is_too_small_for_an_autoencoder_is_refused():
    found = inputs()
    two = replace(sentences(found), splits={"train": Rows(np.array([[0], [1]]), np.zeros(2))})
    with pytest.raises(CorpusError, match="sentences: 2 sentences are too few to pretrain an autoencoder on"):
        pretrained(AUTO, ProbeSpec(), found, two)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_share_held_out_that_is_none_is_refused(share):
    with pytest.raises(SpecError, match="held_out must be in"):
        PretrainingSpec(held_out=share)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Scored pairs, and other pairs to pretrain on."""
    specs = []
    for name, seed in (("task", 0), ("other", 7)):
        path = write(tmp_path / f"{name}.csv", ["first", "second", "score", "split"], pairs(seed))
        specs.append(CorpusSpec(path=str(path), columns=("first", "second", "score"), target="score"))
    task, other = specs
    texts = replace(other, columns=("first",), target="none")
    short = TrainSpec(epochs=1)
    return Recipe(
        corpus=task,
        train=short,
        probe=ProbeSpec(code=(0.5,)),
        pretraining=PretrainingSpec(task="autoencoder", corpus=texts, train=short),
    )


@pytest.fixture
def done(monkeypatch) -> list[tuple[PretrainingSpec, int]]:
    """What is pretrained with which seed, as it happens."""
    seen: list[tuple[PretrainingSpec, int]] = []

    def counted(probe, spec, corpus, inputs, seed, *more):
        seen.append((spec, seed))
        return pretrain(probe, spec, corpus, inputs, seed, *more)

    monkeypatch.setattr(train_variant, "pretrain", counted)
    return seen


def conducted(recipes: list[Recipe]) -> list[list[MemberConfig]]:
    """The members of every recipe, from made-up latents of three layers."""
    workspace = Workspace(
        SimpleNamespace(
            latents=lambda *_: PlanLatents(
                store=Shelf(), columns={"mean": (0, 1, 2), "max": (0, 1, 2)}, texts_run=0, truncated=0, seconds=0.0
            )
        ),
        NoProgress(),
    )
    workspace.prepare(recipes)
    return [train_variant.member_configs("toy", recipe, workspace, recipe.train.seeds)[PROBE] for recipe in recipes]


def test_variants_that_share_a_pretraining_do_it_once_for_each_seed(recipe, done):
    seeds = replace(recipe.train, seeds=(0, 1))
    recipes = [
        replace(recipe, train=seeds),
        replace(recipe, train=replace(seeds, loss="mse", epochs=2)),
        replace(recipe, train=seeds, probe=replace(recipe.probe, mixer="attention")),
    ]
    found = conducted(recipes)
    assert [seed for _, seed in done] == [0, 1]
    for members in found:
        assert members[0].pretrained is found[0][0].pretrained
        assert members[1].pretrained is found[0][1].pretrained
        assert members[0].pretrained is not members[1].pretrained


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, probe=replace(one.probe, code=(0.25,))),
        lambda one: replace(one, probe=replace(one.probe, encoder="mlp")),
        lambda one: replace(one, probe=replace(one.probe, layers="-1")),
        lambda one: replace(one, probe=replace(one.probe, center=False)),
        lambda one: replace(one, probe=replace(one.probe, mixer="unified")),
        lambda one: replace(one, plan=replace(one.plan, views=("max",))),
        lambda one: replace(one, plan=replace(one.plan, template="the {text}")),
        lambda one: replace(one, pretraining=replace(one.pretraining, held_out=0.3)),
        lambda one: replace(one, corpus=replace(one.corpus, limit=20)),
    ],
    ids=["code", "encoder", "layers", "centre", "unified", "view", "template", "held out", "corpus"],
)
def test_variants_that_differ_in_what_is_pretrained_do_it_each(change, recipe, done):
    conducted([recipe, change(recipe)])
    assert len(done) == 2


def test_without_pretraining_none_is_done_and_its_corpus_is_not_read(recipe, done):
    plain = replace(recipe, pretraining=replace(recipe.pretraining, task="none", corpus=CorpusSpec(path="/absent.csv")))
    (members,) = conducted([plain])
    assert [member.pretrained for member in members] == [None]
    assert done == []


@pytest.mark.parametrize("setting", [{"seeds": (1,)}, {"loss": "mse"}, {"metric": "pearson"}, {"average": True}])
def test_a_setting_that_has_no_say_in_pretraining_is_refused(setting):
    with pytest.raises(SpecError, match=f"train.{next(iter(setting))} has no effect on pretraining"):
        PretrainingSpec(train=TrainSpec(**setting))
