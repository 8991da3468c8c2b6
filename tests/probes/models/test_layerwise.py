"""Layerwise networks against a loop over one small network per layer."""

import pytest
import torch
from torch import nn

from permafrost.probes.models.layerwise import (
    Dropout,
    GroupedByWidth,
    LayerwiseLinear,
    LayerwiseLowRank,
    LayerwiseNorm,
    Noise,
    mlp,
    runs,
)
from tests.support.synthetic import moved

LAYERS, ROWS, WIDTH, CODE = 4, 7, 6, 3


def drawn() -> torch.Tensor:
    return torch.randn(LAYERS, ROWS, WIDTH)


def linear_of(layerwise: LayerwiseLinear, layer: int) -> nn.Linear:
    """One layer's map as torch's own module."""
    linear = nn.Linear(*layerwise.weight.shape[1:])
    with torch.no_grad():
        linear.weight.copy_(layerwise.weight[layer].T)
        linear.bias.copy_(layerwise.bias[layer, 0])
    return linear


def norm_of(layerwise: LayerwiseNorm, layer: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(WIDTH)
    with torch.no_grad():
        norm.weight.copy_(layerwise.weight[layer, 0])
        norm.bias.copy_(layerwise.bias[layer, 0])
    return norm


def test_a_layerwise_linear_equals_a_loop_over_linear_layers():
    layerwise, x = LayerwiseLinear(LAYERS, WIDTH, CODE), drawn()
    looped = torch.stack([linear_of(layerwise, layer)(x[layer]) for layer in range(LAYERS)])
    torch.testing.assert_close(layerwise(x), looped)


def test_a_layerwise_norm_equals_a_loop_over_layer_norms():
    layerwise, x = moved(LayerwiseNorm(LAYERS, WIDTH), 0.5), drawn()
    looped = torch.stack([norm_of(layerwise, layer)(x[layer]) for layer in range(LAYERS)])
    torch.testing.assert_close(layerwise(x), looped)


def test_a_layerwise_mlp_equals_a_loop_over_mlps():
    network, x = moved(mlp(LAYERS, WIDTH, CODE, depth=3, dropout=0.5, norm=True)).eval(), drawn()
    looped = [
        nn.Sequential(
            norm_of(network[0], layer),
            linear_of(network[2], layer),
            nn.GELU(),
            linear_of(network[5], layer),
            nn.GELU(),
            linear_of(network[8], layer),
        )(x[layer])
        for layer in range(LAYERS)
    ]
    torch.testing.assert_close(network(x), torch.stack(looped))


def test_depth_one_is_a_linear_map():
    network, x = mlp(LAYERS, WIDTH, CODE, depth=1, dropout=0.0, norm=False), drawn()
    assert [type(part) for part in network] == [LayerwiseLinear]
    torch.testing.assert_close(network(x), network[0](x), rtol=0, atol=0)


def test_a_low_rank_change_equals_a_loop_and_has_the_rank_it_says():
    layerwise, x = moved(LayerwiseLowRank(LAYERS, WIDTH, rank=2)), drawn()
    looped = [x[layer] @ (torch.eye(WIDTH) + layerwise.down[layer] @ layerwise.up[layer]) for layer in range(LAYERS)]
    torch.testing.assert_close(layerwise(x), torch.stack(looped))
    change = layerwise(torch.eye(WIDTH).repeat(LAYERS, 1, 1)) - torch.eye(WIDTH)
    assert torch.linalg.matrix_rank(change, atol=1e-5).tolist() == [2] * LAYERS


def test_a_low_rank_change_starts_at_none_and_still_learns():
    layerwise, x = LayerwiseLowRank(LAYERS, WIDTH, rank=2), drawn()
    assert torch.equal(layerwise(x), x)
    layerwise(x).square().sum().backward()
    assert (layerwise.up.grad != 0).flatten(1).any(1).all()


def test_the_identity_start_is_the_identity():
    x = drawn()
    torch.testing.assert_close(LayerwiseLinear(LAYERS, WIDTH, WIDTH, "identity")(x), x, rtol=0, atol=0)


def test_a_narrow_identity_start_keeps_the_leading_dimensions():
    x = drawn()
    torch.testing.assert_close(LayerwiseLinear(LAYERS, WIDTH, CODE, "identity")(x), x[..., :CODE], rtol=0, atol=0)


def test_a_random_start_is_drawn_as_torch_draws_a_linear_layer():
    weight = LayerwiseLinear(50, 16, 50).weight
    bound = 1 / 16**0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)  # of 40,000 uniform draws
    assert nn.Linear(16, 5000).weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_consecutive_layers_that_agree_are_one_run():
    assert list(runs((8, 8, 6, 8), (4, 4, 4, 4))) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert list(runs((8, 8, 8, 8), (4, 4, 8, 8))) == [slice(0, 2), slice(2, 4)]


def test_layers_of_several_widths_read_and_write_their_own_part_only():
    widths, codes = (6, 6, 4, 2), (3, 3, 2, 1)
    module, x = GroupedByWidth(widths, codes, LayerwiseLinear), drawn()
    made = module(x)
    assert made.shape == (LAYERS, ROWS, 3)
    places = [(0, 0), (0, 1), (1, 0), (2, 0)]  # part, place in it
    for layer, (part, place) in enumerate(places):
        linear = linear_of(module.parts[part], place)
        torch.testing.assert_close(made[layer, :, : codes[layer]], linear(x[layer, :, : widths[layer]]))
        assert (made[layer, :, codes[layer] :] == 0).all()


def chance(module: Dropout | Noise, sizes: tuple[int, ...] = (LAYERS,)) -> Dropout | Noise:
    """The module with a generator per member, seeded by its number."""
    module.generators = [(torch.Generator().manual_seed(member), size) for member, size in enumerate(sizes)]
    return module


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = torch.ones(LAYERS, 100, 100)
    dropped = chance(Dropout(0.3))(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (dropped == 0).float().mean((1, 2)).tolist() == pytest.approx([0.3] * LAYERS, abs=0.02)  # 4 deviations


def test_noise_has_the_deviation_it_says():
    noise = chance(Noise(0.3))(torch.ones(LAYERS, 100, 100)) - 1
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", [Dropout, Noise])
def test_chance_acts_in_training_only_and_not_at_all_at_zero(kind):
    x = drawn()
    assert not torch.equal(chance(kind(0.5))(x), x)
    assert torch.equal(chance(kind(0.5)).eval()(x), x)
    assert torch.equal(kind(0.0)(x), x)


@pytest.mark.parametrize("kind", [Dropout, Noise])
def test_a_member_draws_the_same_alone_and_beside_another(kind):
    x = drawn()
    together = chance(kind(0.5), (1, 3))(x)
    assert torch.equal(together[:1], chance(kind(0.5), (1,))(x[:1]))
    assert not torch.equal(together[1:2], chance(kind(0.5), (1,))(x[1:2]))  # which is the first member's draw
