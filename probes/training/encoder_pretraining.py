"""Pretraining of a probe's encoder before the training on its task: as an autoencoder, or on classes of pairs.

Every layer trains independently, with its own gradient norm and best epoch; only the unified autoencoder joins them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.device.transfer import to_device, to_numpy
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.train import PretrainingSpec
from permafrost.probes.inputs.disk import reading_ahead
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.autoencoder import Autoencoder, squared_errors
from permafrost.probes.models.layerwise import LayerwiseLinear, SeededRandom
from permafrost.probes.models.pair_features import difference_features
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import TextStates, shared_reads
from permafrost.probes.training.best_state import History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.loop import MemberColumns, fit
from permafrost.probes.training.problem import TaskObjective, TrainingProblem
from permafrost.probes.training.row_order import BLOCK_ROWS

CHUNK = 2048
"""Number of rows of a batch in validation."""

DISCARDED_SEED = 1 << 32
"""Added to the seed of modules that are discarded after pretraining: they draw other numbers than the encoder."""


@dataclass(frozen=True)
class LayerLoss:
    """Reconstruction error of a layer on held-out sentences."""

    plan: str
    view: str
    layer: int
    norm: float
    """Mean norm of the latents."""

    loss: float
    """Mean squared error of a sentence, summed over dimensions, in squared units of the latents."""

    unexplained: float
    """Share of the latents' variance that the reconstruction does not explain."""


@dataclass(frozen=True, eq=False)
class PretrainedEncoder:
    """State of a pretrained encoder, and its training history."""

    by_layer: list[dict[str, Tensor]]
    """State of each layer of the inputs, as :meth:`Probe.layer_states` returns it."""

    mixer: dict[str, Tensor]
    """State of the unified mixer; empty for other mixers, which are not pretrained."""

    histories: list[History]
    """History of each layer, or one for all."""

    layers: list[LayerLoss]
    """Reconstruction error of each layer; empty if pretrained on classes."""


def pretrain(
    probe: Probe,
    spec: PretrainingSpec,
    corpus: Corpus,
    inputs: ProbeInputs,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    named: MemberColumns | None = None,
) -> PretrainedEncoder:
    """Pretrain the encoder of ``probe`` in place; the probe has one member, and centre and scale of its task's latents.

    Args:
        checkpoint: file of the training's state; a killed pretraining resumes from it.
        named: columns that name the probe in the events of the training.

    Raises:
        SpecError: the probe's encoder has no weights.
        CorpusError: the corpus does not fit the task.
    """
    if probe.spec.encoder == "none":
        raise SpecError("pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp.")
    build = _autoencoder_problem if spec.task == "autoencoder" else _class_problem
    name, problem, measure = build(probe, spec, corpus, inputs, seed)
    members = 1 + max(int(indices.max()) for indices in problem.member_of.values())
    seeds, columns, name = [seed] * members, [named or {}] * members, f"{name}, seed {seed}"
    histories = fit(problem, spec.train, seeds, progress, name, checkpoint=checkpoint, members=columns).histories
    with torch.inference_mode():
        losses = measure()
    layers = [{name: value.clone() for name, value in layer.items()} for layer in probe.layer_states()]
    (member,) = probe.member_states()
    unified = probe.spec.mixer == "unified"
    mixer = {name: value.clone() for name, value in member.items() if unified and name.startswith("mixer.")}
    return PretrainedEncoder(layers, mixer, histories[""], losses)


def _autoencoder_problem(
    probe: Probe, spec: PretrainingSpec, corpus: Corpus, inputs: ProbeInputs, seed: int
) -> tuple[str, TrainingProblem, Callable[[], list[LayerLoss]]]:
    """Return name and problem of a pretraining as an autoencoder, and the function that measures its errors."""
    train, held_out = _split_texts(spec, corpus, seed)
    model = _seeded_autoencoder(probe, seed)
    widths = torch.tensor(probe.layout.widths, device=probe.device)

    def read(texts: NDArray[np.int64]) -> TextStates:
        return inputs.text_states(model.reads, texts[None, :, None])[0]

    def loss(rows: NDArray[np.int64]) -> Tensor:
        errors, *_ = squared_errors(model, read(train[rows[0]]))
        by_layer = errors.mean(1) / widths
        return by_layer.mean(0, keepdim=True) if model.unified else by_layer

    def held_out_errors() -> tuple[NDArray[np.floating], ...]:
        return _reconstruction_errors(model, read, _chunks(held_out))

    def validate() -> dict[str, NDArray[np.floating]]:
        explained = 1 - held_out_errors()[-1]
        return {"explained": explained.mean(keepdims=True) if model.unified else explained}

    def measure() -> list[LayerLoss]:
        return [
            LayerLoss(column.plan, column.view, column.layer, *map(float, numbers))
            for column, *numbers in zip(inputs.columns, *held_out_errors(), strict=True)
        ]

    objective = TaskObjective(
        loss=loss,
        validate=validate,
        rows=len(train),
        batch_rows=spec.train.batch_rows,
        ahead=reading_ahead(inputs, model.reads, lambda rows: [train[rows][:, :, None]]),
    )
    problem = TrainingProblem(
        modules={"autoencoder": model},
        member_of={f"autoencoder.{name}": members for name, members in model.member_of().items()},
        objectives={"": objective},
    )
    return "autoencoder", problem, measure


def _split_texts(spec: PretrainingSpec, corpus: Corpus, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training texts and held-out texts of an autoencoder, as indices into the texts of the corpus."""
    order = np.random.default_rng(seed).permutation(np.unique(corpus.split("train").texts))
    held_out = max(2, round(spec.held_out * len(order)))
    if len(order) - held_out < 1:
        raise CorpusError(f"{corpus.name}: {len(order)} sentences are too few to pretrain an autoencoder on.")
    train = order[held_out:]
    if len(train) > BLOCK_ROWS:
        train.sort()  # rows that follow each other are then neighbours on disk
    return train, order[:held_out]


def _seeded_autoencoder(probe: Probe, seed: int) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + DISCARDED_SEED)
        model = Autoencoder(probe)
    probe.seed([seed])
    generator = torch.Generator(probe.device).manual_seed(seed + DISCARDED_SEED)
    for run, decoder in zip(model.decoder.runs, model.decoder.parts, strict=True):
        for module in decoder.modules():
            if isinstance(module, SeededRandom):
                module.generators = [(generator, run.stop - run.start)]
    return model


def _reconstruction_errors(
    model: Autoencoder, read: Callable[[NDArray[np.int64]], TextStates], chunks: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.floating], ...]:
    """Return norm, loss and unexplained variance as in :class:`LayerLoss`, ``[layer]`` each.

    The texts are read twice, so that only a chunk of them is in memory.
    """
    probe, total = model.probe, torch.zeros(4, len(model.probe.layout.sources), device=model.probe.device)
    texts = sum(map(len, chunks))
    sums = [probe.normalize(read(chunk), model.reads).sum(1, keepdim=True) for chunk in chunks]
    mean = torch.stack(sums).sum(0) / texts
    for chunk in chunks:
        squares, errors, target = squared_errors(model, read(chunk))
        total[0] += (errors * probe.scale).square().sum((1, 2))
        total[1] += squares.sum(1)
        total[2] += (target - mean).square().sum((1, 2))
        total[3] += (target * probe.scale + probe.center).norm(dim=2).sum(1)
    unexplained = torch.where(total[2] > 0, total[1] / total[2], 0.0)
    return to_numpy(total[3] / texts), to_numpy(total[0] / texts), to_numpy(unexplained)


def _class_problem(
    probe: Probe, spec: PretrainingSpec, corpus: Corpus, inputs: ProbeInputs, seed: int
) -> tuple[str, TrainingProblem, Callable[[], list[LayerLoss]]]:
    """Return name and problem of a pretraining on classes of pairs, and a function that returns no errors."""
    train = corpus.split("train")
    if corpus.kind != "class" or train.texts.shape[1] != 2:
        raise CorpusError(
            f"{corpus.name}: pretraining.task = 'classes' needs pairs of texts with a class, as snli has."
        )
    validation = corpus.split(corpus.selection_split)
    layers = len(inputs.columns)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + DISCARDED_SEED)
        head = LayerwiseLinear(layers, 3 * probe.encoder.code, len(corpus.labels)).to(probe.device)
    probe.seed([seed])
    reads, targets = shared_reads(probe.layout, device=probe.device), to_device(train.targets, probe.device)

    def logits(texts: NDArray[np.int64]) -> Tensor:
        first, second = (probe.encode(latents, reads) for latents in inputs.text_states(reads, texts[None]))
        outputs: Tensor = head(difference_features(first, second))
        return outputs

    def loss(rows: NDArray[np.int64]) -> Tensor:
        target = targets[to_device(rows[0], targets.device)].expand(layers, -1)
        return nn.functional.cross_entropy(logits(train.texts[rows[0]]).transpose(1, 2), target, reduction="none").mean(
            1
        )

    def validate() -> dict[str, NDArray[np.floating]]:
        chunks = _chunks(np.arange(len(validation)))
        predicted = np.concatenate([to_numpy(logits(validation.texts[rows]).argmax(-1)) for rows in chunks], 1)
        return {"accuracy": np.asarray((predicted == validation.targets).mean(1))}

    indices = torch.arange(layers)
    member_of = {f"probe.encoder.{name}": indices[run] for name, run in probe.encoder.layer_runs()}
    member_of |= {f"head.{name}": indices for name, _ in head.named_parameters()}
    objective = TaskObjective(
        loss=loss,
        validate=validate,
        rows=len(train),
        batch_rows=spec.train.batch_rows,
        ahead=reading_ahead(inputs, reads, lambda rows: [train.texts[rows]]),
    )
    problem = TrainingProblem(modules={"probe": probe, "head": head}, member_of=member_of, objectives={"": objective})
    return "pretraining on classes", problem, list


def _chunks(items: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
