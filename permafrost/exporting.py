"""Export of latents: the rows of a user's data with their latents, in files that other programs read."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.data.machine import check_device_here
from permafrost.data.plan.plan import TOKENS
from permafrost.data.progress import ProgressOption
from permafrost.data.spec import SpecError, override, parse, plain
from permafrost.data.text import Segments
from permafrost.display.choose import display_of
from permafrost.probes.config.recipe import Recipe
from permafrost.user_data import Data, DataArguments, with_found_corpora

if TYPE_CHECKING:  # these load numpy
    from permafrost.data.export.export import ExportResult

TABLES = ("corpus", "plan", "extract", "device")
"""Tables of a recipe whose settings say what is exported."""


def export_latents(
    data: Data,
    out: Path | str,
    format: str = "parquet",  # noqa: A002  the name of the option
    columns: Sequence[str] = (),
    target: str = "",
    overrides: Iterable[str] = (),
    progress: ProgressOption = None,
) -> "ExportResult":
    """Write the rows of data with their latents to a folder; texts that are not cached yet are extracted.

    The rows are in the order of the file. A second call goes on where the first one was stopped.

    Args:
        data, columns, target: as of :func:`permafrost.api.run`; data need no target.
        out: the folder.
        format: ``parquet`` or ``arrow``, a column of vectors for each view and layer beside text, target and split;
            ``npy`` or ``safetensors``, an array ``[layer, text, width]`` for each view, and the rows as parquet.
        overrides: ``a.b=value`` settings of the tables corpus, plan and extract.
        progress: as of :func:`permafrost.api.run`.

    Raises:
        InputError: the data or the backbone cannot be used, or the folder holds something else.
        MachineError: the machine failed; the message says what is safe.
    """
    progress, overrides, out = display_of(progress), list(overrides), Path(out)
    recipe = _recipe(data, columns, target, overrides)
    from permafrost.data.export.corpus_rows import CorpusVectors
    from permafrost.data.export.export import check_folder, export
    from permafrost.data.readers.load import load_all_rows

    asked: dict[str, Any] = {"plan": plain(recipe.plan)}
    check_folder(out, format, asked)
    from permafrost.probes.variants.latent_workspace import LatentWorkspace
    from permafrost.stage_one import PROVIDER

    corpus, splits = load_all_rows(recipe.corpus)
    workspace = LatentWorkspace(PROVIDER, progress)
    workspace.add_corpus(recipe.corpus, corpus)
    if recipe.plan.truncation == "windows" and isinstance(corpus.texts[0], Segments):
        raise SpecError('plan.truncation = "windows" makes several vectors of a question and its context: set "cut".')
    asked["data"] = CorpusVectors(corpus, splits).digest
    check_folder(out, format, asked)
    workspace.prepare([recipe])
    (latents,) = workspace.plan_latents(recipe, recipe.corpus).values()
    about = asked | {
        "identity": plain(latents.store.identity),
        "layers": {view: list(layers) for view, layers in latents.columns.items()},
    }
    return export(out, format, CorpusVectors(corpus, splits, latents.store, latents.columns), about, progress)


def _recipe(data: Data, columns: Sequence[str], target: str, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with the corpus and the plan of an export, and nothing to train."""
    for assignment in overrides:
        if (table := assignment.partition("=")[0].partition(".")[0].strip()) not in TABLES:
            raise SpecError(
                f"--set {assignment}: latents has device and settings of {', '.join(TABLES[:-1])}, and no table "
                f"'{table}'."
                f"'{table}'."
            )
    places = [item for item in overrides if item.startswith(("extract.", "device="))]
    given = parse(Recipe, override({}, places), "latents")
    check_device_here(given.device)
    corpus = DataArguments(data, columns, target, given.extract.cache).corpus_table(Recipe())
    recipe = with_found_corpora(parse(Recipe, override({"corpus": corpus}, overrides), "latents"), "")
    if TOKENS in recipe.plan.views:
        raise SpecError(
            f"plan.views: {TOKENS} has a vector for each token of a text, not one for each text; leave it out."
        )
    return recipe
