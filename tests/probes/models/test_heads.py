"""Mixers and heads against values computed by hand; what a member has no layer for never counts."""

import math

import pytest
import torch

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS, code_mixer, mixed_width
from permafrost.probes.models.sentence_probes import ACTIVATIONS, FeatureProbe
from permafrost.probes.models.shared_reads import MemberLayout
from tests.support.synthetic import layout, moved

TWO = layout([(0, 1)], (2, 2))
ODD = layout([(0, 1, 2), (1,), (0, 2)], (4, 4, 4))
EVERY = [*MIXERS, *CODE_MIXERS]


def fill(parameter: torch.Tensor, values: object) -> None:
    """Set a parameter to what broadcasts to it."""
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values).expand_as(parameter))


def last() -> tuple[torch.Tensor, torch.Tensor]:
    return MIXERS["last"](TWO)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])), torch.tensor([[3.0, 4.0]])


def softmax() -> tuple[torch.Tensor, torch.Tensor]:
    mixer = MIXERS["softmax"](TWO)
    fill(mixer.logits, [[0.0, math.log(3)]])  # weights 1/4 and 3/4
    return mixer(torch.tensor([[[1.0, 2.0], [5.0, 6.0]]])), torch.tensor([[4.0, 5.0]])


def mlp() -> tuple[torch.Tensor, torch.Tensor]:
    mixer = MIXERS["mlp"](TWO)
    first, _, second = mixer.network
    for part in mixer.parameters():
        fill(part, 0.0)
    fill(first.weight[0, :, 0], [1.0, 2.0])  # the only hidden unit that reads anything
    fill(first.bias[0, 0, 0], 0.5)
    fill(second.weight[0, 0], 2.0)
    fill(second.bias, -1.0)
    hidden = 0.5 + 1 * 0.25 + 2 * 0.5
    gelu = hidden * (1 + math.erf(hidden / math.sqrt(2))) / 2
    return mixer(torch.tensor([[[0.25], [0.5]]])), torch.tensor([[1 / (1 + math.exp(1 - 2 * gelu))]])


def attention() -> tuple[torch.Tensor, torch.Tensor]:
    mixer = CODE_MIXERS["attention"](TWO, 4)
    fill(mixer.query, [2.0, 0.0, 0.0, 0.0])  # scores 2 x_0 / sqrt(4): 0 and log 3, weights 1/4 and 3/4
    codes = torch.tensor([[0.0, 4.0, 0.0, 0.0], [math.log(3), 0.0, 4.0, 0.0]])
    return mixer(codes[None, :, None]), torch.tensor([[[0.75 * math.log(3), 1.0, 3.0, 0.0]]])


def self_attention() -> tuple[torch.Tensor, torch.Tensor]:
    mixer = CODE_MIXERS["self_attention"](TWO, 4)
    for part in mixer.maps:
        fill(part.weight, torch.eye(4))
        fill(part.bias, 0.0)
    a = math.sqrt(2 * math.log(3))  # the second layer's scores: 0 and a^2 / sqrt(4) = log 3, weights 1/4 and 3/4
    codes = torch.tensor([[0.0, 0.0, 0.0, 0.0], [a, 0.0, 0.0, 0.0]])
    mean = (0 + a / 2 + a + 3 * a / 4) / 2  # the first layer's weights are 1/2 and 1/2
    return mixer(codes[None, :, None]), torch.tensor([[[mean, 0.0, 0.0, 0.0]]])


def unified() -> tuple[torch.Tensor, torch.Tensor]:
    mixer = CODE_MIXERS["unified"](TWO, 1)
    fill(mixer.up, [[[[1.0, 2.0]], [[10.0, 20.0]]]])
    return mixer(torch.tensor([[[[3.0]], [[4.0]]]])), torch.tensor([[[43.0, 86.0]]])


def concat() -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    return CODE_MIXERS["concat"](TWO, 2)(codes[None, :, None]), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])


BY_HAND = {
    "last": last,
    "softmax": softmax,
    "mlp": mlp,
    "concat": concat,
    "attention": attention,
    "self_attention": self_attention,
    "unified": unified,
}


@pytest.mark.parametrize("name", EVERY)  # a new mixer without a value by hand fails here
def test_a_mixer_has_the_value_computed_by_hand(name):
    torch.testing.assert_close(*BY_HAND[name]())


@pytest.mark.parametrize("name", ["softmax", "attention"])
def test_a_weighted_mean_starts_with_equal_weights(name):
    codes = torch.randn(1, 2, 5, 2)
    torch.testing.assert_close(code_mixer(name, TWO, 2)(codes), codes.mean(1))


def mixer_of(name: str, of: MemberLayout) -> torch.nn.Module:
    """A mixer that has left its starting point."""
    return moved(MIXERS[name](of) if name in MIXERS else CODE_MIXERS[name](of, 4), 0.5)


def given(name: str) -> torch.Tensor:
    """Cosines, or codes, of every member's layers, with zeros where it has none."""
    layers = torch.randn(len(ODD.sources), 5, *([] if name in MIXERS else [4]))
    return ODD.by_member(layers)


@pytest.mark.parametrize("name", ["softmax", "mlp", "unified"])  # those with parameters of every layer
def test_what_belongs_to_layers_that_a_member_lacks_neither_counts_nor_learns(name):
    mixer, x = mixer_of(name, ODD), given(name)
    before = mixer(x)
    before.sum().backward()
    by_layer = next(mixer.parameters())
    assert by_layer.shape[:2] == ODD.mask.shape
    assert (by_layer.grad[~ODD.mask] == 0).all()
    with torch.no_grad():
        by_layer[~ODD.mask] += 7
    torch.testing.assert_close(mixer(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_a_member_among_others_is_mixed_as_it_is_alone(name):
    mixer, x = mixer_of(name, ODD), given(name)
    for member, layers in enumerate(ODD.members):
        single = mixer_of(name, layout([layers], ODD.input_widths))
        with torch.no_grad():
            for own, shared in zip(single.parameters(), mixer.parameters(), strict=True):
                own.copy_(shared[member, : own.shape[1]] if own.dim() > 1 else shared[member])
        alone, mixed = single(x[member : member + 1, : len(layers)])[0], mixer(x)[member]
        torch.testing.assert_close(mixed[..., : alone.shape[-1]], alone)
        assert (mixed[..., alone.shape[-1] :] == 0).all()  # concat: the places of layers that it lacks come last


def test_concat_lays_the_codes_of_each_row_side_by_side_layer_by_layer():
    x = torch.randn(3, 4, 5, 2)
    mixed = code_mixer("concat", layout(), 2)(x)
    for member in range(3):
        for row in range(5):
            assert mixed[member, row].tolist() == [n for layer in range(4) for n in x[member, layer, row].tolist()]


@pytest.mark.parametrize("name", EVERY)
def test_the_width_of_what_is_mixed_is_told_beforehand(name):
    codes = torch.randn(3, 3, 5, 2)
    if name != "mlp":
        assert code_mixer(name, ODD, 2)(codes).shape == (3, 5, mixed_width(name, ODD, 2))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "last"])
def test_the_loss_of_one_member_sends_no_gradient_into_another(name):
    mixer, x = mixer_of(name, ODD), given(name).requires_grad_()
    mixer(x)[2].square().sum().backward()
    for gradient in [x.grad, *(part.grad for part in mixer.parameters())]:
        assert (gradient != 0).flatten(1).any(1).tolist() == [False, False, True]


def test_the_last_layer_is_each_members_own():
    x = ODD.by_member(torch.arange(6.0)[:, None])
    assert MIXERS["last"](ODD)(x).flatten().tolist() == [2, 3, 5]


def test_a_linear_head_has_the_value_computed_by_hand():
    spec = ProbeSpec(encoder="none", mixer="last", hidden=0, dropout=0.5)
    head = FeatureProbe(spec, layout([(0,)], (2,)), 1, 2).head.eval()
    fill(head[1].weight, [[[1.0, 0.0], [2.0, -1.0]]])
    fill(head[1].bias, [[[0.5, 0.0]]])
    assert head(torch.tensor([[[3.0, 4.0]]])).tolist() == [[[11.5, -4.0]]]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_head_with_a_hidden_layer_equals_torchs_own(activation):
    spec = ProbeSpec(encoder="none", mixer="last", hidden=5, dropout=0.5, activation=activation)
    head = FeatureProbe(spec, layout([(0,), (0,)], (3,)), 1, 2).head
    x, act = torch.randn(2, 7, 3), getattr(torch.nn.functional, activation)
    moved(head).eval()
    for member in range(2):
        (w1, b1), (w2, b2) = ((head[at].weight[member], head[at].bias[member]) for at in (1, 4))
        torch.testing.assert_close(head(x)[member], act(x[member] @ w1 + b1) @ w2 + b2)
