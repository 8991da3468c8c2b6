"""Batch file: the recipes, backbones, data and settings whose combinations are run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from permafrost.data.settings.toml import read_toml, read_toml_file
from permafrost.data.spec import SpecError, Tree, parse, plain


@dataclass(frozen=True, kw_only=True)
class BatchRun:
    """One run of a batch file, beside those of its lists."""

    recipe: str
    """Name of a recipe that ships, or the path of your own."""

    name: str = ""
    """Name of its run folder; empty takes that of the recipe."""

    backbone: str = ""
    """As plan.backbone; empty leaves that of the recipe."""

    data: str = ""
    """A file, a folder, a corpus or a hub data set in place of the recipe's corpus; empty leaves it."""

    set: dict[str, Any] = field(default_factory=dict)
    """Settings of this run, e.g. {"train.epochs" = 5}; they win over those of [set]."""


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """A batch: the product of its lists, and single runs."""

    name: str = ""
    """Name of the batch, and of its folder; empty takes that of the file, or of the recipes."""

    recipes: tuple[str, ...] = ()
    """Recipes: names of those that ship, or paths of your own."""

    backbones: tuple[str, ...] = ()
    """Backbones with which every recipe is run; empty leaves that of the recipe."""

    data: tuple[str, ...] = ()
    """Files, folders, corpora or hub data sets with which every recipe is run; empty leaves the recipe's corpus."""

    columns: tuple[str, ...] = ()
    """As corpus.columns, for all of ``data``."""

    target: str = ""
    """As corpus.target, for all of ``data``."""

    set: dict[str, Any] = field(default_factory=dict)
    """Settings of all runs, e.g. {"train.epochs" = 5}."""

    grid: dict[str, Any] = field(default_factory=dict)
    """Settings that vary, each with the list of its values: every recipe is run with every combination."""

    runs: tuple[BatchRun, ...] = ()
    """Single runs, which the lists and the grid leave alone; [set] holds for them too."""

    def __post_init__(self) -> None:
        if not self.recipes and not self.runs:
            raise SpecError("a batch needs recipes = [...], or a table [[runs]] with a recipe.")
        for key, values in _lists(self.grid):
            if not values:
                raise SpecError(f"grid: '{key}' must be a list of the values to try, got an empty one.")

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Varied setting -> its values."""
        return dict(_lists(self.grid))


def is_batch_file(word: str) -> bool:
    """Return whether a word names a batch file, and not a recipe."""
    path = Path(word)
    if path.suffix != ".toml" or not path.is_file():
        return False
    tree = read_toml_file(path)
    return bool({"recipes", "runs", "grid", "backbones", "set", "data"} & tree.keys())


def read_batch(path: Path) -> BatchSpec:
    """Return the batch of a file; its name is that of the file if it has none.

    Raises:
        SpecError: an unknown key, or a value of another type.
    """
    tree = {"name": path.stem} | read_toml_file(path)
    return parse(BatchSpec, tree, f"batch {path.name}")


def make_batch(words: Sequence[str], keys: Mapping[str, Any]) -> BatchSpec:
    """Return the batch of a file, or of recipes.

    Args:
        words: a batch file, or recipes.
        keys: as in a batch file; they win over those of the file. Of ``grid``, each setting does.

    Raises:
        SpecError: an unknown key, a value of another type, or a batch file beside something else.
    """
    files = [word for word in words if is_batch_file(word)]
    if files and len(words) > 1:
        raise SpecError(f"{files[0]} is a batch file: give it alone, or give recipes.")
    file = read_batch(Path(files[0])) if files else None
    given = parse(BatchSpec, (plain(file) if file else {"recipes": list(words)}) | dict(keys), "batch")
    return replace(given, grid=(file.axes if file else {}) | given.axes)


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings, nested or with dotted keys, as ``a.b=value``, as after ``--set``."""
    return [f"{key}={toml_value(value)}" for key, value in _flat(settings)]


def toml_value(value: Any) -> str:
    """Return a value as one line of TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key_of(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return tomli_w.dumps({"value": value}).partition("=")[2].strip()


def toml_or_text(text: str) -> Any:
    """Return a value as TOML reads it; a bare word stays text."""
    try:
        return read_toml(f"value = {text}", "")["value"]
    except SpecError:
        return text.strip()


def key_of(key: str) -> str:
    """Return a key as TOML writes it."""
    return tomli_w.dumps({key: 0}).partition("=")[0].strip()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lists(grid: Tree) -> Iterator[tuple[str, list[Any]]]:
    for key, values in _flat(grid):
        if not isinstance(values, list):
            raise SpecError(f"grid: '{key}' must be a list of the values to try, got {toml_value(values)}.")
        yield key, values
