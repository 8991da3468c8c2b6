"""What a user looks at before or without a training: a file of data, a backbone, latents of texts or of a store."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import ProgressOption
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import override, parse
from permafrost.display.choose import display_of
from permafrost.probes.config.recipe import Recipe
from permafrost.user_data import Data, DataArguments

if TYPE_CHECKING:  # these load torch or numpy
    import numpy as np
    from numpy.typing import NDArray

    from permafrost.data.latents.array import LatentArray
    from permafrost.data.latents.reader import StoreReader
    from permafrost.data.readers.summary import CorpusSummary
    from permafrost.extract.examination import Examination

MOST_COUNTED = 2000
"""Texts whose tokens are counted when data are looked at."""


def look(
    data: Data,
    columns: Sequence[str] = (),
    target: str = "",
    overrides: Iterable[str] = (),
    backbone: str = CapturePlan().backbone,
    cache: Path | str = "cache",
) -> tuple["CorpusSummary", "NDArray[np.int64]"]:
    """Read data as a run would, and run nothing.

    Args:
        data, columns, target: as of :func:`run`.
        overrides: ``corpus.KEY=value`` settings, as after ``--set``.
        backbone: its tokenizer counts tokens.
        cache: as ``extract.cache``.

    Returns:
        what the data hold, and the number of tokens of each of the first 2,000 distinct texts ``[text]``, special
        tokens included.

    Raises:
        InputError: the data or the tokenizer cannot be found; the file cannot be read; or it is not clear which columns
            hold texts and target.
    """
    spec = parse(
        Recipe,
        override({"corpus": DataArguments(data, columns, target, str(cache)).corpus_table(Recipe())}, overrides),
        "look",
    )
    from permafrost.data.readers.summary import summarize
    from permafrost.extract.tokenization.lengths import token_lengths

    summary = summarize(spec.corpus)
    return summary, token_lengths(backbone, summary.texts[:MOST_COUNTED], str(cache))


def backbone(name: str, cache: Path | str = "cache", device: str = "auto", adapter: str = "") -> "Examination":
    """Examine a backbone: its architecture, the roads by which texts may share a pass, its largest values, its speed.

    Args:
        name, cache, adapter: as ``plan.backbone``, ``extract.cache`` and ``plan.adapter``.

    Raises:
        InputError, MachineError: it cannot be found, is no model of text, or has no road that is exact.
    """
    from permafrost.extract.examination import examine

    return examine(name, ExtractSpec(cache=str(cache), device=device), adapter)


def latents(
    texts: Sequence[str],
    backbone: str,
    views: Sequence[str] | str = ("mean",),
    layers: Sequence[int] | int | str = "all",
    max_tokens: int | str = CapturePlan().max_tokens,
    cache: Path | str | None = "cache",
    progress: ProgressOption = None,
    adapter: str = "",
    keep_texts: bool = False,
    **others: Any,
) -> dict[str, "LatentArray"]:
    """Return the latents of texts, view -> ``[layer, text, width]``; what the cache holds is not run again.

    The arrays are lazy: they read of the cache what is indexed, or everything for ``numpy.asarray``.

    Args:
        texts: repeated ones are run once, and read as often as they are given.
        backbone: a short name, a folder of a model, or an id on the Hugging Face hub.
        views: how the hidden states of a text become one vector: mean, last, text_last, cls, ...; not ``tokens``.
        layers: indices, 0 for the embeddings and -1 for the last layer; "all"; or a range, as in a plan. They are in
            ascending order in the arrays, whose ``layers`` names them.
        max_tokens: longer texts are cut; as in a plan.
        cache: folder of the latent stores; None keeps the latents in memory only.
        progress: as of :func:`permafrost.api.run`.
        adapter: folder of a LoRA adapter of the backbone, as in a plan.
        keep_texts: keep the texts in the cache too, as ``extract.keep_texts``.
        others: further settings of a plan: ``template``, ``system``, ``compute_dtype``, ``stored_dtype``, ...

    Raises:
        InputError: the backbone, a view, a layer or a text cannot be used.
        MachineError: the machine failed; the message says what is safe.
    """
    from permafrost.data.latents.selection import layer_list

    views = [views] if isinstance(views, str) else list(views)
    settings = {"backbone": backbone, "adapter": adapter, "views": views, "layers": layer_list(layers)}
    plan = parse(CapturePlan, settings | {"max_tokens": max_tokens} | others, "latents")
    from permafrost.extract.text_latents import text_latents

    return text_latents(
        plan, texts, None if cache is None else local_cache(str(cache)), display_of(progress), keep_texts
    )


def open_store(path: Path | str = "cache") -> "StoreReader":
    """Open a store of latents, without its corpus or its backbone.

    Args:
        path: the folder of a store, ``cache/<backbone>/<identity>``; or a folder, or an address as
            ``s3://bucket/latents``, with one store below it.

    Raises:
        InputError: there is no store, or there are several.
        MachineError: a shard is damaged.
    """
    from permafrost.data.latents import reader

    return reader.open_store(local_cache(str(path)))
