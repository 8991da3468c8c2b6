"""Control targets: the training rows with targets that have nothing to do with them, which only memory can fit.

Source: Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks" (2019), section 2; there a random
target belongs to a word, which comes again in test, here to a row, so memory is measured where it was made.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.script import parts


def shuffled(corpus: Corpus, seed: int) -> Corpus:
    """The corpus with shuffled targets in training, and those rows as its validation."""
    train, rng = corpus.split("train"), np.random.default_rng(seed)
    marks = train.spans
    if marks is None:
        rows = Rows(train.texts, rng.permutation(train.targets))
    elif corpus.kind == "tags":
        codes = rng.permutation(marks.codes)
        rows = replace(train, spans=replace(marks, codes=made_valid(codes, marks.offsets, corpus.labels)))
    else:
        rows = replace(train, spans=_moved(corpus, train, marks, rng))
    return replace(corpus, splits={"train": rows, "validation": rows})


def made_valid(codes: NDArray[np.int64], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
    """``[word]``: tags as IOB2 allows them; an I-X that nothing of X comes before begins an entity."""
    begins = {code: labels.index(f"B-{label[2:]}") for code, label in enumerate(labels) if label.startswith("I-")}
    valid = codes.copy()
    for low, high in pairwise(offsets.tolist()):
        before = ""
        for word in range(low, high):
            label = labels[valid[word]]
            if label.startswith("I-") and label[2:] != before:
                valid[word] = begins[int(valid[word])]
            before = label[2:]
    return valid


def _moved(corpus: Corpus, rows: Rows, marks: Spans, rng: np.random.Generator) -> Spans:
    """Each row with one answer, of as many words as its own (characters where there are no spaces), anywhere in its
    context.
    """
    moved = []
    for text, (first, last) in zip(rows.texts[:, 0], marks.characters[marks.offsets[:-1]], strict=True):
        of = corpus.texts[text]
        context = of if isinstance(of, str) else of.second
        words = parts(context)
        more = max(0, len(parts(context[first:last])) - 1)
        at = int(rng.integers(len(words) - more))
        moved.append((words[at][0], words[at + more][1]))
    return Spans(np.array(moved), np.zeros(len(moved), np.int64), np.arange(len(moved) + 1))
