"""The self-check stops every planted fault, in any precision and beside any massive activation, and no right run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.errors import MachineError
from permafrost.data.latents import maintenance
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.store.int8 import largest_errors, quantize
from permafrost.data.text import Segments
from permafrost.extract import shard_writer
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.small_model import small_values
from permafrost.extract.backbones import load as loading
from permafrost.extract.capture import forward as capture
from permafrost.extract.capture import packing, pooling, rounding, runner
from permafrost.extract.extraction import extract
from permafrost.extract.extractor import Extractor
from permafrost.extract.proofs import proof, read_back, reference, self_check
from permafrost.extract.tokenization import text_windows
from permafrost.extract.tokenization import tokenize as tokens
from permafrost.extract.tokenization import windows as segments
from tests.support.marks import slow_but_first
from tests.support.models.backbones import WORDS, tiny_folder
from tests.support.real import DEVICE, real_model

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("gpt2", "llama", "bert")
CAUSAL = ("gpt2", "llama")
WINDOWED = ("mistral", "gemma3_text")
"""Kinds of a tree with windows: all blocks alike, and by type of layer."""

LOUD = {
    "gpt2": "h.1.mlp.c_proj.bias",
    "llama": "layers.1.mlp.down_proj.weight",
    "mistral": "layers.1.mlp.down_proj.weight",
    "gemma3_text": "layers.1.post_feedforward_layernorm.weight",
    "bert": "encoder.layer.1.output.LayerNorm.bias",
}
"""Where a massive activation comes from."""

Plant = Callable[[pytest.MonkeyPatch, Path], None]


def wrapped(patch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace a function by ``change(function, *arguments)``."""
    real = getattr(owner, name)
    patch.setattr(owner, name, lambda *given, **named: change(real, *given, **named))


def left_padding(patch: pytest.MonkeyPatch, _: Path) -> None:
    def padded(real: Any, *given: Any) -> packing.Layout:
        found = real(*given)
        width = found.ids.shape[1]
        shift = width - found.real.sum(1)
        rolled = {
            name: np.stack([np.roll(row, by, 0) for row, by in zip(getattr(found, name), shift, strict=True)])
            for name in ("ids", "real")
        }
        index = (found.token_index + shift[found.token_index // width]) * found.token_mask
        seen = None if found.attention_mask is None else np.repeat(np.tri(width, dtype=bool)[None], len(shift), axis=0)
        positions = np.repeat(np.minimum(np.arange(width), 60)[None], len(shift), axis=0)
        return replace(found, **rolled, positions=positions, attention_mask=seen, token_index=index, gathered=True)

    wrapped(patch, runner, "lay_out", padded)


def last_token_off_by_one(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setitem(
        pooling.POOLINGS, "last", lambda hidden, real: pooling._select_token(hidden, (real.sum(1) - 2).clamp(min=0))
    )


def padding_pooled(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setitem(pooling.POOLINGS, "mean", lambda hidden, real: hidden.mean(-2))


def template_words_pooled(patch: pytest.MonkeyPatch, _: Path) -> None:
    wrapped(patch, tokens, "_fit", lambda real, *given: (real(*given)[0], (0, sum(real(*given)[0]))))


def words_around_the_text_pooled(patch: pytest.MonkeyPatch, _: Path) -> None:
    wrapped(patch, packing, "_own_mask", lambda real, *given: np.ones_like(real(*given)))


def stale_tokenizer(patch: pytest.MonkeyPatch, folder: Path) -> None:
    other = folder / "other"
    shutil.copytree(next(path for path in folder.iterdir() if path.name.startswith("model")), other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"dog": 8', '"dog": 9').replace('"runs": 9', '"runs": 8'))
    wrapped(patch, loading, "load_tokenizer", lambda real, _: real(other))


def under_other_keys(patch: pytest.MonkeyPatch, _: Path) -> None:
    wrapped(patch, runner, "text_keys", lambda real, *given: np.roll(real(*given), 1))


def latents_of_others(patch: pytest.MonkeyPatch, _: Path) -> None:
    def rolled(real: Any, *given: Any) -> Any:
        block = real(*given)
        return replace(block, latents={view: np.roll(values, 1, 1) for view, values in block.latents.items()})

    wrapped(patch, runner.BackboneRunner, "_block", rolled)


def latents_moved_on_the_way(patch: pytest.MonkeyPatch, _: Path) -> None:
    def rolled(real: Any, writer: Any, block: Any) -> None:
        moved = {view: np.roll(values, 1, 1) for view, values in block.latents.items()}
        real(writer, replace(block, latents=moved))

    wrapped(patch, shard_writer.ShardWriter, "add", rolled)


def lengths_of_others(patch: pytest.MonkeyPatch, _: Path) -> None:
    def rolled(real: Any, writer: Any, block: Any) -> None:
        real(writer, replace(block, lengths=np.roll(block.lengths, 1)))

    wrapped(patch, shard_writer.ShardWriter, "add", rolled)


def siblings_visible(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr(
        packing, "_ancestor_mask", lambda rows, width: np.repeat(np.tri(width, dtype=bool)[None], len(rows), axis=0)
    )


def prefix_one_token_too_long(patch: pytest.MonkeyPatch, _: Path) -> None:
    def longer(real: Any, first: Any, second: Any) -> int:
        shared: int = real(first, second)
        return shared + 1 if 0 < shared < min(len(first), len(second)) - 1 else shared

    wrapped(patch, packing, "_shared", longer)


def not_causal(patch: pytest.MonkeyPatch, _: Path) -> None:
    def both_ways(real: Any, *given: Any) -> np.ndarray:
        visible = real(*given)
        return visible | visible.swapaxes(1, 2)

    wrapped(patch, packing, "_ancestor_mask", both_ways)


def weak_mask(patch: pytest.MonkeyPatch, _: Path) -> None:
    def weaker(mask: torch.Tensor, backbone: Any) -> torch.Tensor:
        if not mask.is_floating_point():
            mask = torch.zeros_like(mask, dtype=backbone.dtype).masked_fill(mask == 0, -9)[:, None, None]
            mask = mask.expand(-1, -1, mask.shape[-1], -1)
        return mask.clamp(min=-9)

    def weak(real: Any, backbone: Any, layout: packing.Layout) -> dict[str, Any]:
        given = real(backbone, layout)
        mask = given.get("attention_mask")
        if isinstance(mask, dict):
            return given | {"attention_mask": {name: weaker(value, backbone) for name, value in mask.items()}}
        return given if mask is None else given | {"attention_mask": weaker(mask, backbone)}

    wrapped(patch, capture, "_inputs", weak)


def norm_twice(patch: pytest.MonkeyPatch, _: Path) -> None:
    def twice(real: Any, backbone: Any, layout: Any, columns: Any, final_norm: bool = False) -> Any:
        found = real(backbone, layout, columns, final_norm)
        norm = [module for module in backbone.model.modules() if type(module).__name__.endswith("Norm")][-1]
        for view, layers in columns.items():
            if backbone.source.layers - 1 in layers:
                found[view][-1] = norm(found[view][-1].to(backbone.dtype))
        return found

    wrapped(patch, capture, "capture_on_device", twice)


def norm_not_asked_for(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Of BERT, whose blocks end with a norm, the second one."""
    norm_twice(patch, folder)


def layers_off_by_one(patch: pytest.MonkeyPatch, _: Path) -> None:
    def rolled(real: Any, *given: Any) -> dict[str, torch.Tensor]:
        return {view: values.roll(1, 0) for view, values in real(*given).items()}

    wrapped(patch, capture, "capture_on_device", rolled)


def positions_start_at_one(patch: pytest.MonkeyPatch, _: Path) -> None:
    def later(real: Any, backbone: Any, layout: packing.Layout) -> dict[str, Any]:
        given = real(backbone, layout)
        return given | {"position_ids": (given["position_ids"] + 1).clamp(max=60)} if "position_ids" in given else given

    wrapped(patch, capture, "_inputs", later)


def positions_not_restarted(patch: pytest.MonkeyPatch, _: Path) -> None:
    def counted(real: Any, backbone: Any, layout: packing.Layout) -> dict[str, Any]:
        given = real(backbone, layout)
        places = torch.arange(layout.ids.shape[1], device=backbone.device).clamp(max=60)
        return given | {"position_ids": places.expand(layout.ids.shape)} if "position_ids" in given else given

    wrapped(patch, capture, "_inputs", counted)


def window_ignored(patch: pytest.MonkeyPatch, _: Path) -> None:
    wrapped(patch, capture, "tree_masks", lambda real, *given: dict.fromkeys(real(*given), given[2]))


def window_measured_in_places(patch: pytest.MonkeyPatch, _: Path) -> None:
    def places(real: Any, road: Any, architecture: Any, ancestors: np.ndarray, positions: np.ndarray) -> Any:
        return real(road, architecture, ancestors, np.broadcast_to(np.arange(positions.shape[1]), positions.shape))

    wrapped(patch, capture, "tree_masks", places)


ECHO = {"template": "near {text} , and {text}"}
PLANTED: dict[Plant, tuple[tuple[str, ...], dict[str, Any]]] = {
    left_padding: (KINDS + WINDOWED, {}),
    last_token_off_by_one: (KINDS + WINDOWED, {"views": ("last",)}),
    padding_pooled: (KINDS + WINDOWED, {}),
    template_words_pooled: (KINDS, ECHO),
    words_around_the_text_pooled: (KINDS, {"template": "near {text} , and"}),
    stale_tokenizer: (KINDS + WINDOWED, {}),
    under_other_keys: (KINDS + WINDOWED, {}),
    latents_of_others: (KINDS + WINDOWED, {}),
    latents_moved_on_the_way: (KINDS + WINDOWED, {"layers": (3,)}),
    lengths_of_others: (KINDS + WINDOWED, {}),
    siblings_visible: (CAUSAL + WINDOWED, {}),
    prefix_one_token_too_long: (CAUSAL + WINDOWED, {}),
    not_causal: (CAUSAL + WINDOWED, {}),
    weak_mask: (KINDS + WINDOWED, {}),
    norm_twice: (CAUSAL + WINDOWED, {"final_norm": True}),
    norm_not_asked_for: (KINDS + WINDOWED, {}),
    layers_off_by_one: (KINDS + WINDOWED, {}),
    positions_start_at_one: (("gpt2", *WINDOWED), {}),
    positions_not_restarted: (CAUSAL + WINDOWED, {}),
    window_ignored: (WINDOWED, {}),
    window_measured_in_places: (WINDOWED, {}),
}
"""A fault, the families that it can be planted in, and the plan that it shows in."""

WINDOWS = (window_ignored, window_measured_in_places)
CASES = [
    pytest.param(
        fault,
        family,
        dtype,
        loud,
        id=f"{fault.__name__}-{family}-{dtype}{'-loud' * loud}",
        marks=() if loud and dtype == "bfloat16" and (family in KINDS or fault in WINDOWS) else pytest.mark.slow,
    )
    for fault, (families, _) in PLANTED.items()
    for family in families
    for dtype in ("float32", "bfloat16")
    for loud in (False, True)
]


def made_texts(seed: int, many: int = 30) -> list[str]:
    """Texts of 1 to 18 words, some of which begin alike."""
    rng = np.random.default_rng(seed)
    starts = [WORDS[: rng.integers(0, 7)] + list(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(many)]
    return list(dict.fromkeys(" ".join(words) for words in starts))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Family, and whether it has a massive activation -> folder of a tiny backbone."""
    from safetensors.torch import load_file, save_file

    made: dict[tuple[str, bool], Path] = {}

    def folder(family: str, loud: bool) -> Path:
        if (family, loud) not in made:
            path = tiny_folder(family, tmp_path_factory.mktemp(family) / "model", 3)
            if loud:
                weights = load_file(path / "model.safetensors")
                weight = weights[LOUD[family]]
                weight[3] = weight[3] * 300 if weight.dim() > 1 else 3000
                save_file(weights, path / "model.safetensors", {"format": "pt"})
            made[family, loud] = path
        return made[family, loud]

    return folder


def plan_of(folder: Path, dtype: str, **more: Any) -> CapturePlan:
    return CapturePlan(
        backbone=str(folder),
        **{"max_tokens": 40, "views": ("last", "mean"), "stored_dtype": "float32", "compute_dtype": dtype, **more},
    )


@pytest.mark.parametrize(("fault", "family", "dtype", "loud"), CASES)
def test_a_planted_fault_stops_the_run_and_leaves_nothing(fault, family, dtype, loud, models, tmp_path, monkeypatch):
    folder = shutil.copytree(models(family, loud), tmp_path / "model")
    fault(monkeypatch, tmp_path)
    plan = plan_of(folder, dtype, **PLANTED[fault][1])
    with pytest.raises(MachineError, match=r"self-check: .* cannot be trusted and are not kept"):
        extract(plan, made_texts(0), ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE, batch_tokens=200))
    assert not list((tmp_path / "cache").rglob("*.h5"))


@pytest.mark.parametrize("view", ["mean", "weighted_mean"])
def test_a_fault_in_the_fast_sums_of_the_cpu_stops_the_run(view, models, tmp_path, monkeypatch):
    wrapped(monkeypatch, pooling, "_add_up_rows", lambda real, hidden, mask, *more: real(hidden, mask | True, *more))
    with pytest.raises(MachineError, match=r"self-check: .* cannot be trusted"):
        extract(
            plan_of(models("bert", False), "float32", views=(view,)),
            made_texts(0),
            ExtractSpec(cache=str(tmp_path), device="cpu"),
        )
    assert not list(tmp_path.rglob("*.h5"))


TOLD = [(positions_start_at_one, "gpt2"), (window_ignored, "mistral"), (window_ignored, "gemma3_text")]


@pytest.mark.parametrize(("fault", "family"), TOLD)
def test_a_fault_is_told_from_what_a_kind_of_model_does_not_allow(fault, family, models, tmp_path, monkeypatch):
    fault(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="also for a model that is known to allow it"):
        Extractor(plan_of(models(family, False), "float32"), ExtractSpec(cache=str(tmp_path), device=DEVICE))


@pytest.mark.parametrize("family", slow_but_first(KINDS + WINDOWED))
@pytest.mark.parametrize("loud", slow_but_first([False, True]))
def test_a_right_run_is_not_stopped(family, loud, models, tmp_path):
    for seed in range(4):
        for dtype in ("float32", "bfloat16"):
            texts = made_texts(seed, [1, 2, 9, 60][seed])
            plan = plan_of(models(family, loud), dtype, views=("last", "cls", "max", "weighted_mean", "tokens"))
            extract(
                replace(plan, max_tokens=[5, 40, 9, 40][seed]),
                texts,
                ExtractSpec(cache=str(tmp_path / dtype), device=DEVICE),
            )


def middle_windows_left_out(patch: pytest.MonkeyPatch, _: Path) -> None:
    for module in (segments, tokens):
        wrapped(patch, module, "stretches", lambda real, *given: iter([*real(*given)][::2]))


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("first", slow_but_first(["", "the dog"]))
def test_windows_that_leave_out_tokens_are_found(family, first, models, tmp_path, monkeypatch):
    seconds = [" ".join(made_texts(seed, 4)) for seed in range(3)]
    texts = [Segments(first, second) if first else second for second in seconds]
    plan = plan_of(models(family, False), "float32", max_tokens=14, truncation="windows", stride=2)
    middle_windows_left_out(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="leave out tokens of it"):
        extract(plan, texts, ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE))


def overlaps_of_the_earlier_window(patch: pytest.MonkeyPatch, _: Path) -> None:
    def earlier(real: Any, windows: Any, lengths: Any) -> Any:
        counted = real(windows, lengths)
        within = np.flatnonzero(np.diff(windows.texts) == 0)
        counted[within, 1] = counted[within + 1, 0] = windows.ranges[within, 1]
        return counted

    wrapped(patch, text_windows.TextWindows, "counted", earlier)


def mean_of_the_means_of_windows(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setitem(pooling.SHARES, "mean", lambda counts, before, total: (total / total) / (1 + (before > 0)))


def positions_begin_anew_in_each_window(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr(pooling.WindowPools, "_shift_positions", lambda *given: None)


def last_of_the_first_window(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setitem(pooling.SHARES, "last", pooling.SHARES["cls"])


@pytest.mark.parametrize("family", slow_but_first(KINDS))
@pytest.mark.parametrize(
    ("fault", "view"),
    [
        (overlaps_of_the_earlier_window, "mean"),
        (mean_of_the_means_of_windows, "mean"),
        (positions_begin_anew_in_each_window, "weighted_mean"),
        (last_of_the_first_window, "last"),
    ],
)
def test_windows_that_are_put_together_wrongly_are_found(fault, view, family, models, tmp_path, monkeypatch):
    texts = [" ".join(made_texts(seed, 30)) for seed in range(3)]
    plan = plan_of(
        models(family, True), "bfloat16", max_tokens=14, truncation="windows", stride=6, views=(view,), layers=(1, 2)
    )
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    fault(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match=r"self-check: .* cannot be trusted and are not kept"):
        extract(plan, texts, spec)
    monkeypatch.undo()
    assert extract(plan, texts, spec).texts_run == 3


def test_a_file_of_weights_that_is_written_over_changes_no_loaded_model(models, tmp_path):
    folder = Path(shutil.copytree(models("bert", False), tmp_path / "model"))
    plan = plan_of(folder, "float32")
    extractor = Extractor(plan, ExtractSpec(cache=str(tmp_path), device="cpu"))
    before = extractor(made_texts(0), plan.columns(4))["mean"]
    shutil.copyfile(models("bert", True) / "model.safetensors", folder / "model.safetensors")
    np.testing.assert_array_equal(extractor(made_texts(0), plan.columns(4))["mean"], before)
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(extractor(made_texts(0), plan.columns(4))["mean"], before)


def test_positions_that_hang_on_the_longest_text_of_a_batch_are_refused_beyond_their_limit(models, tmp_path):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 3, 2, 1.5]}
    folder = Path(shutil.copytree(models("llama", False), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = rope | {"original_max_position_embeddings": 30, "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    assert extract(replace(plan_of(folder, "float32"), max_tokens=30), made_texts(0), spec).texts_run
    with pytest.raises(BackboneError, match="reads at most 30 tokens"):
        extract(plan_of(folder, "float32"), made_texts(0), spec)


def last_layer_is_the_one_below(patch: pytest.MonkeyPatch, _: Path) -> None:
    @contextmanager
    def tapped(real: Any, backbone: Any, last: int, norm: bool, keep: Any) -> Any:
        def both(layer: int, hidden: torch.Tensor) -> None:
            keep(layer, hidden)
            if layer == last - 1:
                keep(last, hidden)

        with real(backbone, last - 1, norm, both) if last else real(backbone, last, norm, keep):
            yield

    wrapped(patch, capture, "_tapped", tapped)


def test_what_was_proven_of_another_way_to_pick_layers_is_proven_again(models, tmp_path, monkeypatch):
    spec, plan = (
        ExtractSpec(cache=str(tmp_path), device=DEVICE),
        plan_of(models("bert", False), "bfloat16", layers=(1, 3)),
    )
    extract(plan, made_texts(0), spec)
    last_layer_is_the_one_below(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="in float64 texts together differ"):
        extract(plan, made_texts(1), spec)


def test_a_model_may_have_several_ends(models, tmp_path):
    folder = Path(shutil.copytree(models("llama", False), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": [2, 128_001], "pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    assert extract(
        plan_of(folder, "float32"), made_texts(0), ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    ).texts_run


def test_an_interrupted_read_back_leaves_no_shard(models, tmp_path, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(read_back.ReadBack, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(
            plan_of(models("bert", False), "float32"), made_texts(0), ExtractSpec(cache=str(tmp_path), device=DEVICE)
        )
    assert not list(tmp_path.rglob("*.h5"))


class Heard(NoProgress):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("dtype", self_check.PRECISION_TOLERANCE)
def test_the_screen_says_what_was_compared_and_what_is_allowed(dtype, models, tmp_path):
    heard = Heard()
    spec = ExtractSpec(cache=str(tmp_path), device=DEVICE)
    extract(plan_of(models("bert", False), dtype), made_texts(0), spec, heard)
    (note,) = (note for note in heard.notes if note.startswith("self-check: "))
    said = re.fullmatch(
        r"self-check: passed; (?:(\d+)% of the )?latents of texts together differ from those of each text alone by at "
        r"most ([\d.e-]+) of the largest value, and ([\d.]+) is allowed in (\w+)",
        note,
    )
    assert said
    assert float(said[1] or 100) / 100 == self_check.TOLERATED_SHARE[dtype]
    assert float(said[2]) <= float(said[3]) == self_check.PRECISION_TOLERANCE[dtype]
    assert said[4] == dtype


@pytest.mark.parametrize("fault", [siblings_visible, not_causal, left_padding])
def test_what_was_proven_of_other_code_is_proven_again(fault, models, tmp_path, monkeypatch):
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    plan = plan_of(models("gpt2", False), "bfloat16")
    extract(plan, made_texts(0), spec)
    assert (tmp_path / "cache" / proof.MEMO).is_file()
    fault(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="self-check"):
        extract(plan, made_texts(1), spec)


@pytest.mark.parametrize("family", KINDS)
def test_structure_is_proven_on_rows_of_unequal_length_that_share_beginnings(family, models, tmp_path, monkeypatch):
    layouts: list[packing.Layout] = []

    def kept(real: Any, *given: Any) -> packing.Layout:
        layouts.append(real(*given))
        return layouts[-1]

    wrapped(monkeypatch, runner, "lay_out", kept)
    extract(plan_of(models(family, False), "float32"), ["dog"], ExtractSpec(cache=str(tmp_path), device=DEVICE))
    first = layouts[0]
    assert len(set(first.real.sum(1).tolist())) >= 3
    assert (first.real.sum() < first.token_mask.sum()) == (family in CAUSAL), "a beginning is laid out once"


@pytest.mark.slow
def test_another_process_remembers_a_proof(models, tmp_path):
    """What a proof depends on is the same in every process: no address of an object is in it."""
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    plan, memo = plan_of(models("gpt2", False), "float32"), tmp_path / "cache" / proof.MEMO
    found = []
    for text in ("then it sleeps near a stove", "a stove sleeps"):
        code = (
            "from permafrost.data.plan.plan import CapturePlan, ExtractSpec\n"
            "from permafrost.extract.extraction import extract\n"
            f"assert extract({plan!r}, [{text!r}], {spec!r}).texts_run"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        found.append(memo.read_text())
    assert found[0] == found[1]


def test_a_proof_is_remembered(models, tmp_path, monkeypatch):
    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    plan = plan_of(models("bert", False), "float32")
    extract(plan, made_texts(0), spec)
    memo = tmp_path / "cache" / proof.MEMO
    proven = memo.read_text()
    monkeypatch.setattr(torch.Tensor, "double", lambda _: pytest.fail("proven a second time"))
    assert extract(plan, made_texts(1), spec).texts_run
    assert memo.read_text() == proven


@pytest.mark.parametrize("fault", slow_but_first([siblings_visible, left_padding, last_token_off_by_one]))
def test_a_large_run_is_proven_on_a_copy_of_its_backbone_too(fault, models, tmp_path, monkeypatch):
    def made(real: Any, backbone: Any) -> Any:
        fault(monkeypatch, tmp_path)
        return real(backbone)

    spec = ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE)
    extract(plan_of(models("gpt2", True), "float32"), made_texts(0), spec)
    monkeypatch.setattr(proof, "COPY_TOKENS", {(DEVICE, "float32"): 1})
    for family in CAUSAL:
        extract(plan_of(models(family, True), "float32"), made_texts(1), spec)
    wrapped(monkeypatch, proof, "make_copy", made)
    with pytest.raises(MachineError, match=r"in float64 .* cannot be trusted"):
        extract(plan_of(models("gpt2", True), "float32"), made_texts(2), spec)


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("truncation", ["cut", "windows"])
def test_two_segments_are_checked_too(family, truncation, models, tmp_path, monkeypatch):
    texts = [Segments(first, f"{first} {second}") for first, second in zip(made_texts(1), made_texts(2), strict=False)]
    plan = plan_of(models(family, False), "float32", views=("tokens",), max_tokens=40, truncation=truncation, stride=2)
    extract(plan, texts, ExtractSpec(cache=str(tmp_path / "clean"), device=DEVICE))
    wrapped(monkeypatch, tokens, "joint", lambda real, tokenizer: real(tokenizer) + " ,")
    with pytest.raises(MachineError, match="other token ids than transformers' tokenizer"):
        extract(plan, texts, ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE))


def of_int8(folder: Path) -> CapturePlan:
    return plan_of(folder, "float32", views=("mean", "tokens"), stored_dtype="int8")


@pytest.mark.parametrize("loud", [False, True])
def test_eight_bits_are_not_taken_for_a_fault(loud, models, tmp_path):
    """Beside a massive activation, a step is many times what the read-back tolerates without it."""
    plan, texts = of_int8(models("gpt2", loud)), made_texts(0)
    found = extract(plan, texts, ExtractSpec(cache=str(tmp_path), device=DEVICE))
    exact = Extractor(replace(plan, stored_dtype="float32"), ExtractSpec(cache=str(tmp_path), device=DEVICE))
    expected = exact(texts, plan.columns(4))["mean"]
    values = found.store.read(texts, "mean", range(4))
    assert (np.abs(values - expected) <= largest_errors(quantize(expected)) + 1e-5 * np.abs(expected).max()).all()


@pytest.mark.parametrize("fault", ["scales", "outliers", "groups"])
def test_a_wrong_step_is_found_though_what_was_computed_and_what_was_stored_agree(fault, models, tmp_path, monkeypatch):
    def wrong(real: Any, values: Any) -> Any:
        stored = real(values)
        if fault == "groups":
            stored["values"] = np.roll(stored["values"], 1, -1)
        else:
            stored[fault] += 1 << 7  # bits of bfloat16: twice the number
        return stored

    wrapped(monkeypatch, rounding, "quantize", wrong)
    with pytest.raises(MachineError, match=r"self-check: what was stored of view .* differs from the plain forward"):
        extract(of_int8(models("gpt2", False)), made_texts(0), ExtractSpec(cache=str(tmp_path), device=DEVICE))
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("what", ["ids", "spans", "states"])
def test_tokens_that_are_stored_wrong_are_found(what, models, tmp_path, monkeypatch):
    def moved(real: Any, writer: Any, block: Any) -> None:
        axis = 1 if what == "states" else 0
        real(
            writer,
            replace(block, tokens=replace(block.tokens, **{what: np.roll(getattr(block.tokens, what), 1, axis)})),
        )

    wrapped(monkeypatch, shard_writer.ShardWriter, "add", moved)
    with pytest.raises(MachineError, match="self-check"):
        extract(
            plan_of(models("bert", False), "bfloat16", views=("tokens",)),
            made_texts(0),
            ExtractSpec(cache=str(tmp_path / "cache"), device=DEVICE),
        )
    assert not list((tmp_path / "cache").rglob("*.h5"))


@pytest.mark.parametrize("fault", [siblings_visible, under_other_keys, latents_of_others, stale_tokenizer])
def test_a_run_that_predicts_is_checked_before_its_first_answer(fault, models, tmp_path, monkeypatch):
    plan = plan_of(shutil.copytree(models("gpt2", False), tmp_path / "model"), "float32")
    fault(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="self-check"):
        Extractor(plan, ExtractSpec(cache=str(tmp_path), device=DEVICE))(made_texts(0), plan.columns(4))


def test_every_pooling_has_a_definition_to_be_checked_against():
    assert set(reference.POOLINGS) == set(pooling.POOLINGS)


def test_every_kind_of_block_is_in_the_twin():
    kinds = ["full_attention"] * 3 + ["sliding_attention", "full_attention"] * 3
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 9}
    special = {
        "vocab_size": 9000,
        "vocab_size_per_layer_input": 9000,
        "type_vocab_size": 1,
        "bos_token_id": 8000,
        "pad_token_id": 1,
    }
    config = {"model_type": "qwen2", "layer_types": kinds, "sliding_window": 4096, "use_sliding_window": True}
    small = small_values(config | sizes | special)
    assert small["layer_types"] == kinds[:4]
    assert (small["num_hidden_layers"], small["bos_token_id"], small["pad_token_id"]) == (4, 0, 1)
    assert small["sliding_window"] < 10
    assert (small["vocab_size"], small["vocab_size_per_layer_input"], small["type_vocab_size"]) == (64, 64, 1)


@pytest.mark.parametrize("name", slow_but_first(["minilm", "stories260K", "babyllama"]))
@pytest.mark.parametrize("dtype", slow_but_first(["float32", "bfloat16"]))
def test_real_weights_are_not_stopped(name, dtype, tmp_path):
    folder = name if name == "minilm" else str(real_model(name))
    rng = np.random.default_rng(1)
    letters = [chr(code) for code in (*range(97, 123), 0xE9, 0x4E2D, 0x1F415, *range(32, 48))]
    texts = [
        "Once upon a time.",
        "Once upon a time, a dog ran.",
        *("".join(rng.choice(letters, 40)).strip() for _ in range(20)),
    ]
    plan = CapturePlan(backbone=folder, views=("last", "mean", "tokens"), compute_dtype=dtype, max_tokens=30)
    assert extract(plan, texts, ExtractSpec(cache=str(tmp_path), device=DEVICE)).texts_run == len(texts)
    assert maintenance.store_folders(tmp_path)
