"""Estimates: what a request takes in texts, tokens, bytes, files and hours, before anything of it runs."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.data.streams.texts import TextStream
from permafrost.data.text import Text
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.capacity import Capacity, hours
from permafrost.extract.resolved_plan import ResolvedPlan, resolve_plan
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.token_ids import tokenize_by_plan
from permafrost.extract.tokenization.tokenize import windowed
from permafrost.probes.variants.latent_workspace import LatentRequest, plan_of_all, requests_of
from permafrost.scaling.request import ExtractionRequest
from permafrost.stage_one import StreamWorkspace, task_recipes, with_pretrained_backbone

if TYPE_CHECKING:  # this loads torch
    from permafrost.extract.capture.runner import BackboneRunner

SAMPLE_TEXTS = 20_000
"""Most texts that are tokenized, evenly spaced; of more, their tokens stand for those of all."""

PILOT_SECONDS = 3.0
"""Time after which no further pack of the pilot begins; one more runs before, which is not counted."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the latents of one plan for the texts of one corpus take if none is stored."""

    backbone: str
    corpus: str
    texts: int
    texts_distinct: int
    sampled: int
    """Number of texts that were tokenized."""

    tokens: int
    """Number of tokens that run, those of each window counted."""

    packs: int
    capacity: Capacity
    rate: float
    """Tokens a second of one worker."""

    pilot: bool
    """Whether the rate was measured by a pilot on this machine."""

    workers: int

    @property
    def facts(self) -> dict[str, Any]:
        """What the command prints."""
        capacity, layers = self.capacity, {view: len(layers) for view, layers in self.capacity.columns.items()}
        return {
            "backbone": self.backbone,
            "corpus": self.corpus,
            "texts": self.texts,
            "texts_distinct": self.texts_distinct,
            "texts_sampled": self.sampled,
            "tokens": self.tokens,
            "packs": self.packs,
            "layers_by_view": layers,
            "width": capacity.width,
            "stored_dtype": capacity.stored_dtype,
            "bytes_by_view": capacity.bytes_by_view,
            "bytes": capacity.bytes,
            "shards": capacity.shards,
            "requests": capacity.requests,
            "tokens_per_second": round(self.rate, 1),
            "rate_is": "of a pilot on this machine" if self.pilot else "as given by --rate",
            "workers": self.workers,
            "hours": round(hours(self.tokens, self.rate, self.workers), 4),
        }


def estimate(request: ExtractionRequest, workers: int, rate: float, progress: Progress) -> list[Estimate]:
    """Estimate what a request takes; nothing of it is stored.

    Args:
        workers: number of workers by which the time is divided.
        rate: tokens a second of one worker; 0 measures it, for which a few packs of texts run.

    Raises:
        InputError: the recipe, the corpus or the backbone cannot be used.
    """
    if rate < 0 or not math.isfinite(rate):
        raise SpecError(f"--rate must be a number of tokens a second, or 0 for a pilot, got {rate}.")
    name, recipe = request.load()
    recipe = with_pretrained_backbone(name, recipe, None, progress)
    workspace, groups = StreamWorkspace(progress), dict[Any, list[LatentRequest]]()
    for each in (wanted for task in task_recipes(recipe) for wanted in requests_of(task)):
        groups.setdefault(each.forward_key, []).append(each)
    made = list[Estimate]()
    for group in groups.values():
        corpus = workspace.texts(group[0].corpus, recipe.extract.block_texts)
        made.append(_estimate_plan(plan_of_all(group), group[0].extract, corpus, workers, rate, progress))
    return made


def _estimate_plan(
    plan: CapturePlan, spec: ExtractSpec, corpus: Corpus | TextStream, workers: int, rate: float, progress: Progress
) -> Estimate:
    resolved = resolve_plan(plan, spec, progress=progress)
    distinct = corpus.texts_distinct or corpus.text_count
    sample = _sample(corpus, distinct)
    windows, tokens = _tokenize(resolved, sample)
    share = distinct / max(1, len(sample))
    run = round(int(tokens.run_lengths.sum()) * share)
    if pilot := not rate:
        progress.note("a pilot runs for some seconds to measure the rate; it stores nothing (--rate gives it instead)")
        rate = _measure_rate(resolved.runner(), windows, tokens)
    from permafrost.extract.capture.runner import BATCH_TOKENS

    batch_tokens = spec.batch_tokens or BATCH_TOKENS.get(pick_device(spec.device).split(":")[0], BATCH_TOKENS["cuda"])
    return Estimate(
        backbone=plan.backbone,
        corpus=corpus.name,
        texts=corpus.text_count,
        texts_distinct=distinct,
        sampled=len(sample),
        tokens=run,
        packs=math.ceil(run / batch_tokens),
        capacity=Capacity(
            texts=round(len(windows) * share),
            tokens=round(int(tokens.viewed_lengths.sum()) * share),
            columns=resolved.plan.columns(resolved.source.layers),
            width=resolved.source.width,
            stored_dtype=resolved.identity.stored_dtype,
            shard_bytes=spec.shard_bytes,
        ),
        rate=rate,
        pilot=pilot,
        workers=workers,
    )


def _sample(corpus: Corpus | TextStream, distinct: int) -> list[Text]:
    """Return distinct texts, evenly spaced if they are many; all of a stream that is not counted are the first ones."""
    if isinstance(corpus, Corpus):
        step = math.ceil(len(corpus.texts) / SAMPLE_TEXTS)
        return list(corpus.texts[:: max(1, step)])
    step = math.ceil(corpus.text_count / SAMPLE_TEXTS)
    return list(dict.fromkeys(islice(iter(corpus), 0, None if step else SAMPLE_TEXTS, max(1, step))))


def _tokenize(resolved: ResolvedPlan, texts: Sequence[Text]) -> tuple[Sequence[Text], TokenBatch]:
    """Return texts, those of two segments window by window, and their tokens."""
    plan, source = resolved.plan, resolved.source
    tokenizer = load_tokenizer(source.tokenizer_files)
    windows = windowed(tokenizer, texts, plan.token_limit, plan.overlap)[0]
    return windows, tokenize_by_plan(plan, source, tokenizer, windows, False)


def _measure_rate(runner: "BackboneRunner", texts: Sequence[Text], tokens: TokenBatch) -> float:
    """Return the tokens a second that packs of some texts take, evenly spaced among those of all lengths."""
    packs, columns = runner.pack(tokens), runner.plan.columns(runner.source.layers)
    lengths, order = tokens.run_lengths, np.random.default_rng(0).permutation(len(packs))
    chosen, ran = [packs[index] for index in [order[0], *order]], 0
    with closing(runner.blocks(chosen, np.arange(len(texts)), tokens, texts, columns)) as blocks:
        next(blocks)  # the first one is not counted
        started = time.perf_counter()
        for members, _ in blocks:
            ran += int(lengths[members].sum())
            seconds = time.perf_counter() - started
            if seconds > PILOT_SECONDS:
                break
    return ran / seconds


def capacity_plan(
    texts: int, models: Mapping[str, tuple[int, int]], dtypes: Sequence[str] = ("int8", "float16", "float32")
) -> list[dict[str, Any]]:
    """Return what pooled latents of texts take without a corpus: a row for each model, all layers or one, and dtype.

    Args:
        models: name -> (width, layers).
    """
    rows = []
    for name, (width, layers) in models.items():
        for kept, dtype in product((layers, 1), dtypes):
            columns = {"mean": tuple(range(kept))}
            capacity = Capacity(texts=texts, tokens=0, columns=columns, width=width, stored_dtype=dtype)
            about = {"model": name, "width": width, "layers": kept, "dtype": dtype}
            sizes = {"terabytes": round(capacity.bytes / 1e12, 2), "shards": capacity.shards}
            rows.append(about | sizes | {"requests": capacity.requests})
    return rows
