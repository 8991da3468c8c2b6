"""Recipe loading: a shipped recipe by name or a file by path, with overrides, to a validated :class:`Recipe`.

Order of precedence: defaults < recipe < ``--set``.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from permafrost.data.digests import DIGESTS, DamageError, digest_of, parse_with_digests, read_record_bytes
from permafrost.data.errors import MachineError
from permafrost.data.remote.mirror import local_cache
from permafrost.data.settings.toml import as_text, read_content, read_toml
from permafrost.data.spec import SpecError, Tree, nearest, override, parse, plain
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.names import RECORD
from permafrost.probes.config.recipe import Recipe

FOLDER = Path(__file__).parent.parent / "recipes"

LANGUAGE = "language"
"""Name of a recipe's own language model: its table ``[language]``, and the value of ``backbone`` that refers to it."""


Overrides = Iterable[str]
"""``a.b=value`` settings, as after ``--set``."""

CorpusTable = Callable[[Recipe], Tree]
"""Function from a recipe to the table that takes the place of its ``[corpus]``."""

RENAMED = {
    "takes": "'duration'",
    "upper": "'finetune' (beside: frozen_layers)",
    "together": "'multitask' (batches: schedule = separate, joint, round_robin, proportional or temperature)",
}
"""Top-level keys of earlier versions -> what they are called now, for the error message."""


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes, name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_recipe(name: str, overrides: Overrides = (), corpus: CorpusTable | None = None) -> tuple[str, Recipe]:
    """Load a shipped recipe by name, or a recipe file by path, and apply overrides.

    Args:
        name: name of a shipped recipe, or a path that ends in ``.toml``.
        overrides: ``key=value`` as of ``--set``; a later one wins.
        corpus: makes the table ``[corpus]`` that takes the place of the recipe's, before the overrides.

    Returns:
        the name of the recipe, and the recipe.

    Raises:
        SpecError: there is no such recipe, or it has an unknown key or an invalid value.
        DamageError: the file is part of a run folder and differs from what the run wrote.
    """
    path = Path(name) if name.endswith(".toml") else shipped_recipes().get(name)
    if path is None:
        raise SpecError(f"unknown recipe '{name}'. {nearest(name, shipped_recipes())}")
    tree = read_toml(_read_recipe(path), str(path))
    if corpus and not RENAMED.keys() & tree.keys():
        tree["corpus"] = corpus(parse(Recipe, tree, f"recipe {path.name}"))
    tree = override(tree, overrides)
    if renamed := [f"'{key}' is now {name}" for key, name in RENAMED.items() if key in tree]:
        raise SpecError(
            f"recipe {path.name}: keys of an earlier version: {'; '.join(renamed)}. 'config' shows every key and its "
            "meaning."
        )
    recipe = parse(Recipe, tree, f"recipe {path.name}")
    _check_multitask(path.stem, recipe)
    return path.stem, recipe


def _check_multitask(name: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if a setting of several tasks would have no effect."""
    for variant_name, variant in recipe.variant_recipes().items():
        source = f"recipe '{name}'" + (f", variant '{variant_name}'" if recipe.variants else "")
        if variant.tasks:
            continue
        if variant.multitask.schedule != "separate":
            raise SpecError(
                f"{source}: multitask.schedule = {variant.multitask.schedule} trains several tasks, and there are "
                "none; add a table [tasks.NAME] for each."
            )
        if variant.balancing != BalancingSpec():
            raise SpecError(
                f"{source}: [balancing] balances the losses of several tasks, and there are none; leave it out, or add "
                "a table [tasks.NAME] for each."
            )
    if recipe.tasks and recipe.multitask.schedule == "separate" and recipe.variants:
        raise SpecError(
            f"recipe '{name}' trains layers task by task, which knows no variants; set multitask.schedule to train the "
            "tasks together, or leave [[variants]] out."
        )


def load_training(name: str, overrides: Iterable[str] = (), corpus: CorpusTable | None = None) -> tuple[str, Recipe]:
    """Load a recipe that trains probes; arguments and errors as of :func:`load_recipe`."""
    name, recipe = load_recipe(name, overrides, corpus)
    if recipe.similarity.texts:
        raise SpecError(f"recipe '{name}' compares sentences and trains nothing: 'run' it.")
    return name, recipe


def load_one_task(name: str, overrides: Iterable[str] = (), corpus: CorpusTable | None = None) -> tuple[str, Recipe]:
    """Load like :func:`load_training`; refuse a recipe of several tasks."""
    name, recipe = load_training(name, overrides, corpus)
    if recipe.tasks:
        training = f"trains layers on {len(recipe.tasks)} tasks"
        if recipe.multitask.schedule != "separate":
            training = f"trains {len(recipe.tasks)} tasks together"
        raise SpecError(f"recipe '{name}' {training}: 'run' it.")
    return name, recipe


def check_trainable(name: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if a recipe only pretrains, or names a language model that it does not describe."""
    if recipe.language.corpus and not (recipe.corpus.name or recipe.corpus.path or recipe.tasks):
        raise SpecError(
            f"recipe '{name}' pretrains a model and has no corpus to train a probe on: 'pretrain' it, then name its "
            "folder as plan.backbone of another recipe."
        )
    resolve_language_model(name, recipe)


def check_language_model(name: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if the recipe describes no language model to pretrain."""
    if not recipe.language.corpus:
        raise SpecError(f"recipe '{name}' has no table [{LANGUAGE}] with a corpus: there is nothing to pretrain.")


def check_frozen(recipe: Recipe, advice: str = "'run' the recipe") -> None:
    """Check that a recipe whose layers are compared does not fine-tune them.

    Args:
        advice: what else the user can do, for the message.
    """
    if recipe.finetune.trains_backbone:
        raise SpecError(
            f"finetune.cut = {recipe.finetune.cut}: layers of fine-tuned blocks change during training and cannot be "
            f'compared; set finetune.cut = "frozen", or {advice}.'
        )


def names_own_backbone(recipe: Recipe) -> bool:
    """Return whether a backbone of the recipe is the recipe's own language model."""
    tree = plain(recipe)
    return bool(_with_backbone(tree, "") != tree)


def resolve_language_model(name: str, recipe: Recipe) -> Recipe:
    """Return the recipe with the folder of its language model filled in, also for every backbone called "language".

    Raises:
        SpecError: a backbone is called "language" and the recipe describes no language model.
    """
    tree = plain(recipe)
    if not recipe.language.corpus:
        if names_own_backbone(recipe):
            raise SpecError(
                f"recipe '{name}': a backbone is called '{LANGUAGE}', and no language.corpus says of what text."
            )
        return recipe
    tree[LANGUAGE]["folder"] = tree[LANGUAGE]["folder"] or str(local_cache(recipe.extract.cache) / "models" / name)
    return parse(Recipe, _with_backbone(tree, tree[LANGUAGE]["folder"]), f"recipe {name}")


def _with_backbone(tree: Any, folder: str, key: str = "") -> Any:
    """Return the tree with ``folder`` in place of every backbone that is called "language"."""
    if isinstance(tree, dict):
        return {name: _with_backbone(value, folder, str(name)) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_with_backbone(value, folder, key) for value in tree]
    return folder if tree == LANGUAGE and key.endswith(("backbone", "backbones")) else tree


def _read_recipe(path: Path) -> str:
    """Read the text of a recipe file.

    Raises:
        SpecError: it cannot be read.
        DamageError: it is not as the run of its folder wrote it.
    """
    content, record = read_content(path), path.with_name(RECORD)
    if record.is_file():
        remedy = f"copy the run again, or {path.name} to a folder of its own to run it as it is"
        recorded = parse_with_digests(
            record, read_record_bytes(record, remedy), remedy
        )  # None if another version wrote the run
        if recorded and recorded[DIGESTS].get(path.name, digest_of(content)) != digest_of(content):
            raise DamageError(f"{path} is not as the run wrote it: {remedy}.")
    return as_text(content, path)


def read_file(path: Path) -> bytes:
    """Read a file; raise a :class:`MachineError` if that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror or error}).") from error
