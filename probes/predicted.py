"""What a variant says of every row of a split, as a table: a line a row, or a line a word."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.corpus import Corpus, Kind
from data.text import Segments
from probes.answers import answer_text, trimmed
from probes.ensemble import Ensemble
from probes.results import in_unit
from probes.scoring import AnswerScorer, Scorer, scorer_of
from probes.tables import PROBABILITY

Columns = Mapping[str, Any]


def prediction_table(one: Ensemble, corpus: Corpus, split: str) -> pd.DataFrame:
    """What a variant says of a split, once for every seed; once for all where they answer together."""
    scorer = scorer_of(corpus, split)
    frames = []
    for place, said in enumerate(one.voices(split)):
        seed = pd.NA if one.average else one.seeds[place]
        frame = pd.DataFrame(SAID[corpus.kind](one, place, said, scorer, corpus))
        frames.append(frame.assign(seed=pd.array([seed] * len(frame), "Int64")))
    return pd.concat(frames, ignore_index=True)


def _scores(one: Ensemble, place: int, said: NDArray[np.float32], scorer: Scorer, corpus: Corpus) -> Columns:
    unit = corpus.score_range or (0.0, 1.0)
    score = in_unit(one.calibrations[place](said), unit)
    return _texts(corpus, scorer) | {"target": in_unit(scorer.rows.targets, unit), "score": score, "raw": said}


def _classes(one: Ensemble, place: int, said: NDArray[np.float32], scorer: Scorer, corpus: Corpus) -> Columns:
    shares = probabilities(said)
    names = np.array(corpus.labels)
    columns = {PROBABILITY + label: shares[:, code] for code, label in enumerate(corpus.labels)}
    labels = {"target": names[scorer.rows.targets.astype(np.int64)], "label": names[scorer.answers(said)]}
    return _texts(corpus, scorer) | labels | columns


def _tags(one: Ensemble, place: int, said: NDArray[np.float32], scorer: Scorer, corpus: Corpus) -> Columns:
    marks, names = scorer.rows.marks, np.array(corpus.labels)
    assert marks is not None
    sentences = np.repeat(np.arange(len(scorer.rows)), np.diff(marks.offsets))
    texts = [corpus.texts[text] for text in scorer.rows.sides[sentences, 0]]
    words = [str(text)[first:last] for text, (first, last) in zip(texts, marks.spans.tolist(), strict=True)]
    labels = {"target": names[marks.codes], "label": names[scorer.answers(said)]}
    return {"sentence": sentences + 1, "word": words} | labels


def _answers(one: Ensemble, place: int, said: NDArray[np.float32], scorer: Scorer, corpus: Corpus) -> Columns:
    assert isinstance(scorer, AnswerScorer)
    marks = scorer.rows.marks
    assert marks is not None
    answers = scorer.answers(said)
    places = [trimmed(context, *span) for context, span in zip(scorer.contexts, answers.tolist(), strict=True)]
    texts = [corpus.texts[text] for text in scorer.rows.sides[:, 0]]
    judged = {name: scorer.counts(name, answers)[0] for name in ("exact_match", "f1")}
    return {
        "question": [text.first for text in texts if isinstance(text, Segments)],
        "context": scorer.contexts,
        "target": [golds[0] for golds in scorer.golds],
        "target_start": marks.spans[marks.offsets[:-1], 0],
        "answer": [answer_text(text, span) for text, span in zip(scorer.contexts, answers, strict=True)],
        "start": [first for first, _ in places],
        "end": [last for _, last in places],
        "score": said[:, 2],
    } | judged


SAID: dict[Kind, Callable[[Ensemble, int, NDArray[np.float32], Scorer, Corpus], Columns]] = {
    "score": _scores,
    "class": _classes,
    "tags": _tags,
    "answers": _answers,
}


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[row, class]`` logits to probabilities."""
    values: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return values


def _texts(corpus: Corpus, scorer: Scorer) -> dict[str, Any]:
    sides = scorer.rows.sides
    names = ["sentence"] if sides.shape[1] == 1 else ["sentence1", "sentence2"]
    return {name: [str(corpus.texts[i]) for i in column] for name, column in zip(names, sides.T, strict=True)}
