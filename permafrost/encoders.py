"""Part of the Python interface: functions on encoders alone, which train no probe.

As in :mod:`permafrost.api`, what loads torch is imported only after the recipe has been checked.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.machine import check_device_here
from permafrost.data.progress import Progress, ProgressOption
from permafrost.display.choose import display_of
from permafrost.named_runs import IfDone, PlannedRun
from permafrost.probes.config.load import Overrides, check_language_model, load_recipe
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.similarity import with_arguments
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import SimilarityResult
from permafrost.probes.results.read_result import read_similarity
from permafrost.probes.results.run_folder import checked_folder

if TYPE_CHECKING:  # loads torch
    from permafrost.probes.experiments.language_model import PretrainingResult


def pretrain(
    recipe: str, overrides: Overrides = (), runs: Path | str = "runs", progress: ProgressOption = None
) -> "PretrainingResult":
    """Pretrain the language model that a recipe's table ``[language]`` describes, unless its folder holds it already.

    Writes a model folder, which a recipe can name as ``plan.backbone``, and a run folder with losses and metrics.

    Raises:
        InputError: the table or the text is missing, the folder holds another model, the vocabulary does not fit, or
            the loss is not finite.
        MachineError: the machine failed; the message says what is safe.
    """
    recipe_name, spec = load_recipe(recipe, overrides)
    check_language_model(recipe_name, spec)
    check_device_here(spec.device)
    runs = checked_folder(runs)
    from permafrost.extract.pretraining.pretrain import pretrain as pretrain_model
    from permafrost.probes.experiments.language_model import run_pretraining

    return run_pretraining(recipe_name, spec, runs, display_of(progress), pretrain_model)


def similarity(
    texts: Sequence[str] | None = None,
    backbones: Sequence[str] = (),
    pooling: str = "",
    overrides: Overrides = (),
    runs: Path | str = "runs",
    progress: ProgressOption = None,
) -> SimilarityResult:
    """Compute the cosine of every pair of sentences in float32, for each backbone, and write a run folder.

    Args:
        texts: two or more sentences. None: those of the recipe ``similarity``.
        backbones: sentence encoders. One that cannot be located is left out if others remain. Empty: the recipe's.
        pooling: of the last layer: ``mean`` over all tokens, special tokens included, or ``cls``, the first token.
            Empty: the recipe's.

    Raises:
        InputError: there are fewer than two sentences, one is empty, or no backbone can be located.
    """
    recipe_name, spec = load_recipe("similarity", overrides)
    check_device_here(spec.device)
    spec = replace(spec, similarity=with_arguments(spec.similarity, texts, backbones, pooling))
    return compare(recipe_name, spec, runs, display_of(progress))


def compare(
    recipe_name: str, recipe: Recipe, runs: Path | str, progress: Progress, name: str = "", if_done: IfDone = "skip"
) -> SimilarityResult:
    """Compare the sentences of a recipe; ``name`` and ``if_done`` are as of :func:`permafrost.api.run`."""

    def work(destination: Destination) -> SimilarityResult:
        from permafrost.probes.experiments.similarity import compare_sentences
        from permafrost.stage_one import PROVIDER

        return compare_sentences(recipe_name, recipe, destination, progress, PROVIDER)

    planned = PlannedRun(Destination(checked_folder(runs), name), recipe, "similarity", if_done)
    return planned.run(work, read_similarity, progress)
