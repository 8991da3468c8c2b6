"""Autoencoders: layers apart, or all in one embedding, and an error that is what it says."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.autoencoder import Autoencoder, squared_errors
from permafrost.probes.models.probe import layout_for
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.training.encoder_pretraining import _reconstruction_errors
from tests.support.synthetic import EVEN, RAGGED, encode, inputs, latents, moved, normal


class Saying:
    """An autoencoder that says what it is told to."""

    def __init__(self, probe: ScoreProbe, say: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.probe, self.reads, self.say = probe, shared_reads(probe.layout), say

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        return self.say(latents)


WIDTHS = pytest.mark.parametrize("widths", [EVEN, RAGGED], ids=["even", "ragged"])
ENCODERS = {
    "linear": ProbeSpec(code=(0.5,)),
    "linear, halves": ProbeSpec(code=(0.25, 0.5)),
    "lowrank": ProbeSpec(encoder="lowrank", rank=2),
    "mlp": ProbeSpec(encoder="mlp", norm=True, code=(0.5,)),
    "mlp, halves, dropout": ProbeSpec(encoder="mlp", dropout=0.3, code=(0.25, 0.5)),
}


def probe_of(spec: ProbeSpec, found: ProbeInputs) -> ScoreProbe:
    probe = ScoreProbe(spec, layout_for(spec, [(0, 1, 2, 3)], found.widths))
    probe.set_normalization(*found.moments(np.arange(40), spec.center, spec.scale))
    return probe


@WIDTHS
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_layer_is_rebuilt_by_itself(encoder, widths):
    model, x = moved(Autoencoder(probe_of(ENCODERS[encoder], inputs(widths)))).eval(), latents(widths)
    changed = x.clone()
    changed[1, :, : widths[1]] += 1
    differs = (model(x) != model(changed)).flatten(1).any(1)
    assert differs.tolist() == [False, True, False, False]
    assert model(x).shape == x.shape
    for layer, width in enumerate(widths):
        assert (model(x)[layer, :, width:] == 0).all()


@WIDTHS
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_belongs_to_a_layer_part_by_part(encoder, widths):
    model, x = moved(Autoencoder(probe_of(ENCODERS[encoder], inputs(widths)))).eval(), latents(widths)
    member_of, parameters = model.member_of(), dict(model.named_parameters())
    assert set(parameters) - set(member_of) == {name for name in parameters if ".mixer." in name}
    model(x)[2].square().sum().backward()
    for name, layers in member_of.items():
        assert len(layers) == len(parameters[name]), name
        assert (parameters[name].grad != 0).flatten(1).any(1).tolist() == (layers == 2).tolist(), name


def reconstruction_errors(model, values, size=60):
    """The errors over texts that are read in parts of a size."""
    chunks = np.split(np.arange(values.shape[1]), range(size, values.shape[1], size))
    return _reconstruction_errors(model, lambda texts: values[:, texts], chunks)


@pytest.mark.parametrize("scale", ["layer", "dimension"])
def test_the_errors_are_those_computed_by_hand(scale):
    found = inputs()
    spec = ProbeSpec(code=(0.5,), scale=scale)  # keeps the four leading dimensions of eight
    probe = probe_of(spec, found)
    model = Autoencoder(probe)
    with torch.no_grad():
        model.decoder.parts[0].weight.copy_(torch.eye(4, 8))  # and gives them back, with zeros for the others
        model.decoder.parts[0].bias.zero_()
        norm, error, unexplained = reconstruction_errors(model, found.values, 25)  # in uneven parts
    x = found.values.double()
    lost = (x - probe.center)[..., 4:]  # in place of which the mean is said
    np.testing.assert_allclose(error, lost.square().sum(2).mean(1), rtol=1e-5)
    target = (x - probe.center) / probe.scale
    around = (target - target.mean(1, keepdim=True)).square().sum((1, 2))
    np.testing.assert_allclose(unexplained, target[..., 4:].square().sum((1, 2)) / around, rtol=1e-5)
    np.testing.assert_allclose(norm, x.norm(dim=2).mean(1), rtol=1e-5)


def test_a_perfect_reconstruction_leaves_nothing_unexplained():
    found = inputs(RAGGED)
    probe = probe_of(ProbeSpec(encoder="lowrank"), found)
    with torch.inference_mode():
        _, error, unexplained = reconstruction_errors(Saying(probe, lambda x: normal(probe, x)), found.values)
    assert error.tolist() == unexplained.tolist() == [0, 0, 0, 0]


def test_to_say_the_mean_explains_nothing():
    found = inputs()
    probe = probe_of(ProbeSpec(), found)
    with torch.inference_mode():
        mean = normal(probe, found.values).mean(1, keepdim=True)
        _, error, unexplained = reconstruction_errors(Saying(probe, lambda x: mean.expand(x.shape)), found.values)
    assert unexplained.tolist() == pytest.approx([1] * 4, rel=1e-5)
    np.testing.assert_allclose(error, found.values.var(1, correction=0).sum(1), rtol=1e-5)


def test_a_layer_without_variance_has_nothing_to_explain():
    found = inputs()
    found.values[2] = 3.0
    probe = probe_of(ProbeSpec(code=(0.5,)), found)
    with torch.inference_mode():
        *_, unexplained = reconstruction_errors(Autoencoder(probe), found.values)
    assert unexplained[2] == 0
    assert np.isfinite(unexplained).all()


def test_the_squared_error_is_per_layer_and_row():
    found = inputs()
    probe = probe_of(ProbeSpec(), found)
    squares, errors, target = squared_errors(Saying(probe, lambda x: normal(probe, x) + 0.5), found.values)
    torch.testing.assert_close(squares, torch.full((4, 60), 8 * 0.25))
    torch.testing.assert_close(errors, torch.full((4, 60, 8), 0.5))
    torch.testing.assert_close(target, normal(probe, found.values))


@WIDTHS
def test_the_unified_autoencoder_reads_every_layer_out_of_one_embedding(widths):
    found = inputs(widths)
    probe = moved(probe_of(ProbeSpec(mixer="unified", code=(0.5,)), found))
    model = Autoencoder(probe)
    x = found.values
    embedding = sum(code @ up[: code.shape[1]] for code, up in zip(encode(probe, x), probe.mixer.up[0], strict=True))
    rebuilt = model(x)
    for layer, width in enumerate(widths):
        run = next(at for at, run in enumerate(model.decoder.runs) if run.start <= layer < run.stop)
        part, place = model.decoder.parts[run], layer - model.decoder.runs[run].start
        torch.testing.assert_close(rebuilt[layer, :, :width], embedding @ part.weight[place] + part.bias[place])
    assert set(model.member_of()) == {name for name, _ in model.named_parameters()}
    assert all((owner == 0).all() for owner in model.member_of().values())
