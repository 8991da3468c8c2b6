"""Breakdown: what a variant is worth on groups of rows: each class, each type of entity, each question word, patterns.

Every figure is the mean over voices, with a bootstrap interval over rows.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.corpus import Corpus, Kind, Rows
from data.script import WORD_END, WORD_START, units
from data.text import Segments
from probes.ensemble import Ensemble
from probes.entities import entity_types
from probes.metrics import Measured, resample_ratio
from probes.scoring import AnswerScorer, Scorer, TagScorer, scorer_of

COLUMNS = ["variant", "split", "kind", "group", "metric", "value", "low", "high", "n"]
NEGATION = re.compile(
    rf"{WORD_START}(?:not|no|never|nobody|nothing|none|neither|nor|without|cannot){WORD_END}|n['’]t{WORD_END}",
    re.IGNORECASE,
)
QUESTION = re.compile(
    rf"{WORD_START}(how\s+(?:many|much)|what|who|whom|whose|when|where|why|how|which){WORD_END}(?!-)", re.IGNORECASE
)
"""Negations and question words of English; texts in other languages have none of them."""

PEOPLE = {"whom": "who", "whose": "who"}
OTHER = "other"
NOTHING, SEVERAL = "no entity", "several types"
HIGH_OVERLAP = 0.5
"""Share of the second text's distinct units that the first has too, from which their overlap is high."""

Line = tuple[str, str, str, Measured]
"""Kind, group, metric, figure."""

Answers = Sequence[NDArray[Any]]
"""Of each voice."""

Counts = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]


def breakdown_table(one: Ensemble, corpus: Corpus) -> pd.DataFrame:
    """A line a split but train, group and metric; empty for scores, which have no groups."""
    lines: list[dict[str, Any]] = []
    for split in corpus.splits:
        if split != "train" and corpus.kind in PARTS:
            scorer = scorer_of(corpus, split)
            answers = [scorer.answers(said) for said in one.voices(split)]
            for part in PARTS[corpus.kind]:
                lines += [
                    {"variant": one.variant, "split": split, "kind": kind, "group": group, "metric": metric}
                    | asdict(measured)
                    for kind, group, metric, measured in part(scorer, answers, corpus)
                ]
    return pd.DataFrame(lines, columns=COLUMNS)


def by_class(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Precision, recall and F1 of every class that is true or said of a row; ``n`` is how many are true."""
    for code, label in enumerate(corpus.labels):
        true = scorer.rows.targets == code
        said = [one == code for one in answers]
        if true.any() or any(one.any() for one in said):
            both = [one & true for one in said]
            yield from _three("class", label, said, [true] * len(said), both, int(true.sum()))


def by_type(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Precision, recall and F1 of every type of entity, over resampled sentences; ``n`` is how many are true."""
    assert isinstance(scorer, TagScorer)
    counts = [scorer.entities(one) for one in answers]
    for place, name in enumerate(entity_types(corpus.labels)):
        said, true, both = ([one[:, place, column] for one in counts] for column in range(3))
        if any(one.any() for one in (*said, *true)):
            yield from _three("entity type", name, said, true, both, int(true[0].sum()))


def by_question_word(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Exact match and F1 of the questions that each question word asks, the commonest first."""
    assert isinstance(scorer, AnswerScorer)
    texts = [corpus.texts[text] for text in scorer.rows.sides[:, 0]]
    words = np.array([question_word(text.first if isinstance(text, Segments) else text) for text in texts])
    counts = {metric: [scorer.counts(metric, one)[0] for one in answers] for metric in ("exact_match", "f1")}
    for word in pd.Series(words).value_counts().index:
        group = words == word
        for metric, values in counts.items():
            ones = np.ones(int(group.sum()))
            yield "question word", str(word), metric, _measured([(one[group], ones) for one in values], len(ones))


def by_pattern(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Accuracy of the rows that have a pattern and of those that have not, and each one's share of the mistakes."""
    wrong = [(one != scorer.rows.targets).astype(np.float64) for one in answers]
    every = np.ones(len(scorer.rows))
    for group, there in patterns(corpus, scorer.rows).items():
        n, ones = int(there.sum()), every[there]
        figures = {
            "accuracy": [(1 - one[there], ones) for one in wrong],
            "share_of_rows": [(there.astype(np.float64), every)],
            "share_of_mistakes": [(one * there, one) for one in wrong],
        }
        for metric, counts in figures.items():
            yield "pattern", group, metric, _measured(counts, n)


PARTS: dict[Kind, tuple[Callable[[Scorer, Answers, Corpus], Iterator[Line]], ...]] = {
    "class": (by_class, by_pattern),
    "tags": (by_type,),
    "answers": (by_question_word,),
}
"""By what rows are grouped."""


def row_labels(corpus: Corpus, rows: Rows) -> list[Any]:
    """``[row]``: what a row is, in a word: its score, its class, what its entities are of, or its question word."""
    if corpus.kind == "tags":
        assert rows.marks is not None
        names = np.array([label[2:] for label in corpus.labels], object)[rows.marks.codes].tolist()
        found = [set(names[low:high]) - {""} for low, high in pairwise(rows.marks.offsets.tolist())]
        return [SEVERAL if len(types) > 1 else next(iter(types), NOTHING) for types in found]
    if corpus.kind == "answers":
        return [question_word(_pair(corpus, sides)[0] or "") for sides in rows.sides]
    return [corpus.labels[int(code)] for code in rows.targets] if corpus.labels else rows.targets.tolist()


def patterns(corpus: Corpus, rows: Rows) -> dict[str, NDArray[np.bool_]]:
    """Name of a group -> which rows are in it, each beside its complement; a pattern that all or no rows have is none.

    Of pairs the second text is looked at, and how many of its units the first has too. Negation is that of English.
    """
    pairs = [_pair(corpus, sides) for sides in rows.sides]
    negated = np.array([bool(NEGATION.search(second)) for _, second in pairs], bool)
    found = {"negation": negated, "no negation": ~negated}
    if pairs and pairs[0][0] is not None:
        near = np.array([overlap(first or "", second) >= HIGH_OVERLAP for first, second in pairs], bool)
        found |= {"high word overlap": near, "low word overlap": ~near}
    return {name: there for name, there in found.items() if there.any() and not there.all()}


def overlap(first: str, second: str) -> float:
    """Share of the distinct units of ``second`` that ``first`` has too: words, or characters where there are no spaces.

    0 if it has none.
    """
    words = set(units(second.lower()))
    return len(words & set(units(first.lower()))) / max(1, len(words))


def question_word(question: str) -> str:
    """The first English question word, ``how many`` and ``how much`` as one; ``other`` where there is none."""
    found = QUESTION.search(question)
    if not found:
        return OTHER
    word = " ".join(found[1].lower().split())
    return "how many/how much" if word in ("how many", "how much") else PEOPLE.get(word, word)


def _pair(corpus: Corpus, sides: NDArray[np.int64]) -> tuple[str | None, str]:
    """The text before, where there are two, and the text that is looked at."""
    last = corpus.texts[sides[-1]]
    if isinstance(last, Segments):
        return last.first, last.second
    return (str(corpus.texts[sides[0]]) if len(sides) > 1 else None), last


def _three(kind: str, group: str, said: Answers, true: Answers, both: Answers, n: int) -> Iterator[Line]:
    """Precision, recall and F1 of ``[row]`` counts of each voice: said, true, and said and true."""
    parts = [tuple(one.astype(np.float64) for one in voice) for voice in zip(said, true, both, strict=True)]
    wholes = {"precision": [s for s, _, _ in parts], "recall": [t for _, t, _ in parts]}
    wholes["f1"] = [(s + t) / 2 for s, t, _ in parts]
    for metric, whole in wholes.items():
        counts = [(part[2], of) for part, of in zip(parts, whole, strict=True)]
        yield kind, group, metric, _measured(counts, n)


def _measured(counts: Counts, n: int) -> Measured:
    """A ratio of sums, the mean over voices; a single row has no interval."""
    if found := resample_ratio(counts):
        measured = found.measured()
        return Measured(measured.value, measured.low, measured.high, n)
    return Measured(float(np.mean([part.sum() / max(whole.sum(), 1) for part, whole in counts])), None, None, n)
