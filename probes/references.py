"""Untrained references: what can be said of rows without a probe.

Scores: the raw cosine of every layer. Classes: the commonest. Tags: the commonest of each word. Answers: the sentence
of the context that shares most words with the question.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.corpus import Corpus, Rows
from data.plan import CapturePlan
from data.script import STOPS, UNSPACED, script_of
from data.text import Segments
from probes.answers import normalised
from probes.ensemble import Ensemble
from probes.entities import valid_tags
from probes.inputs import Column, view_name
from probes.results import MetricRow, backbones, figures, measured_rows, p_values, where_of
from probes.scoring import scorer_of
from probes.tables import UNTRAINED
from probes.tasks import task_of

_GAP = rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])"
_IN = rf"(?:(?!{_GAP})[^.!?{STOPS}])"
SENTENCE = re.compile(rf"{_IN}+(?:[.!?](?![\s{UNSPACED}]){_IN}*)*(?:[.!?]|[{STOPS}]+[」』”’）]*)?")
"""Ends at a full stop; in scripts that are written without spaces at a space too, as in Thai."""


def all_rows(found: Sequence[Ensemble], corpus: Corpus) -> list[MetricRow]:
    """The long table: every variant on all splits but train, and on every split the untrained reference."""
    lines = [row for split in corpus.splits for row in untrained_rows(found, corpus, split)]
    scored = [split for split in corpus.splits if split != "train"]
    return lines + [row for split in scored for one in found for row in measured_rows(one, corpus, split)]


def untrained_rows(found: Sequence[Ensemble], corpus: Corpus, split: str) -> list[MetricRow]:
    """The reference without training on one split."""
    if corpus.kind == "score":
        return list(_cosine_rows(found, corpus, split))
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = where_of(UNTRAINED, backbones(found[0]), "", None, task.name, split)
    return figures(where, task.metrics, [UNTRAINED_ANSWERS[corpus.kind](corpus, scorer.rows)], scorer, None)


def _cosine_rows(found: Sequence[Ensemble], corpus: Corpus, split: str) -> list[MetricRow]:
    """Where a variant means another capture by the same name, its reference carries the name of that variant."""
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    lines: list[MetricRow] = []
    known: dict[str, list[CapturePlan]] = {}
    done: set[tuple[Column, CapturePlan]] = set()
    for one in found:
        for column, cosine in zip(one.columns, one.untrained.get(split, ()), strict=False):
            plan = replace(one.recipe.captured(column.plan), views=("mean",), layers="all")
            plans = known.setdefault(column.plan, [])
            if plan not in plans:
                plans.append(plan)
            if (column, plan) not in done:
                done.add((column, plan))
                name = UNTRAINED if plan == plans[0] else f"{UNTRAINED} ({one.variant})"
                where = where_of(name, plan.backbone, view_name([column]), column.layer, task.name, split)
                lines += figures(where, task.metrics, [cosine], scorer, None)
                lines += p_values(where, task.metrics, cosine, scorer.rows.targets, None)
    return lines


def commonest_class(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[row]``: the class that most training rows have."""
    return np.full(len(rows), int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax()))


def commonest_tags(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[word]``: the tag that each word has most often in training, as far as tags can follow each other."""
    train, labels = corpus.split("train"), len(corpus.labels)
    counts: dict[str, Counter[int]] = {}
    assert train.marks is not None
    assert rows.marks is not None
    for word, code in zip(_words(corpus, train), train.marks.codes.tolist(), strict=True):
        counts.setdefault(word, Counter())[code] += 1
    logits = np.zeros((len(rows.marks.codes), labels))
    for place, word in enumerate(_words(corpus, rows)):
        for code, times in counts.get(word, Counter({0: 1})).items():
            logits[place, code] = times
    return valid_tags(np.log(logits + 1e-3), rows.marks.offsets, corpus.labels)


def likeliest_sentences(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[row, 2]``: first character, and the first after, of the sentence with most units of the question."""
    found = np.zeros((len(rows), 2), np.int64)
    for row, text in enumerate(corpus.texts[place] for place in rows.sides[:, 0]):
        assert isinstance(text, Segments)
        script = script_of(text.second)
        asked = set(normalised(text.first, script).split())
        sentences = list(SENTENCE.finditer(text.second))
        shared = [len(asked & set(normalised(one.group(), script).split())) for one in sentences]
        found[row] = sentences[int(np.argmax(shared))].span() if sentences else (0, len(text.second))
    return found


UNTRAINED_ANSWERS = {"class": commonest_class, "tags": commonest_tags, "answers": likeliest_sentences}


def _words(corpus: Corpus, rows: Rows) -> list[str]:
    assert rows.marks is not None
    texts = np.repeat(rows.sides[:, 0], np.diff(rows.marks.offsets)).tolist()
    spans = rows.marks.spans.tolist()
    return [str(corpus.texts[text])[first:last] for text, (first, last) in zip(texts, spans, strict=True)]
