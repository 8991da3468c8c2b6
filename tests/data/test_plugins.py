"""Parts from outside: names, refusals, and digests of code."""

import datetime
import functools
import re
import sys
from decimal import Decimal
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from permafrost.data import plugin_registry
from permafrost.data.code.parts import code_digest
from permafrost.data.errors import CorpusError
from permafrost.data.files.columnar import read_own
from permafrost.data.plugin_registry import Installed, PluginError, find, is_known, register
from permafrost.data.plugins import KINDS, Head, Loss, Metric, Pooling, Reader
from permafrost.data.spec import SpecError
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.probes.objectives.heads import HEADS
from permafrost.probes.objectives.losses import LOSSES
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.tasks.registry import TASKS

LOSS = Loss(torch.nn.functional.huber_loss, targets=["score"])
FACTOR = 3


def test_names_of_ours_are_those_of_the_tables():
    assert set(Loss.built_in) == {"auto", *LOSSES}
    assert set(Head.built_in) == {"auto", *HEADS}
    assert set(Pooling.built_in) == {"tokens", *POOLINGS}
    assert set(Metric.built_in) == {"auto", *(name for task in TASKS.values() for name in task.metrics)}
    for kind in (Head, Loss, Metric):
        assert set(kind.fitting) <= set(TASKS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_a_name_of_ours_cannot_be_taken(kind, registered):
    with pytest.raises(PluginError, match=f"is a built-in {kind.kind}"):
        registered(kind.built_in[-1], kind(print, ["class"]) if kind in (Head, Loss, Metric) else kind(print))


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("a b", LOSS, "letters, digits and underscores"),
        ("../up", LOSS, "letters, digits and underscores"),
        (3, LOSS, "letters, digits and underscores"),
        ("huber", torch.nn.functional.huber_loss, "expected a Head, Loss, Pooling, Reader, Metric, got function"),
        ("huber", Loss, "got type"),
    ],
)
def test_what_is_no_part_is_refused(name, part, message, registered):
    with pytest.raises(PluginError, match=message):
        registered(name, part)


@pytest.mark.parametrize("targets", ["class", [], ["klass"], ["rank"]])
def test_targets_are_checked(targets):
    with pytest.raises(SpecError, match="targets of a head must be a list of score, class"):
        Head(torch.nn.Linear, targets=targets)


def test_a_part_is_found_by_kind_and_name_and_may_be_replaced(registered):
    assert not is_known(Loss, "huber")
    registered("huber", LOSS)
    assert find(Loss, "huber") is LOSS
    assert not is_known(Metric, "huber")
    registered("huber", other := Loss(torch.nn.functional.l1_loss, targets=["score"]))
    assert find(Loss, "huber") is other
    with pytest.raises(PluginError, match=r"train.loss = 'hubber': Did you mean 'huber'\?"):
        find(Loss, "hubber")
    with pytest.raises(PluginError, match=r"Known: .*If another package has this loss, install it"):
        find(Loss, "something")


def offer(value: str, name: str = "huber", package: str = "pack") -> Installed:
    return Installed(name, Loss, package, "1.0", EntryPoint(name, value, "permafrost.losses"))


@pytest.mark.parametrize(
    ("offers", "message"),
    [
        ([offer("nowhere:huber")], "the loss 'huber' of pack 1.0 cannot be imported .*ModuleNotFoundError"),
        ([offer("json:nothing")], "cannot be imported .*AttributeError"),
        ([offer("json:loads")], "json:loads must be a permafrost.Loss, got function"),
        (
            [offer(f"{__name__}:LOSS"), offer(f"{__name__}:LOSS", package="other")],
            "pack and other both have such a loss",
        ),
    ],
)
def test_a_broken_package_is_named(offers, message, registered, monkeypatch):
    monkeypatch.setattr(plugin_registry, "installed_parts", lambda: tuple(offers))
    assert is_known(Loss, "huber")
    with pytest.raises(PluginError, match=message):
        find(Loss, "huber")
    if len(offers) == 1:
        assert offers[0].problem()


def test_a_package_with_a_name_of_ours_is_refused(registered, monkeypatch):
    monkeypatch.setattr("tests.data.test_plugins.LOSS", LOSS, raising=False)
    with pytest.raises(PluginError, match="'mse' is a built-in loss"):
        offer("tests.data.test_plugins:LOSS", name="mse").load()


def test_the_parts_that_settings_name_are_found_with_their_origin(registered, monkeypatch):
    registered("gated", Head(torch.nn.Linear, targets=["class"]))
    monkeypatch.setattr(plugin_registry, "installed_parts", lambda: (offer("tests.data.test_plugins:LOSS"),))
    settings = [
        ("probe.head", '"gated"'), ("tasks.a.train.loss", '"huber"'), ("train.metric", '"accuracy"'),
        ("plan.views", '["mean", "gated"]'), ("variants.0.set.probe.head", '"gated"'), ("probe.rank", "3"),
    ]  # fmt: skip
    found = origins_of(settings)
    assert list(found) == ["head gated", "loss huber"]
    assert re.fullmatch(r"registered, code [0-9a-f]{16}", found["head gated"])
    assert re.fullmatch(r"pack 1.0, code [0-9a-f]{16}", found["loss huber"])


def scaled(hidden, mask):
    return helper(hidden).sum(1)


def helper(hidden):
    return hidden * FACTOR


class Power:
    def __init__(self, exponent):
        self.exponent = exponent

    def __call__(self, hidden, mask):
        return helper(hidden) ** self.exponent


def test_a_digest_of_code_follows_all_that_the_code_uses(monkeypatch):
    before = {function: code_digest(function) for function in (scaled, helper)}
    assert code_digest(scaled) == before[scaled]
    assert code_digest(Power(2)) == code_digest(Power(2)) != code_digest(Power(3))
    partials = [functools.partial(scaled, 2, 3), functools.partial(scaled, 3, 2), functools.partial(scaled, mask=2)]
    weights = [functools.partial(scaled, mask=torch.full((2,), value)) for value in (1.0, 2.0)]
    others = [*map(code_digest, partials), *map(code_digest, weights), code_digest(torch.amax), code_digest(torch.amin)]
    assert len(set(others)) == len(others)
    monkeypatch.setitem(scaled.__globals__, "FACTOR", 4)
    assert all(code_digest(function) != digest for function, digest in before.items())
    monkeypatch.undo()
    monkeypatch.setitem(scaled.__globals__, "helper", lambda hidden: hidden)
    assert code_digest(scaled) != before[scaled]


def test_a_reader_fails_in_one_line(registered, tmp_path):
    from permafrost.data.corpora.spec import CorpusSpec
    from permafrost.data.readers.load import load_corpus

    path = tmp_path / "rows.xml"
    path.write_text("<rows/>")

    def corpus(read):
        registered("xml", Reader(read))
        return load_corpus(CorpusSpec(path=str(path)))

    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    assert corpus(lambda path: rows).kind == "class"
    failing = {
        r"cannot read .*rows.xml \(KeyError: 'x', in .*test_plugins.py:\d+\)": lambda path: {}["x"],
        "must give a dict of columns, got 3": lambda path: [3],
        "rows.xml:2: .* other columns": lambda path: [rows[0], {"text": "a"}],
        "rows.xml": lambda path: [],
    }
    for message, read in failing.items():
        with pytest.raises(plugin_registry.InputError, match=message):
            corpus(read)
    with pytest.raises(SpecError, match=r"reader = 'xmll': Did you mean 'xml'\?"):
        CorpusSpec(path="a.b", reader="xmll")


def test_a_named_reader_reads_any_suffix(registered, tmp_path):
    from permafrost.data.corpora.spec import CorpusSpec
    from permafrost.data.readers.load import load_corpus

    path = tmp_path / "rows.csv"
    path.write_text("\n".join(f"{'ab'[n % 2]}|text {n}" for n in range(40)))

    def lines(path):
        for line in path.read_text().splitlines():
            yield dict(zip(("label", "text"), line.split("|"), strict=True))

    registered("barred", Reader(lines))
    read = load_corpus(CorpusSpec(path=str(path), reader="barred", columns=("text", "label"), target="class"))
    assert set(read.labels) == {"a", "b"}
    assert len(read.texts) == 40


def test_register_is_the_public_name():
    import permafrost

    assert permafrost.register is register
    assert permafrost.Loss is Loss


CELLS = {
    "bytes": (b"caf\xc3\xa9", "café"), "tuple": (("a", 1), ["a", 1]), "set": ({"b", "a"}, ["a", "b"]),
    "numpy": (np.array(["a", "b"]), ["a", "b"]), "number": (np.int64(3), 3), "string": (np.str_("a"), "a"),
    "date": (datetime.date(2026, 1, 2), "2026-01-02"), "decimal": (Decimal("1.5"), "1.5"), "truth": (np.bool_(1), True),
    "tensor": (torch.tensor([1, 2]), [1, 2]), "nested": ({1: (2,)}, {"1": [2]}),
}  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), CELLS.values(), ids=CELLS)
def test_cells_of_a_reader_are_text_numbers_and_lists(given, expected, registered, tmp_path):
    registered("odd", Reader(lambda path: [{"value": given}]))
    ((_, row),) = read_own(tmp_path / "rows.odd", "odd")
    assert (row["value"], type(row["value"])) == (expected, type(expected))


@pytest.mark.parametrize(
    ("row", "message"),
    [({"a": object()}, "rows.odd:1: column 'a' holds a object"), ({0: "a"}, "must name columns by text")],
)
def test_what_is_no_cell_of_a_table_is_refused(row, message, registered, tmp_path):
    registered("odd", Reader(lambda path: [row]))
    with pytest.raises(CorpusError, match=message):
        list(read_own(tmp_path / "rows.odd", "odd"))


def test_broken_packages_leave_the_others_usable(tmp_path, monkeypatch):
    packages = {
        "good": (b"Name: good\nVersion: 2\n", b"[permafrost.losses]\nsound = tests.data.test_plugins:LOSS\n"),
        "half": (None, b"[permafrost.losses]\ngone = half:loss\n"),
        "garbled": (b"Name: garbled\nVersion: 1\n", b"[permafrost.losses]\nno equals sign\n"),
        "binary": (b"Name: binary\nVersion: 1\n", b"[permafrost.losses]\n\xff\xfe = a:b\n"),
        "odd": (b"Name: odd\nVersion: 1\n", b"[permafrost.losses]\nempty =\nmse = json:loads\nmy part = json:loads\n"),
    }
    for name, files in packages.items():
        (tmp_path / f"{name}-1.dist-info").mkdir()
        for file, content in zip(("METADATA", "entry_points.txt"), files, strict=True):
            if content is not None:
                (tmp_path / f"{name}-1.dist-info" / file).write_bytes(content)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    plugin_registry.installed_parts.cache_clear()
    try:
        assert find(Loss, "sound") is LOSS
        parts = {each.name: each for each in plugin_registry.installed_parts()}
        assert {"sound", "empty", "mse", "my part"} <= set(parts)
        assert not {"gone", "a"} & set(parts)
        assert all(parts[name].problem() for name in ("empty", "mse", "my part"))
    finally:
        plugin_registry.installed_parts.cache_clear()
