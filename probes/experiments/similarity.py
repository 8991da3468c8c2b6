"""Cosines of sentences: which sentences are compared by which backbones, and the arithmetic. No torch."""
# MERGED DOCS:
# """A comparison of sentences from beginning to end: latents in float32, cosines, maps, a run folder."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.data.store.plan import CapturePlan
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.similarity import SimilaritySpec
from permafrost.probes.inputs.providers import LatentProvider, PlanLatents
from permafrost.probes.inputs.store_record import store_record
from permafrost.probes.metrics.cosines import cosines, pairs, square
from permafrost.probes.metrics.projection import project
from permafrost.probes.results.environment import environment
from permafrost.probes.results.outcomes import SimilarityResult
from permafrost.probes.runs.write import RunContents, write_run

LATENTS, COSINES = "latents", "cosines"
"""What a map is of: the latents of one backbone, or the cosines of all."""

SPOKEN_FOR = {"backbone": "similarity.backbones", "views": "similarity.pooling"}
"""Settings of ``[plan]`` that ``[similarity]`` has words of its own for."""

FIXED: dict[str, Any] = {"layers": (-1,), "compute_dtype": "float32", "stored_dtype": "float32"}
"""Settings of ``[plan]`` that are the same in every comparison."""

UNUSED = ("corpus", "plans", "probe", "pretraining", "train", "variants", "ablation", "study")
"""Tables of a recipe that have no say where nothing is trained."""


def compare_sentences(
    name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider
) -> SimilarityResult:
    """Compare the sentences of a recipe and leave a run folder.

    Raises:
        InputError: a setting has no say here, or none of the backbones can be had.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    check(recipe)
    spec = recipe.similarity
    corpus = Corpus(name="sentences", texts=tuple(dict.fromkeys(spec.texts)), splits={})
    found, refused = read_all(recipe, corpus, progress, provider)
    latents = {backbone: _latents(one, spec, corpus) for backbone, one in found.items()}
    tables = {backbone: cosines(values) for backbone, values in latents.items()}
    measured = pairs(tables)
    texts_run = sum(one.texts_run for one in found.values())
    record = environment() | {
        "name": name,
        "summary": recipe.summary,
        "pooling": spec.pooling,
        "backbones": list(found),
        "refused": refused,
        "texts": len(spec.texts),
        "texts_distinct": len(corpus.texts),
        "texts_run": texts_run,
        "stores": {backbone: store_record(one) for backbone, one in found.items()},
        "seconds": {"all": time.perf_counter() - started},
    }
    sentences = pd.DataFrame({"sentence": range(1, len(spec.texts) + 1), "text": spec.texts})
    written = {"cosines": measured, "sentences": sentences, "maps": maps(latents, tables, spec.texts)}
    path = write_run(runs, name, RunContents(recipe=recipe, record=record, tables=written))
    seconds = time.perf_counter() - started
    numbers = pd.RangeIndex(1, len(spec.texts) + 1, name="sentence")
    return SimilarityResult(
        path=path,
        cosines=measured,
        tables={one: pd.DataFrame(square(measured, one, len(numbers)), numbers, numbers) for one in found},
        texts=spec.texts,
        backbones=tuple(found),
        refused=refused,
        texts_run=texts_run,
        seconds=seconds,
    )


def check(recipe: Recipe) -> None:
    """Raise a :class:`SpecError` for a setting that would have no say."""
    if not recipe.similarity.texts:
        raise SpecError("similarity.texts must be two sentences or more, got none.")
    plan, usual = recipe.plan, CapturePlan()
    for key in (*SPOKEN_FOR, *FIXED):
        if getattr(plan, key) not in (getattr(usual, key), FIXED.get(key)):
            way = f"set {SPOKEN_FOR[key]}" if key in SPOKEN_FOR else "it reads the last layer, in float32"
            raise SpecError(f"plan.{key} has no say where sentences are compared: {way}.")
    for name in UNUSED:
        if getattr(recipe, name) != getattr(Recipe(), name):
            raise SpecError(f"[{name}] has no say where sentences are compared, and nothing is trained.")


def read_all(
    recipe: Recipe, corpus: Corpus, progress: Progress, provider: LatentProvider
) -> tuple[dict[str, PlanLatents], dict[str, str]]:
    """Stage one for every backbone; and why those that cannot be had are left out.

    Raises:
        InputError: none of them can be had.
    """
    found: dict[str, PlanLatents] = {}
    refused: dict[str, InputError] = {}
    for backbone in recipe.similarity.backbones:
        plan = replace(recipe.plan, backbone=backbone, views=(recipe.similarity.pooling,), **FIXED)
        try:
            found[backbone] = provider.latents(plan, recipe.extract, corpus, progress)
        except InputError as error:
            refused[backbone] = error
            continue
        if cut := found[backbone].truncated:
            progress.note(f"{backbone}: {cut:,} sentences are longer than plan.max_tokens and were cut")
    if not found:
        raise next(iter(refused.values()))
    for backbone, why in refused.items():
        progress.note(f"{backbone} is left out: {why}")
    return found, {backbone: str(why) for backbone, why in refused.items()}


def maps(
    latents: dict[str, NDArray[np.float32]], tables: dict[str, NDArray[np.float64]], texts: tuple[str, ...]
) -> pd.DataFrame:
    """Sentences in three dimensions: a map a backbone, of its latents; and one of all together.

    Latents of different widths have no space in common. Their cosines do: with ``n`` sentences every sentence is, to
    every backbone, a point with ``n`` coordinates, its cosines with all of them. A sentence that is given twice is one
    point.

    Returns:
        ``map, backbone, sentence, method, x, y, z``.
    """
    first = np.array([place for place, text in enumerate(texts) if text not in texts[:place]])
    frames = [_placed(project(values[first]), LATENTS, [backbone], first) for backbone, values in latents.items()]
    together = np.concatenate([table[first] for table in tables.values()]).astype(np.float32)
    frames.append(_placed(project(together), COSINES, list(tables), first))
    return pd.concat(frames, ignore_index=True)


def _placed(points: pd.DataFrame, of: str, backbones: list[str], sentences: NDArray[np.int64]) -> pd.DataFrame:
    owner, place = np.divmod(points.index.to_numpy(), len(sentences))
    about: dict[str, Any] = {"map": of, "backbone": [backbones[at] for at in owner], "sentence": sentences[place] + 1}
    return pd.DataFrame(about | {name: points[name].to_numpy() for name in ("method", "x", "y", "z")})


def _latents(one: PlanLatents, spec: SimilaritySpec, corpus: Corpus) -> NDArray[np.float32]:
    """``[sentence, width]``; a sentence that is given twice has its latent twice."""
    (layer,) = one.columns[spec.pooling]
    (values,) = one.store.read(corpus.texts, spec.pooling, [layer])
    places = {text: place for place, text in enumerate(corpus.texts)}
    chosen: NDArray[np.float32] = values[[places[text] for text in spec.texts]].astype(np.float32)
    return chosen
