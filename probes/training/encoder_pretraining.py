"""Pretraining of a probe's encoder, before it meets its task: as an autoencoder, or on classes of pairs.

Every layer learns apart, with its own gradient norm and best epoch; only the unified autoencoder joins them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.train import PretrainingSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.autoencoder import Autoencoder, UnifiedAutoencoder, squared_errors
from permafrost.probes.models.layerwise import LayerwiseLinear, SeededRandom
from permafrost.probes.models.pair_features import difference_features
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import TextStates, shared_reads
from permafrost.probes.training.best_state import History
from permafrost.probes.training.loop import fit
from permafrost.probes.training.problem import TaskObjective, TrainingProblem

CHUNK = 2048
"""Texts that are reconstructed at once where nothing is learnt."""

OTHER_DRAWS = 1 << 32
"""Added to the seed where what is dropped after pretraining is drawn: not the numbers that the encoder started from."""


@dataclass(frozen=True)
class LayerLoss:
    """How well a layer is rebuilt, on held-out sentences."""

    plan: str
    view: str
    layer: int
    norm: float
    """Mean norm of its latents."""

    loss: float
    """Mean over sentences of the squared error, in the units of the latents."""

    unexplained: float
    """Share of the latents' variance that the reconstruction misses."""


@dataclass(frozen=True, eq=False)
class PretrainedEncoder:
    """A pretrained encoder, and how its pretraining went."""

    by_layer: list[dict[str, Tensor]]
    """State of each layer of the inputs, as :meth:`Probe.by_layer` gives it."""

    mixer: dict[str, Tensor]
    """State of the unified mixer; empty for others, which are not pretrained."""

    histories: list[History]
    """Of each layer, or one for all."""

    layers: list[LayerLoss]
    """Empty where it was no autoencoder."""


def pretrain(
    probe: Probe,
    spec: PretrainingSpec,
    corpus: Corpus,
    inputs: ProbeInputs,
    seed: int,
    progress: Progress | None = None,
) -> PretrainedEncoder:
    """Pretrain the encoder of ``probe``, which is of one member and adapted to its task's latents; in place.

    Raises:
        SpecError: the probe's encoder has no weights.
        CorpusError: the corpus does not fit the task.
    """
    if probe.spec.encoder == "none":
        raise SpecError("pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp.")
    if spec.task == "autoencoder":
        return _rebuild(probe, spec, corpus, inputs, seed, progress)
    return _tell_classes(probe, spec, corpus, inputs, seed, progress)


def _rebuild(
    probe: Probe, spec: PretrainingSpec, corpus: Corpus, inputs: ProbeInputs, seed: int, progress: Progress | None
) -> PretrainedEncoder:
    order = np.random.default_rng(seed).permutation(np.unique(corpus.split("train").texts))
    held = max(2, round(spec.held_out * len(order)))
    if len(order) - held < 1:
        raise CorpusError(f"{corpus.name}: {len(order)} sentences are too few to pretrain an autoencoder on.")
    learning, validating = order[held:], order[:held]
    unified = probe.spec.mixer == "unified"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + OTHER_DRAWS)
        model = UnifiedAutoencoder(probe) if unified else Autoencoder(probe)
    probe.seed([seed])
    generator = torch.Generator().manual_seed(seed + OTHER_DRAWS)
    for run, part in zip(model.decoder.runs, model.decoder.parts, strict=True):
        for module in part.modules():
            if isinstance(module, SeededRandom):
                module.generators = [(generator, run.stop - run.start)]
    width = torch.tensor(probe.layout.widths)

    def latents(texts: NDArray[np.int64]) -> TextStates:
        return inputs.text_states(model.how, texts[None, :, None])[0]

    def loss(rows: NDArray[np.int64]) -> Tensor:
        errors, *_ = squared_errors(model, latents(learning[rows[0]]))
        by_layer = errors.mean(1) / width
        return by_layer.mean(0, keepdim=True) if unified else by_layer

    def validate() -> dict[str, NDArray[np.floating]]:
        explained = 1 - _errors(model, [latents(part) for part in _chunks(validating)])[1]
        return {"explained": explained.mean(keepdims=True) if unified else explained}

    member_of = {f"autoencoder.{name}": owner for name, owner in model.member_of().items()}
    objective = TaskObjective(loss, validate, len(learning), spec.train.batch_rows)
    problem = TrainingProblem({"autoencoder": model}, member_of, {"": objective})
    members = 1 if unified else len(inputs.columns)
    fitted = fit(problem, spec.train, [seed] * members, progress, f"autoencoder, seed {seed}").histories[""]
    with torch.inference_mode():
        errors, unexplained, norms = _errors(model, [latents(part) for part in _chunks(validating)])
    layers = [
        LayerLoss(*column, float(norm), float(error), float(share))
        for column, norm, error, share in zip(inputs.columns, norms, errors, unexplained, strict=True)
    ]
    return PretrainedEncoder(*_states(probe), fitted, layers)


def _errors(model: Autoencoder | UnifiedAutoencoder, parts: Sequence[TextStates]) -> tuple[NDArray[np.floating], ...]:
    """Mean squared error in the latents' units, share of variance unexplained, mean norm: ``[layer]`` each."""
    probe, total = model.probe, torch.zeros(4, len(model.probe.layout.sources))
    normal = [probe.normal(part, model.how) for part in parts]
    texts = sum(part.shape[1] for part in normal)
    mean = torch.stack([part.sum(1, keepdim=True) for part in normal]).sum(0) / texts
    for part in parts:
        squares, errors, target = squared_errors(model, part)
        total[0] += (errors * probe.scale).square().sum((1, 2))
        total[1] += squares.sum(1)
        total[2] += (target - mean).square().sum((1, 2))
        total[3] += (target * probe.scale + probe.center).norm(dim=2).sum(1)
    unexplained = torch.where(total[2] > 0, total[1] / total[2], 0.0)
    return (total[0] / texts).numpy(), unexplained.numpy(), (total[3] / texts).numpy()


def _tell_classes(
    probe: Probe, spec: PretrainingSpec, corpus: Corpus, inputs: ProbeInputs, seed: int, progress: Progress | None
) -> PretrainedEncoder:
    train = corpus.split("train")
    if corpus.kind != "class" or train.texts.shape[1] != 2:
        raise CorpusError(
            f"{corpus.name}: pretraining.task = 'classes' needs pairs of texts with a class, as snli has."
        )
    validation = corpus.split(corpus.selection)
    layers = len(inputs.columns)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + OTHER_DRAWS)
        head = LayerwiseLinear(layers, 3 * probe.encoder.code, len(corpus.labels))
    probe.seed([seed])
    how = shared_reads(probe.layout)
    targets = torch.from_numpy(train.targets)

    def logits(sides: NDArray[np.int64]) -> Tensor:
        first, second = (probe.encode(side, how) for side in inputs.text_states(how, sides[None]))
        said: Tensor = head(difference_features(first, second))
        return said

    def loss(rows: NDArray[np.int64]) -> Tensor:
        said = logits(train.texts[rows[0]]).transpose(1, 2)
        wanted = targets[rows[0]].expand(layers, -1)
        return nn.functional.cross_entropy(said, wanted, reduction="none").mean(1)

    def validate() -> dict[str, NDArray[np.floating]]:
        said = [logits(validation.texts[part]).argmax(-1).numpy() for part in _chunks(np.arange(len(validation)))]
        return {"accuracy": np.asarray((np.concatenate(said, 1) == validation.targets).mean(1))}

    own = torch.arange(layers)
    member_of = {f"probe.encoder.{name}": own[run] for name, run in probe.layer_runs()}
    member_of |= {f"head.{name}": own for name, _ in head.named_parameters()}
    problem = TrainingProblem(
        {"probe": probe, "head": head},
        member_of,
        {"": TaskObjective(loss, validate, len(train), spec.train.batch_rows)},
    )
    fitted = fit(problem, spec.train, [seed] * layers, progress, f"pretraining on classes, seed {seed}").histories[""]
    return PretrainedEncoder(*_states(probe), fitted, [])


def _states(probe: Probe) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    layers = [{name: value.clone() for name, value in layer.items()} for layer in probe.by_layer()]
    (member,) = probe.by_member()
    mixer = {name: value.clone() for name, value in member.items() if name.startswith("mixer.")}
    return layers, mixer if probe.spec.mixer == "unified" else {}


def _chunks(items: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
