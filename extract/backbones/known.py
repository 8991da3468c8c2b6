"""Backbones that can be named: those with a short name, and those in the local hub cache."""

import importlib.util
from dataclasses import dataclass

from permafrost.extract.backbones.registry import SHORT_NAMES


@dataclass(frozen=True)
class KnownBackbone:
    """A backbone by the name that a plan may give it."""

    name: str
    model: str
    """Id on the Hugging Face hub."""

    about: str
    here: str
    """Where it lies on this machine; empty if it must be downloaded."""


def known_backbones() -> list[KnownBackbone]:
    """Return the backbones with a short name, then all others in the local hub cache."""
    cached = _cached_models()
    lines = []
    for name, checkpoint in SHORT_NAMES.items():
        packaged = bool(checkpoint.package) and importlib.util.find_spec(checkpoint.package) is not None
        here = f"package {checkpoint.package}" if packaged else cached.get(checkpoint.hub, "")
        lines.append(KnownBackbone(name, checkpoint.hub or checkpoint.file, checkpoint.about, here))
    short = {checkpoint.hub for checkpoint in SHORT_NAMES.values()}
    return lines + [KnownBackbone(hub, hub, "", here) for hub, here in sorted(cached.items()) if hub not in short]


def _cached_models() -> dict[str, str]:
    """Return hub id -> "hub cache" and its size, of the models in the local hub cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    return {repo.repo_id: f"hub cache, {repo.size_on_disk_str}" for repo in repositories if repo.repo_type == "model"}
