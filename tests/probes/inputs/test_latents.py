"""Inputs: names that are taken apart, layers that are named in every way, and plans joined into one tensor."""

import numpy as np
import pytest
import torch

from permafrost.data.plan.layers import resolve_layers
from permafrost.data.spec import SpecError
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.columns import Column, parse_input, resolve_columns, single_layer, view_name
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.inputs.latents import pooled_inputs
from permafrost.probes.inputs.token_inputs import read_inputs
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.shared_reads import shared_reads
from tests.support.synthetic import EVEN, RAGGED, Shelf, inputs, layout

PLANS = {"": {"mean": (0, 1, 2, 3), "cls": (0, 1, 2, 3)}, "echo": {"mean": (0, 2, 4)}}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mean", ("", "mean", "")),
        ("weighted_mean", ("", "weighted_mean", "")),
        ("cls:-4..-1", ("", "cls", "-4..-1")),
        ("mean:-1", ("", "mean", "-1")),
        ("mean:all", ("", "mean", "all")),
        ("echo/mean", ("echo", "mean", "")),
        (" echo-2/mean:6 ", ("echo-2", "mean", "6")),
        ("echo/last:0..5", ("echo", "last", "0..5")),
    ],
)
def test_the_name_of_an_input_is_taken_apart(name, parts):
    assert parse_input(name) == parts


@pytest.mark.parametrize(
    "name", ["", "mean:", "/mean", "echo/", "a/b/mean", "mean:1,2", "mean:1...2", "mean:x", "mean:--1", "me an"]
)
def test_what_is_no_name_of_an_input_is_refused_with_examples(name):
    with pytest.raises(SpecError) as refused:
        parse_input(name)
    assert str(refused.value) == (
        f"probe.inputs: {name!r} is not [PLAN/]VIEW[:LAYERS]; write for example mean, cls:-4..-1 or echo/mean:6."
    )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("all", (0, 1, 2, 3)),
        ("1..-1", (1, 2, 3)),
        ("-2..-1", (2, 3)),
        ("0..3", (0, 1, 2, 3)),
        ("2..2", (2,)),
        ("-1", (3,)),
        ("0", (0,)),
        ((3, 1), (1, 3)),
        ((0, -1), (0, 3)),
    ],
)
def test_layers_are_named_by_list_number_and_range(wanted, found):
    assert resolve_layers(wanted, range(4)) == found


def test_negative_layers_count_from_the_last_that_is_kept_and_ranges_take_what_is_kept():
    assert resolve_layers("-1", (2, 5, 9)) == (9,)
    assert resolve_layers("2..9", (2, 5, 9)) == (2, 5, 9)
    assert resolve_layers("-2..-1", (2, 5, 9)) == (5, 9)


@pytest.mark.parametrize(
    ("wanted", "known", "message"),
    [
        ("3..1", range(4), "the layers 3..1 go from 3 down to 1."),
        ("-1..0", range(4), "the layers -1..0 go from 3 down to 0."),
        ("1..4", range(4), "layer 4 is out of range: there are layers 0 to 3."),
        ("-5", range(4), "layer -5 is out of range: there are layers 0 to 3."),
        ((1, 9), range(4), "layer 9 is out of range: there are layers 0 to 3."),
        ((3,), (2, 5, 9), "layer 3 is out of range: there are layers 2, 5, 9."),
        ((3, -1), range(4), "layers names one twice: [3, -1]."),
    ],
)
def test_layers_that_are_not_there_or_fall_are_refused(wanted, known, message):
    with pytest.raises(SpecError) as refused:
        resolve_layers(wanted, known)
    assert str(refused.value) == message


@pytest.mark.parametrize("wrong", ["some", "1..", "..2", "1.5", "", (), (1, 1)])
def test_what_names_no_layers_is_refused(wrong):
    with pytest.raises(SpecError, match="layers"):
        ProbeSpec(layers=wrong)


def columns_of(**settings) -> list[str]:
    """The columns of a probe as plan/view:layer."""
    return [f"{plan}/{view}:{layer}" for plan, view, layer in resolve_columns(ProbeSpec(**settings), PLANS)]


def test_a_probe_that_names_no_input_reads_every_view_of_the_plan():
    assert columns_of(layers="-1") == ["/mean:3", "/cls:3"]
    assert len(columns_of()) == 8


def test_the_layers_of_the_probe_hold_for_inputs_that_name_none_of_their_own():
    assert columns_of(inputs=("cls:0..1", "echo/mean:-1"), layers="-1") == ["/cls:0", "/cls:1", "echo/mean:4"]
    assert columns_of(inputs=("mean", "echo/mean:-1"), layers=(0, -1)) == ["/mean:0", "/mean:3", "echo/mean:4"]
    assert columns_of(inputs=("echo/mean", "mean:2")) == ["echo/mean:0", "echo/mean:2", "echo/mean:4", "/mean:2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ("meen",)}, "probe.inputs names 'meen', which plan.views does not keep. Did you mean 'mean'?"),
        ({"inputs": ("echo/cls",)}, "probe.inputs names 'cls', which .* does not keep. Known: mean."),
        ({"inputs": ("mean", "mean:-1")}, "probe.inputs names layer 3 of mean twice."),
        ({"inputs": ("echo/mean:3",)}, "layer 3 is out of range: there are layers 0, 2, 4."),
        ({"layers": "3..1"}, "the layers 3..1 go from 3 down to 1."),
        ({"layers": (7,)}, "the probe reads layers that the plan does not keep: layer 7 is out of range"),
    ],
)
def test_an_input_that_is_not_kept_is_refused(settings, message):
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        columns_of(**settings)


def test_the_columns_say_their_views_and_their_only_layer():
    columns = resolve_columns(ProbeSpec(inputs=("mean:3", "echo/mean:4", "cls:3")), PLANS)
    assert view_name(columns) == "mean+echo/mean+cls"
    assert single_layer(columns) is None
    assert single_layer(columns[::2]) == 3


def joined(*names: str):
    stored = {
        "": PlanLatents(store=Shelf(8, "float16"), columns=PLANS[""], texts_run=0, truncated=0, seconds=0.0),
        "echo": PlanLatents(store=Shelf(5, "float32"), columns=PLANS["echo"], texts_run=0, truncated=0, seconds=0.0),
    }
    return read_inputs(stored, "abcdef", resolve_columns(ProbeSpec(inputs=names), PLANS)), stored


def test_plans_of_different_widths_are_joined_padded_with_zeros():
    found, stored = joined("echo/mean:2", "mean:0..1", "cls:3")
    assert found.columns == (("echo", "mean", 2), ("", "mean", 0), ("", "mean", 1), ("", "cls", 3))
    assert found.widths == (5, 8, 8, 8)
    assert found.values.dtype == torch.float32
    assert found.values.shape == (4, 6, 8)
    assert (found.values[0, :, 5:] == 0).all()
    for values, column, width in zip(found.values, found.columns, found.widths, strict=True):
        own = stored[column.plan].store.read("abcdef", column.view, [column.layer])[0]
        np.testing.assert_array_equal(values[:, :width], own.astype(np.float32))


def test_padding_changes_no_cosine():
    found, stored = joined("mean:0", "echo/mean:2")
    own = torch.from_numpy(stored["echo"].store.read("abcdef", "mean", [2])[0])
    torch.testing.assert_close(cosines(found.values[1, :3], found.values[1, 3:]), cosines(own[:3], own[3:]))


def test_a_stack_keeps_the_order_of_its_parts():
    parts = [np.full((2, 3, 4), 1, np.float16), np.full((1, 3, 6), 2, np.float32)]
    stacked = pooled_inputs(parts, [Column("", "mean", layer) for layer in range(3)])
    assert stacked.values.shape == (3, 3, 6)
    assert stacked.values.sum(2).tolist() == [[4, 4, 4], [4, 4, 4], [12, 12, 12]]
    assert stacked.widths == (4, 4, 6)


@pytest.mark.parametrize("scale", ["layer", "dimension"])
@pytest.mark.parametrize("widths", [EVEN, RAGGED])
def test_the_moments_are_those_of_the_named_texts_without_padding(scale, widths):
    found, texts = inputs(widths), np.arange(5, 25)
    mean, spread = found.moments(texts, center=True, scale=scale)
    for layer, width in enumerate(widths):
        known = found.values[layer, 5:25, :width].double()
        torch.testing.assert_close(mean[layer, 0, :width].double(), known.mean(0), rtol=1e-5, atol=1e-6)
        expected = known.var(0, correction=0) if scale == "dimension" else known.var(0, correction=0).mean()
        own = spread[layer, 0, :width] if scale == "dimension" else spread[layer, 0, 0]
        torch.testing.assert_close(own.double(), expected.sqrt(), rtol=1e-5, atol=1e-6)
        assert (mean[layer, 0, width:] == 0).all()
        assert scale == "layer" or (spread[layer, 0, width:] == 1).all()


def test_without_centre_the_spread_is_that_around_zero():
    found, texts = inputs(), np.arange(20)
    mean, spread = found.moments(texts, center=False, scale="layer")
    assert (mean == 0).all()
    torch.testing.assert_close(spread.flatten(), found.values[:, :20].square().mean((1, 2)).sqrt())


def test_moments_of_other_texts_are_others():
    found = inputs()
    first, second = (found.moments(np.arange(start, start + 10), True, "layer")[0] for start in (0, 10))
    assert not torch.equal(first, second)
    assert torch.equal(first, found.moments(np.arange(10), True, "layer")[0])


def test_latents_that_are_all_equal_have_a_spread_of_one():
    found = inputs()
    found.values[2] = 3.0
    for scale in ("layer", "dimension"):
        assert (found.moments(np.arange(10), True, scale)[1][2] == 1).all()


def test_sides_are_read_by_row_and_side():
    found = inputs()
    first, second = found.text_states(shared_reads(layout()), np.array([[[3, 5], [0, 1]]]))
    assert torch.equal(first, found.values[:, [3, 0]])
    assert torch.equal(second, found.values[:, [5, 1]])


def test_members_read_their_own_layers_of_the_same_rows():
    found = inputs()
    reads = shared_reads(layout([(0, 3), (2, 3)]))
    first, second = found.text_states(reads, np.array([[[3, 5], [0, 1]]]))
    assert torch.equal(reads.expand(first), found.values[[0, 3, 2, 3]][:, [3, 0]])
    assert torch.equal(reads.expand(second), found.values[[0, 3, 2, 3]][:, [5, 1]])
    assert len(first) == 3  # layer 3 is read once


def test_members_read_rows_in_an_order_of_their_own():
    found = inputs()
    reads = shared_reads(layout([(0, 3), (2,), (3,)]), np.array([0, 1, 0]))
    first, second = found.text_states(reads, np.array([[[3, 5], [0, 1]], [[7, 8], [9, 2]]]))
    spread, x = reads.expand(first), found.values
    assert torch.equal(spread, torch.stack([x[0, [3, 0]], x[3, [3, 0]], x[2, [7, 9]], x[3, [3, 0]]]))
    assert torch.equal(reads.expand(second)[2], x[2, [8, 2]])
