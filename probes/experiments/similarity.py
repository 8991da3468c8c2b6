"""Comparison of sentences: their cosine similarities by one or several backbones, maps of them, and a run folder.

Latents are of the last layer, in float32, and nothing is trained.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.data.store.store import PlanLatents
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.similarity import SimilaritySpec
from permafrost.probes.inputs.providers import LatentProvider, latents_record
from permafrost.probes.metrics.cosines import cosine_matrix, pair_table
from permafrost.probes.metrics.projection import project
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import SimilarityResult
from permafrost.probes.results.read_result import read_similarity
from permafrost.probes.runs.write import RunWriter

LATENTS, COSINES = "latents", "cosines"
"""Kinds of maps: of the latents of one backbone, or of the cosine similarities of all backbones."""

SET_ELSEWHERE = {"backbone": "similarity.backbones", "views": "similarity.pooling"}
"""Keys of ``[plan]`` that a comparison takes from ``[similarity]``."""

FIXED: dict[str, Any] = {"layers": (-1,), "compute_dtype": "float32", "stored_dtype": "float32"}
"""Keys of ``[plan]`` that have the same value in every comparison."""

UNUSED = ("corpus", "plans", "probe", "pretraining", "train", "variants", "ablation", "study")
"""Tables of a recipe that a comparison does not use."""


def compare_sentences(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider
) -> SimilarityResult:
    """Compare the sentences of a recipe and write a run folder.

    Raises:
        InputError: a setting that comparisons do not use, or no backbone can be read.
        MachineError: the machine failed; the message says what is safe.
    """
    writer = RunWriter(runs, name, recipe, "similarity")
    _check(recipe)
    spec = recipe.similarity
    corpus = Corpus(name="sentences", texts=tuple(dict.fromkeys(spec.texts)), splits={})
    stored, refused = _extract(recipe, corpus, progress, provider)
    latents = {backbone: _sentence_latents(plan_latents, spec, corpus) for backbone, plan_latents in stored.items()}
    matrices = {backbone: cosine_matrix(values) for backbone, values in latents.items()}
    measured = pair_table(matrices)
    texts_run = sum(plan_latents.texts_run for plan_latents in stored.values())
    record = {
        "pooling": spec.pooling,
        "backbones": list(stored),
        "refused": refused,
        "texts": len(spec.texts),
        "texts_distinct": len(corpus.texts),
        "texts_run": texts_run,
        "stores": {backbone: latents_record(plan_latents) for backbone, plan_latents in stored.items()},
    }
    sentences = pd.DataFrame({"sentence": range(1, len(spec.texts) + 1), "text": spec.texts})
    tables = {"cosines": measured, "sentences": sentences, "maps": _maps(latents, matrices, spec.texts)}
    return read_similarity(writer.write(record, tables))


def _check(recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if there are no sentences, or for a setting that a comparison does not use."""
    if not recipe.similarity.texts:
        raise SpecError("similarity.texts must be two sentences or more, got none.")
    plan, default = recipe.plan, CapturePlan()
    for key in (*SET_ELSEWHERE, *FIXED):
        if getattr(plan, key) not in (getattr(default, key), FIXED.get(key)):
            advice = f"set {SET_ELSEWHERE[key]}" if key in SET_ELSEWHERE else "it reads the last layer, in float32"
            raise SpecError(f"plan.{key} has no effect on a comparison of sentences: {advice}.")
    for table in UNUSED:
        if getattr(recipe, table) != getattr(Recipe(), table):
            raise SpecError(f"[{table}] has no effect on a comparison of sentences: nothing is trained.")


def _extract(
    recipe: Recipe, corpus: Corpus, progress: Progress, provider: LatentProvider
) -> tuple[dict[str, PlanLatents], dict[str, str]]:
    """Return backbone -> latents, and backbone -> reason of those that cannot be read.

    Raises:
        InputError: no backbone can be read.
    """
    stored: dict[str, PlanLatents] = {}
    errors: dict[str, InputError] = {}
    for backbone in recipe.similarity.backbones:
        plan = replace(recipe.plan, backbone=backbone, views=(recipe.similarity.pooling,), **FIXED)
        try:
            stored[backbone] = provider.latents(plan, recipe.extraction, corpus, progress)
        except InputError as error:
            errors[backbone] = error
            continue
        if note := plan.limit_note(stored[backbone].store.identity.max_tokens):
            progress.note(note)
        if truncated := stored[backbone].truncated:
            progress.note(
                f"{backbone}: {truncated:,} sentences are longer than plan.max_tokens and were cut; plan.truncation = "
                '"windows" reads them whole'
            )
    if not stored:
        raise next(iter(errors.values()))
    reasons = {backbone: str(error) for backbone, error in errors.items()}
    for backbone, reason in reasons.items():
        progress.note(f"{backbone} is left out: {reason}")
    return stored, reasons


def _maps(
    latents: dict[str, NDArray[np.float32]], matrices: dict[str, NDArray[np.float64]], texts: tuple[str, ...]
) -> pd.DataFrame:
    """Return 3-D maps of the sentences: one per backbone, of its latents, and one of all backbones together.

    Latents of different widths share no space, but their cosine similarities do: with ``n`` sentences, a sentence is,
    to every backbone, a point of ``n`` coordinates, its similarity to each of them. Repeated sentences are one point.

    Returns:
        Columns ``map, backbone, sentence, method, x, y, z``.
    """
    distinct = np.array([index for index, text in enumerate(texts) if text not in texts[:index]])
    similarities = np.concatenate([matrix[distinct] for matrix in matrices.values()]).astype(np.float32)
    mapped = [(LATENTS, [backbone], values[distinct]) for backbone, values in latents.items()]
    frames = []
    for kind, backbones, values in [*mapped, (COSINES, list(matrices), similarities)]:
        points = project(values)  # sorted by backbone, then sentence
        backbone_index, sentence_index = np.divmod(points.index.to_numpy(), len(distinct))
        names = [backbones[index] for index in backbone_index]
        frames.append(points.assign(map=kind, backbone=names, sentence=distinct[sentence_index] + 1))
    return pd.concat(frames, ignore_index=True)[["map", "backbone", "sentence", "method", "x", "y", "z"]]


def _sentence_latents(stored: PlanLatents, spec: SimilaritySpec, corpus: Corpus) -> NDArray[np.float32]:
    """Return ``[sentence, width]``; a repeated sentence has its latent repeated."""
    (layer,) = stored.columns[spec.pooling]
    (values,) = stored.store.read(corpus.texts, spec.pooling, [layer])
    row_of_text = {text: row for row, text in enumerate(corpus.texts)}
    latents: NDArray[np.float32] = values[[row_of_text[text] for text in spec.texts]].astype(np.float32)
    return latents
