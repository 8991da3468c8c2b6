"""Embedding of files of texts, by a trained probe or a backbone, and the search for the nearest texts.

Vectors go to an npy file; the texts and what made the vectors lie beside it in ``<name>.texts.parquet``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from permafrost.data.digests import DamageError, digest_of_parts, file_digest
from permafrost.data.errors import InputError, first_line
from permafrost.data.export.export import make_folder
from permafrost.data.export.table_files import METADATA, write_columns
from permafrost.data.export.tensor_files import npy_file, write_tensors
from permafrost.data.export.vectors import Tensor
from permafrost.data.plan.plan import TOKENS, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError, fingerprint, override, parse, plain
from permafrost.probes.config.names import RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.stage_one import PlannedTexts

if TYPE_CHECKING:
    from permafrost.data.latents.array import LatentArray

Vectors = NDArray[np.float32]

VECTORS = "vectors"
"""Key of what is recorded beside the vectors: their digest, once all are written."""

REMEDY = "remove the vectors and the texts beside them, and embed the texts again"

SEARCH_ROWS = 4096
"""Vectors that are compared with the query at once."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """What makes vectors of texts."""

    identity: Mapping[str, Any]
    """Plain values that differ if the vectors do."""

    meaning: str
    """What the cosine of two vectors is, in a line."""

    is_score: bool
    """Whether that is the raw score of a run."""

    reader: Callable[[Sequence[str], Progress], Callable[[int, int], Vectors]]
    """Texts -> function that returns the vectors ``[text, width]`` from one text to before another."""

    planned: Callable[[Sequence[str]], list[PlannedTexts]]
    """Texts -> what is read of them, each text once; it may be extracted into a store before."""

    def embed(self, texts: Sequence[str], progress: Progress) -> Vectors:
        """Return the vectors of texts, ``[text, width]``."""
        return self.reader(texts, progress)(0, len(texts))


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Texts with their vectors, which may be on the disk."""

    texts: Sequence[str]
    vectors: Vectors
    existed: bool = False
    """Whether the file was there already."""


@dataclass(frozen=True)
class Neighbour:
    """A text that is near a query."""

    score: float
    """Cosine with the query."""

    number: int
    """Number of the text in its file, from 1."""

    text: str


def make_embedder(
    name: str, task: str, view: str, overrides: Iterable[str], backbone: str = "", device: str = ""
) -> Embedder:
    """Return what embeds: the probe of a run if ``name`` is a run folder, else the last layer of a backbone.

    Args:
        task: of a run with several.
        view: of a backbone; empty takes that of ``plan.views``.
        overrides: settings of the tables plan and extract, for a backbone.
        device: as the setting ``device``.
        backbone: place of the backbone of a run, as of :func:`permafrost.api.load`.

    Raises:
        InputError: it is neither, or settings are given that it does not have.
    """
    settings = [*overrides, *([f"plan.views={view}"] if view else [])]
    if (Path(name) / RECORD).is_file():
        if settings:
            raise SpecError(f"{name} is a run, which embeds with its own settings: leave {settings[0]} out.")
        return _run_embedder(Path(name), task, backbone, device)
    if Path(name).parent.name and Path(name).parent.is_dir() and not Path(name).exists():
        raise InputError(f"{name}: there is no such run folder, and no folder of a model.")
    if backbone:
        raise SpecError(f"--backbone {backbone}: {name} is no run folder, and is the backbone itself: leave it out.")
    if task:
        raise SpecError(f"--task {task}: {name} is no run folder, and a backbone has no tasks.")
    return _backbone_embedder(name, [*settings, *([f"device={device}"] if device else [])])


def _run_embedder(path: Path, task: str, backbone: str, device: str) -> Embedder:
    from permafrost.api import load
    from permafrost.probes.prediction.embedding import describe_vectors

    predictor = load(path, task, backbone, device)
    task = predictor.task_to_embed(task)
    meaning = describe_vectors(predictor.tasks[task])

    def reader(texts: Sequence[str], progress: Progress) -> Callable[[int, int], Vectors]:
        return lambda start, stop: predictor.embed(texts[start:stop], task)

    identity = {"run": file_digest(path / RECORD), "task": task}
    return Embedder(
        identity=identity,
        meaning=meaning.text,
        is_score=meaning.is_score,
        reader=reader,
        planned=lambda texts: predictor.texts_to_embed(texts, task),
    )


def _backbone_embedder(name: str, settings: Sequence[str]) -> Embedder:
    recipe = parse(Recipe, override({"plan": {"backbone": name, "layers": [-1]}}, settings), "embed")
    plan, spec = recipe.plan, recipe.extraction
    if len(plan.views) != 1 or TOKENS in plan.views:
        raise SpecError(f"embed takes one pooled view: set plan.views (--view) to one of {list(plan.views)}, or mean.")
    from permafrost.extract.resolved_plan import resolve_plan
    from permafrost.extract.text_latents import text_latents

    resolved = resolve_plan(plan, spec)
    layers = plan.columns(resolved.source.layers)[plan.views[0]]
    if len(layers) != 1:
        raise SpecError(f"embed takes one layer: set plan.layers to one of {list(layers)}.")

    def reader(texts: Sequence[str], progress: Progress) -> Callable[[int, int], Vectors]:
        latents: LatentArray = text_latents(plan, texts, local_cache(spec.cache), progress, device=spec.device)[
            plan.views[0]
        ]
        return lambda start, stop: np.asarray(latents[0, start:stop], np.float32)

    identity = {"identity": plain(resolved.identity), "view": plan.views[0], "layer": layers[0]}
    meaning = f"vectors are the {plan.views[0]} of layer {layers[0]} of {name}"
    read = ExtractSpec(cache=spec.cache, device=spec.device)  # as the reader does
    return Embedder(
        identity=identity,
        meaning=meaning,
        is_score=False,
        reader=reader,
        planned=lambda texts: [PlannedTexts(plan, read, list(dict.fromkeys(texts)), lambda store: None)],
    )


class _TextVectors:
    """Texts with their vectors: a :class:`permafrost.data.export.vectors.VectorSource`."""

    schema = pa.schema([("text", pa.string())])

    def __init__(self, texts: Sequence[str], width: int, vectors: Callable[[int, int], Vectors]) -> None:
        self._texts, self._vectors = texts, vectors
        self.tensors = [Tensor(name="vectors", layers=None, rows=len(texts), width=width, bits="float32")]

    def read(self, start: int, stop: int) -> dict[str, NDArray[np.floating[Any]]]:
        """As :meth:`VectorSource.read`."""
        return {"vectors": self._vectors(start, stop)[None]}

    def columns(self, start: int, stop: int) -> pa.Table:
        """As :meth:`VectorSource.columns`."""
        return pa.table([self._texts[start:stop]], schema=self.schema)


def embed_file(embedder: Embedder, texts: Sequence[str] | None, out: Path, progress: Progress) -> Embedded:
    """Write the vectors of texts to an npy file, unless they are there; go on with a file that was begun.

    Args:
        texts: None takes those of a file that is there.

    Raises:
        InputError: the file is there with vectors of other texts or of another model, or there are no texts.
        DamageError: it or the file of texts is not as it was written.
    """
    if out.suffix != ".npy":
        raise InputError(f"--out {out}: vectors are written as .npy; name the file so.")
    beside = out.with_suffix(".texts.parquet")
    for path in (out, beside):
        if path.exists() and not path.is_file():
            raise InputError(f"--out {out}: {path.name} is no regular file; name another file.")
    known = _read_about(out, beside)
    if texts is None and not (known and out.is_file() and known.get(VECTORS)):
        raise InputError(f"--out {out}: there are no vectors yet; give the texts, --file FILE.")
    about = dict(embedder.identity)
    if texts is not None:
        about["texts"] = digest_of_parts(text.encode() for text in texts)
    if known is not None and any(known.get(key) != value for key, value in about.items()):
        is_same_model = all(known.get(key) == value for key, value in embedder.identity.items())
        others = "other texts" if is_same_model else "another model"
        raise InputError(f"--out {out}: it holds vectors of {others}; name another file, or remove this one.")
    if known and out.is_file() and known.get(VECTORS):
        return _read_embedded(out, beside, known)
    assert texts is not None
    vectors = embedder.reader(texts, progress)
    source = _TextVectors(texts, vectors(0, 1).shape[1], vectors)
    make_folder(out.parent)
    write_columns(beside, source, about)
    state = out.with_name(f".{out.name}.state")
    with progress.bar("texts to npy", len(texts)) as advance:
        write_tensors([npy_file(out, source.tensors[0])], source, state, fingerprint(about), advance)
    write_columns(beside, source, about | {VECTORS: file_digest(out)}, anew=True)
    return Embedded(texts=texts, vectors=np.load(out, mmap_mode="r"))


def _read_embedded(out: Path, beside: Path, known: Mapping[str, Any]) -> Embedded:
    """Return what is in a finished file of vectors and the one of its texts; both are compared with their digests."""
    try:
        texts = parquet.read_table(beside)["text"].to_pylist()
        changed = beside if digest_of_parts(text.encode() for text in texts) != known["texts"] else None
        changed = out if file_digest(out) != known[VECTORS] else changed
        if changed:
            raise DamageError(f"{changed} is not as it was written; {REMEDY}.")
        vectors = np.load(out, mmap_mode="r")
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError("its vectors are of other texts")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DamageError(f"{beside} cannot be read ({first_line(error)}); {REMEDY}.") from error
    return Embedded(texts=texts, vectors=vectors, existed=True)


def _read_about(out: Path, beside: Path) -> dict[str, Any] | None:
    """Return what made the vectors of a file; None if there is no file.

    Raises:
        InputError: files of these names are there, and are none that was written here.
    """
    if not beside.exists() and not out.exists():
        return None
    try:
        about = dict(json.loads((parquet.read_schema(beside).metadata or {})[METADATA]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"--out {out}: it is there, and {beside.name} beside it does not say what it holds ({first_line(error)}); "
            "name another file."
        ) from error
    return about


def nearest_texts(embedded: Embedded, query: Vectors, count: int = 10) -> list[Neighbour]:
    """Return the texts whose vectors have the highest cosine with that of a query ``[width]``, highest first."""
    scores = np.empty(len(embedded.vectors), np.float32)
    for start in range(0, len(scores), SEARCH_ROWS):
        block = np.asarray(embedded.vectors[start : start + SEARCH_ROWS])
        lengths = np.sqrt(np.einsum("tw,tw->t", block, block))
        scores[start : start + SEARCH_ROWS] = block @ query / np.maximum(lengths, np.finfo(np.float32).tiny)
    scores /= max(float(np.linalg.norm(query)), float(np.finfo(np.float32).tiny))
    order = np.argsort(-scores.round(6), kind="stable")[:count]  # equal texts differ by rounding
    return [Neighbour(float(scores[index]), int(index) + 1, embedded.texts[index]) for index in order]
