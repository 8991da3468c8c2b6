"""Heads from outside: side by side as alone, saved and loaded whole, and refused where they could not be."""

import pytest
import torch
from torch import nn

from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Head, Loss
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.probe import stack, unstack
from permafrost.probes.variants.members import initial_probe
from tests.support.synthetic import classed, inputs, labelled, say, scored
from tests.support.trainings import member_config, train_all

TRAIN = TrainSpec(epochs=3, batch_rows=8, learning_rate=0.01)


class Network(nn.Module):
    """Dropout, tied weights, a single number and a constant: all that is hard to keep apart."""

    def __init__(self, inputs, outputs, width=6, dropout=0.3):
        super().__init__()
        self.first, self.again = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.again.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("constant", torch.rand(width))
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x):
        return self.out(self.dropout(torch.relu(self.first(x)) * self.again(x) + self.constant) * self.scale)


@pytest.fixture
def network(registered):
    registered("network", Head(Network, targets=["score", "class", "labels"]))
    return ProbeSpec(encoder="linear", head="network", head_options={"width": 5})


@pytest.mark.parametrize("corpus_of", [classed, labelled, scored], ids=["class", "labels", "score"])
def test_members_side_by_side_end_as_alone(corpus_of, network):
    found = inputs()
    corpus, recipe = corpus_of(found), Recipe(probe=network, train=TRAIN)
    configs = [member_config(recipe, found, corpus, seed, layers) for layers, seed in [((0, 1, 2, 3), 0), ((1, 3), 1)]]
    together = train_all(configs)
    for config, beside in zip(configs, together, strict=True):
        (alone,) = train_all([config])
        assert beside.history.losses == pytest.approx(alone.history.losses, rel=1e-4, abs=1e-5)
        for name, value in alone.probe.state_dict().items():
            torch.testing.assert_close(beside.probe.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_linear_head_from_outside_is_trained_as_ours(registered):
    class Ours(nn.Module):
        """Starts as :class:`LayerwiseLinear` does, from the same numbers."""

        def __init__(self, inputs, outputs):
            super().__init__()
            bound = inputs**-0.5
            self.weight = nn.Parameter(torch.empty(1, inputs, outputs).uniform_(-bound, bound)[0])
            self.bias = nn.Parameter(torch.empty(1, 1, outputs).uniform_(-bound, bound)[0, 0])

        def forward(self, x):
            return x @ self.weight + self.bias

    registered("ours", Head(Ours, targets=["class"]))
    registered("theirs", Loss(nn.functional.cross_entropy, targets=["class"]))
    found = inputs()
    recipes = {
        head: Recipe(probe=ProbeSpec(head=head, dropout=0.2), train=TrainSpec(epochs=3, batch_rows=8, loss=loss))
        for head, loss in [("classes", "auto"), ("ours", "theirs")]
    }
    trained = [train_all([member_config(recipe, found, classed(found))])[0] for recipe in recipes.values()]
    assert trained[0].history.losses == pytest.approx(trained[1].history.losses, rel=1e-5)
    assert trained[0].history.values == pytest.approx(trained[1].history.values)


def test_a_state_goes_from_member_to_stack_and_back(network):
    found = inputs()
    recipe = Recipe(probe=network)
    singles = [initial_probe(member_config(recipe, found, classed(found), seed)).eval() for seed in (0, 1, 2)]
    sides = [found.values[:, :10], found.values[:, 10:20]]
    together = stack(singles).eval()
    for index, single in enumerate(singles):
        torch.testing.assert_close(say(together, sides)[index], say(single, sides)[0])
        torch.testing.assert_close(say(unstack(together, index).eval(), sides)[0], say(single, sides)[0])
    assert not torch.allclose(*say(together, sides)[:2])
    with torch.device("meta"):
        empty = together.rebuild(together.layout)
    empty.load_state_dict(together.state_dict(), assign=True)
    assert torch.equal(say(empty.eval(), sides), say(together, sides))


class Batched(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))


class Unsaved(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(1), persistent=False)


class Loose(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.scale = torch.rand(outputs)


class Orthogonal(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        nn.init.orthogonal_(self.weight)
        self.norm = self.weight.norm().item()


def test_a_head_that_computes_with_its_weights_is_loaded(registered):
    registered("computing", Head(Orthogonal, targets=["class"]))
    found = inputs()
    probe = initial_probe(member_config(Recipe(probe=ProbeSpec(head="computing")), found, classed(found)))
    with torch.device("meta"):
        empty = probe.rebuild(probe.layout)
    assert {name: value.shape for name, value in empty.state_dict().items()} == {
        name: value.shape for name, value in probe.state_dict().items()
    }


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Batched, "changes its buffer '1.num_batches_tracked' in training"),
        (Unsaved, "must save its buffer 'mask'"),
        (lambda inputs, outputs: nn.LazyLinear(outputs), "has lazy parameters"),
        (lambda inputs, outputs: torch.relu, "must build a torch.nn.Module, got"),
        (lambda inputs, outputs: nn.Linear(inputs, outputs + 1), r"must return \[row, 3\] for \[row, 32\]; of 8 rows"),
        (lambda inputs: nn.Linear(inputs, 3), "cannot be built with"),
        (lambda inputs, outputs: nn.Linear(inputs, 10 // (outputs - 3)), "cannot be built with .*ZeroDivisionError"),
        (lambda inputs, outputs: nn.Linear(7, outputs), r"fails for \[8, 32\] .*RuntimeError"),
        (lambda inputs, outputs: nn.Linear(inputs, outputs).double(), r"fails for \[8, 32\]"),
        (Loose, "holds the tensor 'scale' as an attribute"),
    ],
)
def test_what_cannot_be_a_head_is_refused(build, message, registered):
    registered("broken", Head(build, targets=["class"]))
    found = inputs()
    recipe = Recipe(probe=ProbeSpec(head="broken"), train=TRAIN)
    with pytest.raises(PluginError, match=message):
        train_all([member_config(recipe, found, classed(found))])


def test_options_are_those_of_the_head(network, registered):
    found = inputs()
    recipe = Recipe(probe=ProbeSpec(head="network", head_options={"widht": 3}))
    with pytest.raises(PluginError, match=r"the head 'network' cannot be built .*probe.head_options .*widht"):
        initial_probe(member_config(recipe, found, classed(found)))
