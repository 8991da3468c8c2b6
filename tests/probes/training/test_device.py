"""One device: no step makes a tensor on another device than its inputs, and none waits for the device."""

import ast
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from permafrost import probes
from permafrost.probes.balancing.weighting import BALANCERS, make_balancer
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.mixers import CODE_MIXERS, MIXERS
from permafrost.probes.models.probe import Probe, stack
from permafrost.probes.objectives.heads import HEADS
from permafrost.probes.objectives.losses import OURS
from permafrost.probes.training import encoder_pretraining
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder, pretrain
from permafrost.probes.training.loop import fit
from permafrost.probes.training.problem import TrainingProblem
from permafrost.probes.training.step import clip_by_member
from permafrost.probes.variants.members import initial_probe
from permafrost.probes.variants.train_group import training_problem
from tests.support.synthetic import (
    RAGGED,
    answered,
    classed,
    inputs,
    labelled,
    ranked,
    scored,
    sentences,
    tagged,
)
from tests.support.trainings import member_config

META = torch.device("meta")
TRAIN = TrainSpec(epochs=1, batch_rows=8)
RANDOM = {"dropout": 0.1, "noise": 0.1}
CORPORA = {"score": scored, "class": classed, "labels": labelled, "rank": ranked}


def cases() -> Iterator[tuple[str, str, ProbeSpec, str]]:
    """Name, kind of corpus, probe and loss: every head, encoder, mixer, context and loss."""
    for mixer in {**MIXERS, **CODE_MIXERS}:
        yield f"cosine {mixer}", "score", ProbeSpec(mixer=mixer, code=(0.5,), encoder="linear"), "mse"
        if mixer != "mlp":
            yield f"classes {mixer}", "class", ProbeSpec(mixer=mixer, code=(0.5,), encoder="mlp"), "cross_entropy"
    for encoder in ("none", "linear", "lowrank", "mlp"):
        yield f"cosine {encoder}", "score", ProbeSpec(encoder=encoder), "log_variance"
    yield "regression", "score", ProbeSpec(head="regression", hidden=4), "mse"
    yield "labels", "labels", ProbeSpec(head="labels"), "binary_cross_entropy"
    yield "rank", "rank", ProbeSpec(), "multiple_negatives_ranking"
    for context in ("none", *CONTEXTS):
        yield f"tags {context}", "tags", ProbeSpec(context=context, context_width=6), "cross_entropy"
    yield "span", "answers", ProbeSpec(match=True), "span"


CASES = {name: case for name, *case in cases()}
EVERY = pytest.mark.parametrize("name", CASES)


def test_every_head_mixer_context_and_loss_is_a_case():
    assert {loss for _, _, loss in CASES.values()} == set(OURS)
    assert {context for _, probe, _ in CASES.values() for context in [probe.context]} >= set(CONTEXTS)
    assert len(HEADS) == 6  # cosine, regression, classes, labels, tags, span: a new one needs a case


def problem_of(name: str, device: torch.device | None = None, **changes: float) -> tuple[TrainingProblem, Recipe]:
    """The problem of two members, of which one reads fewer layers if the layers may differ; a token probe has one."""
    kind, probe, loss = CASES[name]
    members: Sequence[tuple[int, ...]] = [(0, 1)]
    found: ProbeInputs
    if kind in ("tags", "answers"):
        found, corpus = tagged() if kind == "tags" else answered()
    else:
        found = inputs(RAGGED)
        corpus, members = CORPORA[kind](found), [(0, 1, 2, 3), (0, 1, 2, 3) if probe.mixer == "concat" else (1, 3)]
    weights = "balanced" if kind in ("class", "labels") else "none"
    recipe = Recipe(probe=replace(probe, **changes), train=replace(TRAIN, loss=loss, class_weights=weights))
    seeds = [0, 1 if kind == "class" else 0][: len(members)]  # of one seed, they share what they read
    configs = [member_config(recipe, found, corpus, *each) for each in zip(seeds, members, strict=True)]
    probes = [initial_probe(config) for config in configs]
    together = stack(probes) if len(probes) > 1 else probes[0]
    config = configs[0]
    if device:
        values = {"values": found.values.to(device)} if isinstance(found, PooledInputs) else {}
        config, together = replace(config, inputs=replace(found, device=device, **values)), together.to(device)
    return training_problem(recipe, {"probe": config}, {"probe": together}, seeds), recipe


def members_of(problem: TrainingProblem) -> int:
    return 1 + max(int(owner.max()) for owner in problem.member_of.values())


@EVERY
def test_what_a_training_makes_lies_where_its_inputs_do(name):
    histories = []
    for place in (torch.device("cpu"), META):
        problem, recipe = problem_of(name, **RANDOM)
        with place:  # where a tensor lies that is made without a device
            histories.append(fit(problem, recipe.train, range(members_of(problem))).histories)
    assert histories[0] == histories[1]  # an index of another device is not refused, and gives any numbers


@pytest.mark.parametrize("task", ["autoencoder", "classes"])
@pytest.mark.parametrize("mixer", ["softmax", "unified"])
def test_what_a_pretraining_makes_lies_where_its_inputs_do(task, mixer, monkeypatch):
    found = inputs()
    corpus = sentences(found) if task == "autoencoder" else classed(found)
    probe = ProbeSpec(encoder="mlp", mixer=mixer, code=(0.5,), **RANDOM)
    spec = PretrainingSpec(task=task, train=TRAIN)

    def pretrained() -> PretrainedEncoder:
        return pretrain(initial_probe(member_config(Recipe(probe=probe), found, scored(found))), spec, corpus, found, 0)

    def fit_on_meta(*arguments, **named):
        with META:
            return fit(*arguments, **named)

    expected = pretrained()
    monkeypatch.setattr(encoder_pretraining, "fit", fit_on_meta)  # after it has built its modules
    assert pretrained().histories == expected.histories


@pytest.fixture
def on_meta(monkeypatch):
    """Let a probe compute on the meta device, whose tensors hold no numbers: what reads one, as a wait would, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no such device
    monkeypatch.setattr(Probe, "seed", lambda self, seeds: None)  # nor do generators
    return META


@pytest.mark.parametrize("name", [name for name in CASES if name != "tags bilstm"])  # torch has no such LSTM there
def test_a_step_reads_no_number_back_from_the_device(name, on_meta):
    problem, _ = problem_of(name, on_meta)
    (objective,) = problem.objectives.values()
    orders = np.stack([np.arange(8)] * members_of(problem))
    loss = objective.loss(orders)
    assert loss.device == on_meta
    loss.sum().backward()
    clip_by_member(problem.owned_parameters(), 1.0, members_of(problem))
    assert all(parameter.grad.device == on_meta for parameter in problem.named_parameters().values())


def balanced(name: str, device: torch.device) -> None:
    """A step of a balancer with two tasks that share a parameter, everything on a device."""
    shared = torch.nn.Parameter(torch.ones(3, device=device))
    tasks = {"a": "log_variance", "b": "cross_entropy"}
    spec = BalancingSpec(balancer=name, weights=dict.fromkeys(tasks, 0.5) if name == "fixed" else {})
    balancer = make_balancer(spec, tasks, [shared], True, torch.Generator().manual_seed(0)).to(device)
    with META:
        step = balancer.backward({"a": (shared * 2).sum(), "b": (1 - shared).square().sum()}, [shared])
    assert shared.grad.device == shared.device
    numbers = [number for number in step.weights.values() if isinstance(number, torch.Tensor)]
    assert {number.device for number in numbers} <= {shared.device}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_computes_where_the_losses_are_and_waits_for_none(name, device):
    balanced(name, torch.device(device))


ROOT = Path(probes.__file__).parents[1]
STEP: dict[str, tuple[str, ...]] = {
    "data/device/transfer.py": (),
    "probes/balancing/*.py": (),
    "probes/inputs/finetuned.py": ("text_states", "_run_distinct", "_run_blocks"),
    "probes/inputs/latents.py": ("text_states", "_index"),
    "probes/inputs/token_inputs.py": ("text_states", "token_states", "ragged", "padded"),
    "probes/models/*.py": (),
    "probes/objectives/base.py": ("loss",),
    "probes/objectives/losses.py": (),
    "probes/objectives/ranking.py": ("loss", "candidates"),
    "probes/objectives/tokens.py": ("loss", "_word_logits", "_logits"),
    "probes/training/encoder_pretraining.py": ("loss", "read", "logits"),
    "probes/training/step.py": ("run", "_backward", "clip_by_member"),
    "extract/capture/forward.py": ("start_capture", "capture_on_device", "_inputs", "_additive"),
    "extract/capture/pooling.py": ("pool_last", "pool_cls", "pool_sum", "pool_mean", "pool_weighted_mean", "pool_max"),
    "extract/finetuning/cut_model.py": ("forward", "run_row", "_run", "_tapped", "_model_inputs", "_any_ids"),
    "extract/finetuning/finetuned_backbone.py": ("forward", "_states", "_pool"),
    "extract/attention/varlen.py": (),
}
"""Files, and their functions, that a step of a training or a forward pass of an extraction runs; all functions of a
file if none is named."""

READS = {"cpu", "numpy", "item", "tolist", "to_numpy"}
"""Calls that wait for the device."""

ELSEWHERE = {
    "transfer.start_to_numpy": "what it returns reads, on a thread of its own",
    "transfer.to_numpy": "it is what reads",
    "gradients.projection_factors": "an order that is drawn on the CPU",
    "pair_features.best_cosines": "of an array",
    "finetuned._run_blocks": "of an array",
    "probe._member_sizes": "before the training",
    "shared_reads.shared_reads": "before the training",
    "token_inputs.ragged": "of an array",
    "token_inputs.text_states": "of an array",
    "varlen._make_row": "of an array",
    "varlen.groups": "of an array",
}
"""Function -> why it may: no tensor of a step is read."""


def reads_in(path: Path, names: Sequence[str]) -> Iterator[str]:
    """The functions that read numbers back, as ``module.function``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and (not names or node.name in names):
            called = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
            if READS & {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in called}:
                yield f"{path.stem}.{node.name}"


def test_no_function_of_a_step_reads_a_tensor_back():
    assert all(list(ROOT.glob(pattern)) for pattern in STEP)
    found = {read for pattern, names in STEP.items() for path in ROOT.glob(pattern) for read in reads_in(path, names)}
    assert found == set(ELSEWHERE)
