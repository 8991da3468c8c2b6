"""Layerwise networks against a loop over one small network per layer."""

import pytest
import torch
from torch import nn

from probes.layerwise import ENCODERS, LayerwiseLinear, LayerwiseMLP

LAYERS, ROWS, WIDTH, CODE = 4, 7, 6, 3


def linear_of(layerwise: LayerwiseLinear, layer: int) -> nn.Linear:
    """One layer's map as torch's own module."""
    linear = nn.Linear(*layerwise.weight.shape[1:])
    with torch.no_grad():
        linear.weight.copy_(layerwise.weight[layer].T)
        linear.bias.copy_(layerwise.bias[layer, 0])
    return linear


def test_a_layerwise_linear_equals_a_loop_over_linear_layers():
    layerwise, x = LayerwiseLinear(LAYERS, WIDTH, CODE), torch.randn(LAYERS, ROWS, WIDTH)
    looped = torch.stack([linear_of(layerwise, layer)(x[layer]) for layer in range(LAYERS)])
    torch.testing.assert_close(layerwise(x), looped)


def test_a_layerwise_mlp_equals_a_loop_over_mlps():
    layerwise, x = LayerwiseMLP(LAYERS, WIDTH, 5, CODE, dropout=0.5).eval(), torch.randn(LAYERS, ROWS, WIDTH)
    mlps = [nn.Sequential(linear_of(layerwise[0], i), nn.GELU(), linear_of(layerwise[3], i)) for i in range(LAYERS)]
    torch.testing.assert_close(layerwise(x), torch.stack([mlp(x[layer]) for layer, mlp in enumerate(mlps)]))


def test_the_identity_start_is_the_identity():
    x = torch.randn(LAYERS, ROWS, WIDTH)
    torch.testing.assert_close(LayerwiseLinear(LAYERS, WIDTH, WIDTH, "identity")(x), x, rtol=0, atol=0)


def test_a_narrow_identity_start_keeps_the_leading_dimensions():
    x = torch.randn(LAYERS, ROWS, WIDTH)
    torch.testing.assert_close(LayerwiseLinear(LAYERS, WIDTH, CODE, "identity")(x), x[..., :CODE], rtol=0, atol=0)


def test_a_random_start_is_drawn_as_torch_draws_a_linear_layer():
    weight = LayerwiseLinear(50, 16, 50).weight
    bound = 1 / 16**0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)  # of 40,000 uniform draws
    assert nn.Linear(16, 5000).weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_input_of_one_layer_changes_the_output_of_that_layer_only(name):
    encoder, x = ENCODERS[name](LAYERS, WIDTH, WIDTH, "random", 0.0), torch.randn(LAYERS, ROWS, WIDTH)
    changed = x.clone()
    changed[2] += 1
    differs = (encoder(x) != encoder(changed)).any((1, 2))
    assert differs.tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_loss_of_one_layer_sends_no_gradient_into_another(name):
    encoder = ENCODERS[name](LAYERS, WIDTH, WIDTH, "random", 0.0)
    x = torch.randn(LAYERS, ROWS, WIDTH, requires_grad=True)
    encoder(x)[1].square().sum().backward()
    for gradient in [x.grad, *(weight.grad for weight in encoder.parameters())]:
        assert (gradient != 0).flatten(1).any(1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", ENCODERS)
def test_dropout_acts_in_training_only(name):
    encoder, x = ENCODERS[name](LAYERS, WIDTH, WIDTH, "random", 0.5), torch.randn(LAYERS, ROWS, WIDTH)
    encoder.eval()
    torch.testing.assert_close(encoder(x), encoder(x), rtol=0, atol=0)
    encoder.train()
    assert torch.equal(encoder(x), encoder(x)) == (name == "none")  # which has nothing to drop
