"""Latents of texts as lazy arrays: from the store of a plan, where what is missing is run first, or in memory alone."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from permafrost.data.latents.array import LatentArray
from permafrost.data.latents.sources import MemorySource, StoreSource
from permafrost.data.plan.plan import TOKENS, CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.text import list_of_texts, text_problem
from permafrost.extract.extraction import extract


def text_latents(
    plan: CapturePlan,
    texts: Sequence[str],
    cache: Path | None,
    progress: Progress,
    keep_texts: bool = False,
    device: str = "auto",
) -> dict[str, LatentArray]:
    """Return the latents of texts, view -> ``[layer, text, width]`` in the stored precision; read when they are used.

    Args:
        texts: repeated ones are run once.
        cache: folder of the latent stores; None keeps nothing.
        keep_texts, device: as of :class:`ExtractSpec`.

    Raises:
        SpecError: there are no texts, or the plan has the view ``tokens``.
    """
    if TOKENS in plan.views:
        raise SpecError(
            "the view tokens has one latent for each token of a text, and no array holds these: leave it out."
        )
    texts = _checked(texts)
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if keep_texts and cache is None:
        raise SpecError("keep_texts keeps texts in the cache, and cache is None: name a folder.")
    if cache is not None:
        spec = ExtractSpec(cache=str(cache), keep_texts=keep_texts, device=device)
        found = extract(plan, list(numbers), spec, progress)
        _note(plan, found.store.identity, progress)
        keys = text_keys(texts, found.store.identity.in_windows)
        return {
            view: LatentArray(StoreSource(found.store, keys, view, layers), view, layers, texts)
            for view, layers in found.columns.items()
        }
    from permafrost.extract.extractor import Extractor  # loads torch, which stored latents do without

    with TemporaryDirectory(prefix="permafrost-") as folder:
        extractor = Extractor(plan, ExtractSpec(cache=folder, device=device))
        _note(plan, extractor.identity, progress)
        columns = plan.columns(extractor.backbone.source.layers)
        latents = extractor(list(numbers), columns)
    order = np.array([numbers[text] for text in texts])
    return {
        view: LatentArray(MemorySource(values, order), view, columns[view], texts) for view, values in latents.items()
    }


def _checked(given: Sequence[str]) -> tuple[str, ...]:
    """Return texts; raise a :class:`SpecError` if they are no list of strings, or one of them can be no text."""
    texts = list_of_texts(given)
    for number, text in enumerate(texts, 1):
        if problem := text_problem(text):
            raise SpecError(f"text {number:,} {problem}; leave it out.")
    if not texts:
        raise SpecError("there are no texts; give one or more.")
    return tuple(texts)


def _note(plan: CapturePlan, identity: Identity, progress: Progress) -> None:
    if note := plan.limit_note(identity.max_tokens):
        progress.note(note)
