"""Stage one beside every peer in one run: transformers, nnsight, TransformerLens, sentence-transformers, ONNX Runtime.

    python -m benchmarks.extraction.peers --backbone minilm
    python -m benchmarks.extraction.peers --backbone gpt2-medium --tokenizer FOLDER --runs 4 --rounds 3

The peers come with ``pip install 'permafrost[bench]'``; one that is not installed, or does not fit the kind of the
backbone, is named in the table. With --tokenizer the backbone has random weights; speed is the same.

Texts and arms as in benchmarks.extraction.speed. Ours, the plain loop, nnsight and TransformerLens make the mean of
every layer. nnsight and TransformerLens run the batches of the plain loop; TransformerLens stops below the head.
sentence-transformers and ONNX Runtime make one vector a text, of the last layer of an encoder; the batches of ONNX
Runtime hold 32 texts of like length, and its int8 model is that of dynamic quantization. "cosine" is the lowest one of
a vector with that of the plain loop in float32, of the middle layer, or of the last one where there is no other; random
weights are others for every arm.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.extraction.speed import (
    Arm,
    ours,
    padded_loop,
    pick_texts,
    plain_loop,
    race,
    sentence_transformers_encode,
    unmodified,
)
from benchmarks.machine import PACKAGES, describe, parse_options
from permafrost.data.machine import package_version
from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer

PEERS = ("nnsight", "transformer-lens", "onnxruntime")
REFERENCE = "transformers, float32"


class DoesNotFitError(Exception):
    """A peer has no such arm for a backbone; the message says why."""


def nnsight_trace(plan: CapturePlan, dtype: str) -> Arm:
    """nnsight: a trace of the model that keeps what enters the first block and what leaves every block."""
    import nnsight

    model = unmodified(find_backbone(plan), dtype, "cpu")
    path = next(name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    traced = nnsight.NNsight(model)
    blocks = attrgetter(path)(traced)

    def hidden_states(ids: Tensor, mask: Tensor) -> Sequence[Tensor]:
        with traced.trace(input_ids=ids, attention_mask=mask):
            kept = nnsight.save([])
            kept.append(blocks[0].input)
            for block in blocks:
                kept.append(block.output)
        return [states if isinstance(states, Tensor) else states[0] for states in kept]

    return padded_loop(plan, "cpu", hidden_states)


def transformer_lens_cache(plan: CapturePlan, dtype: str) -> Arm:
    """TransformerLens: the residual stream before the first block and after every block, out of its cache."""
    source = find_backbone(plan)
    if not source.architecture.causal:
        raise DoesNotFitError("causal models only")
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    model = unmodified(source, dtype, "cpu", "AutoModelForCausalLM")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(source.tokenizer))
    bridge = TransformerBridge.boot_transformers(
        plan.backbone, hf_model=model, dtype=getattr(torch, dtype), tokenizer=tokenizer
    )
    blocks = source.layers - 1
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{block}.hook_resid_post" for block in range(blocks))]

    def hidden_states(ids: Tensor, mask: Tensor) -> Sequence[Tensor]:
        _, cached = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names, stop_at_layer=blocks)
        return [cached[name] for name in names]

    return padded_loop(plan, "cpu", hidden_states)


class MeanOfLast(nn.Module):
    """The mean of the last layer's states over the tokens of each text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``[text, token]`` to ``[text, width]``."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def export_onnx(source: Source, folder: Path, dtype: str) -> Path:
    """Write the model as an ONNX file in float32 or int8; return its path."""
    path = folder / f"{dtype}.onnx"
    if dtype == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(folder / "float32.onnx", path, weight_type=QuantType.QInt8)
        return path
    example = torch.ones(2, 8, dtype=torch.long)
    names, axes = ["ids", "mask"], {0: "text", 1: "token"}
    torch.onnx.export(
        MeanOfLast(unmodified(source, "float32", "cpu")).eval(),
        (example, example),
        str(path),
        dynamo=False,
        input_names=names,
        dynamic_axes=dict.fromkeys(names, axes),
        opset_version=17,
    )
    return path


def onnx_session(plan: CapturePlan, dtype: str, folder: Path) -> Arm:
    """ONNX Runtime on as many threads as torch: batches of 32 texts of like length."""
    import onnxruntime

    source = find_backbone(plan)
    if source.architecture.causal:
        raise DoesNotFitError("encoders only")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(export_onnx(source, folder, dtype)), options, providers=["CPUExecutionProvider"]
    )
    tokenizer = load_tokenizer(source.tokenizer)
    tokenizer.enable_padding()
    tokenizer.enable_truncation(plan.token_limit)

    def run(texts: Sequence[str]) -> np.ndarray:
        order, parts = np.argsort([len(text) for text in texts], kind="stable"), []
        for start in range(0, len(texts), 32):
            batch = tokenizer.encode_batch([texts[index] for index in order[start : start + 32]])
            ids, mask = (np.array([getattr(one, key) for one in batch]) for key in ("ids", "attention_mask"))
            parts.append(session.run(None, {"ids": ids, "mask": mask})[0])
        vectors = np.concatenate(parts)
        return vectors[np.argsort(order)]

    return run


def arms_of(plan: CapturePlan, folder: Path) -> Iterator[tuple[str, str, Callable[[], Arm]]]:
    """Name, package and maker of every arm."""
    dtypes = list(dict.fromkeys(["float32", compute_dtype(plan, "cpu")]))
    for dtype in dtypes:
        yield f"ours, {dtype}", "torch", lambda dtype=dtype: ours(plan, dtype, str(folder), "cpu")[0]
        yield f"transformers, {dtype}", "transformers", lambda dtype=dtype: plain_loop(plan, dtype, "cpu")
        yield f"nnsight, {dtype}", "nnsight", lambda dtype=dtype: nnsight_trace(plan, dtype)
        yield f"TransformerLens, {dtype}", "transformer-lens", lambda dtype=dtype: transformer_lens_cache(plan, dtype)
    yield "sentence-transformers, float32", "sentence-transformers", lambda: _encode(plan)
    for dtype in ("float32", "int8"):
        yield f"ONNX Runtime, {dtype}", "onnxruntime", lambda dtype=dtype: onnx_session(plan, dtype, folder)


def _encode(plan: CapturePlan) -> Arm:
    folder = find_backbone(plan).folder
    if not folder or not (folder / "modules.json").is_file():
        raise DoesNotFitError("sentence encoders only")
    return sentence_transformers_encode(folder, "cpu")


def made_arms(plan: CapturePlan, folder: Path) -> tuple[dict[str, Arm], dict[str, str]]:
    """Return the arms, and for those that there are not, why."""
    arms, absent = {}, {}
    for name, package, make in arms_of(plan, folder):
        if not package_version(package):
            absent[name] = f"not installed: {package}"
            continue
        try:
            arms[name] = make()
        except DoesNotFitError as error:
            absent[name] = str(error)
    return arms, absent


def lowest_cosine(values: np.ndarray, reference: np.ndarray) -> float:
    """Lowest cosine of a vector with that of the reference, ``[layer, text, width]``."""
    layer = len(reference) // 2
    first, second = (values[layer], reference[layer]) if values.ndim == 3 else (values, reference[-1])
    first, second = (np.asarray(one, np.float64) for one in (first, second))
    first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first, second))
    return float((first * second).sum(1).min())


def main() -> None:
    """Print one table."""
    options: argparse.Namespace = parse_options(
        __doc__, backbone="minilm", tokenizer="", runs=8, neighbours=64, rounds=5
    )
    init = "random" if options.tokenizer else "pretrained"
    plan = CapturePlan(backbone=options.backbone, init=init, tokenizer=options.tokenizer, views=("mean",))
    texts, source = pick_texts(options.runs, options.neighbours), find_backbone(plan)
    with tempfile.TemporaryDirectory() as folder:
        arms, absent = made_arms(plan, Path(folder))
        made: dict[str, Any] = {name: np.asarray(arm(texts)) for name, arm in arms.items()}
        seconds = race(arms, texts, options.rounds, "cpu")
    print(describe("cpu", [*PACKAGES, *PEERS]))
    print(f"{Path(options.backbone).name} ({init} weights), {source.layers} layers of width {source.width}; ", end="")
    print(f"{len(texts)} texts; {options.rounds} rounds, arms interleaved, texts shuffled for every arm")
    print(f"{'':34}{'vectors a text':>16}{'texts/s':>9}{'min-max':>14}{'x ' + REFERENCE:>25}{'cosine':>9}")
    for name, took in seconds.items():
        rates, base = len(texts) / np.array(took), np.array(seconds[REFERENCE])
        vectors = len(made[name]) if made[name].ndim == 3 else 1
        cosine = "" if init == "random" else f"{lowest_cosine(made[name], made[REFERENCE]):.4f}"
        print(f"{name:34}{vectors:16}{np.median(rates):9.0f}{f'{rates.min():.0f}-{rates.max():.0f}':>14}", end="")
        print(f"{np.median(base) / np.median(took):25.2f}{cosine:>9}")
    for name, reason in absent.items():
        print(f"{name:34}{reason}")


if __name__ == "__main__":
    main()
