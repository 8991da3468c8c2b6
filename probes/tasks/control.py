"""Control targets: training rows with random targets, which a probe can only fit by memorising them.

Source: Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks" (2019), section 2. There a random
target belongs to a word type, which occurs again in the test split; here it belongs to a row, so the fit is measured on
the training rows themselves.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.script import unbreakable_spans


def shuffle_targets(corpus: Corpus, seed: int) -> Corpus:
    """Return the corpus with shuffled training targets and the same rows as validation split."""
    train, rng = corpus.split("train"), np.random.default_rng(seed)
    spans = train.spans
    if spans is None:
        rows = Rows(train.texts, rng.permutation(train.targets))
    elif corpus.kind == "tags":
        codes = rng.permutation(spans.codes)
        rows = replace(train, spans=replace(spans, codes=repair_tags(codes, spans.offsets, corpus.labels)))
    else:
        rows = replace(train, spans=_random_answers(corpus, train, spans, rng))
    return replace(corpus, splits={"train": rows, "validation": rows})


def repair_tags(codes: NDArray[np.int64], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return tags that IOB2 allows, ``[word]``: an I-X that follows neither B-X nor I-X becomes B-X."""
    begin_codes = {code: labels.index(f"B-{label[2:]}") for code, label in enumerate(labels) if label.startswith("I-")}
    valid = codes.copy()
    for low, high in pairwise(offsets.tolist()):
        previous_type = ""
        for word in range(low, high):
            label = labels[valid[word]]
            if label.startswith("I-") and label[2:] != previous_type:
                valid[word] = begin_codes[int(valid[word])]
            previous_type = label[2:]
    return valid


def _random_answers(corpus: Corpus, rows: Rows, spans: Spans, rng: np.random.Generator) -> Spans:
    """Return one answer per row at a random position of its context.

    It has as many words as the gold answer, or characters in scripts without spaces.
    """
    answers = []
    for text_index, (first, last) in zip(rows.texts[:, 0], spans.characters[spans.offsets[:-1]], strict=True):
        text = corpus.texts[text_index]
        context = text if isinstance(text, str) else text.second
        words = unbreakable_spans(context)
        further_words = max(0, len(unbreakable_spans(context[first:last])) - 1)
        word = int(rng.integers(len(words) - further_words))
        answers.append((words[word][0], words[word + further_words][1]))
    return Spans(np.array(answers), np.zeros(len(answers), np.int64), np.arange(len(answers) + 1))
