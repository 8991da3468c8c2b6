"""From the name or the file of a recipe, and overrides, to a recipe that makes sense."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from permafrost.data.digests import DIGESTS, DamageError, digest_of, parse_with_digests
from permafrost.data.errors import MachineError
from permafrost.data.spec import SpecError, Tree, nearest, override, parse, plain, read_toml
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.names import RECORD
from permafrost.probes.config.recipe import Recipe

FOLDER = Path(__file__).parent.parent / "recipes"

LANGUAGE = "language"
"""A recipe's word for its own language model: the table that describes it, and the backbone that it is."""


def shipped() -> dict[str, Path]:
    """Name -> file of every recipe that ships."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_recipe(name: str, overrides: Iterable[str] = ()) -> tuple[str, Recipe]:
    """A shipped recipe by name, or your own by path, with ``--set`` overrides; returns its name and the recipe.

    Raises:
        SpecError: no such recipe, an unknown key, a value that cannot be.
        DamageError: it lies in a run folder and is not as the run wrote it.
    """
    path = Path(name) if name.endswith(".toml") else shipped().get(name)
    if path is None:
        raise SpecError(f"unknown recipe '{name}'. {nearest(name, shipped())}")
    try:
        text = read_recipe_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    tree: Tree = override(read_toml(text, str(path)), overrides)
    recipe = parse(Recipe, tree, f"recipe {path.name}")
    _check_several(path.stem, recipe)
    return path.stem, recipe


def _check_several(name: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` where something is said of several tasks, and nothing heeds it."""
    for variant, one in recipe.variant_recipes().items():
        of = f"recipe '{name}'" + (f", variant '{variant}'" if recipe.variants else "")
        if one.tasks:
            continue
        if one.multitask.schedule != "separate":
            raise SpecError(
                f"{of}: multitask.schedule = {one.multitask.schedule} trains several tasks, and there are none; add a "
                "table [tasks.NAME] for each."
            )
        if one.balancing != BalancingSpec():
            raise SpecError(
                f"{of}: [balancing] balances the losses of several tasks, and there are none; leave it out, or add a "
                "table [tasks.NAME] for each."
            )
    if recipe.tasks and recipe.multitask.schedule == "separate" and recipe.variants:
        raise SpecError(
            f"recipe '{name}' trains layers task by task, which knows no variants; set multitask.schedule to train the "
            "tasks together, or leave [[variants]] out."
        )


def load_training(name: str, overrides: Iterable[str] = (), one_task: bool = False) -> tuple[str, Recipe]:
    """A recipe that trains something, as :func:`load_recipe`.

    Args:
        one_task: whether it must pose one task only.
    """
    name, recipe = load_recipe(name, overrides)
    if recipe.similarity.texts:
        raise SpecError(f"recipe '{name}' compares sentences and trains nothing: 'run' it.")
    if one_task and recipe.tasks:
        what = f"trains layers on {len(recipe.tasks)} tasks"
        if recipe.multitask.schedule != "separate":
            what = f"trains {len(recipe.tasks)} tasks together"
        raise SpecError(f"recipe '{name}' {what}: 'run' it.")
    return name, recipe


def check_trains(name: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if a recipe does nothing but pretrain, or calls a backbone language that it has not."""
    if recipe.language.corpus and not (recipe.corpus.name or recipe.corpus.path or recipe.tasks):
        raise SpecError(
            f"recipe '{name}' pretrains a model and has no corpus to train a probe on: 'pretrain' it, then name its "
            "folder as plan.backbone of another recipe."
        )
    with_folder(name, recipe)


def names_own_backbone(recipe: Recipe) -> bool:
    """Whether a backbone of a recipe is its own language model."""
    tree = plain(recipe)
    return bool(_with_backbone(tree, "") != tree)


def with_folder(name: str, recipe: Recipe) -> Recipe:
    """The recipe with the folder of its language model said, and in the place of every backbone called language.

    Raises:
        SpecError: a backbone is called so and there is no such model.
    """
    tree = plain(recipe)
    if not recipe.language.corpus:
        if names_own_backbone(recipe):
            raise SpecError(
                f"recipe '{name}': a backbone is called '{LANGUAGE}', and no language.corpus says of what text."
            )
        return recipe
    tree[LANGUAGE]["folder"] = tree[LANGUAGE]["folder"] or str(Path(recipe.extract.cache) / "models" / name)
    return parse(Recipe, _with_backbone(tree, tree[LANGUAGE]["folder"]), f"recipe {name}")


def _with_backbone(tree: Any, folder: str, key: str = "") -> Any:
    """A tree with ``folder`` in the place of every backbone called language."""
    if isinstance(tree, dict):
        return {name: _with_backbone(value, folder, str(name)) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_with_backbone(value, folder, key) for value in tree]
    return folder if tree == LANGUAGE and key.endswith(("backbone", "backbones")) else tree


def read_recipe_file(path: Path) -> str:
    """The text of a recipe; one that lies in a run folder is compared with its digest.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
        DamageError: it, or the record beside it, is not as the run wrote it.
    """
    content, record = path.read_bytes(), path.with_name(RECORD)
    if record.is_file():
        way = f"copy the run again, or {path.name} to a folder of its own to run it as it is"
        about = parse_with_digests(record, read_file(record), way)  # a run of another version has none, and runs again
        if about and about[DIGESTS].get(path.name, digest_of(content)) != digest_of(content):
            raise DamageError(f"{path} is not as the run wrote it: {way}.")
    return content.decode("utf-8")


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror or error}).") from error
