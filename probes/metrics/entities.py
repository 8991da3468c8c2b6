"""Entities: runs of tagged words. Tags that cannot follow each other are not predicted, and entities count whole.

What an entity is, seqeval says.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from permafrost.data.corpora.corpus import Spans

FORBIDDEN = -1e12


def valid_tags(logits: NDArray[np.floating], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
    """The likeliest tags of each sentence among those that IOB2 allows: I-X only after B-X or I-X.

    Source: Viterbi's algorithm, as in Lample et al., "Neural Architectures for Named Entity Recognition" (2016),
    section 2.2, with transitions that are allowed or not, and not learnt.

    Args:
        logits: ``[word, tag]``, the words of all sentences.
        offsets: ``[sentence + 1]``, where the words of each begin.

    Returns:
        ``[word]``, indices of tags.
    """
    lengths = np.diff(offsets)
    if not len(logits):
        return np.zeros(0, np.int64)
    follows = np.array([[0.0 if _may_follow(after, before) else FORBIDDEN for after in labels] for before in labels])
    opens = np.array([0.0 if _may_follow(tag, "O") else FORBIDDEN for tag in labels])
    top = logits.max(1, keepdims=True)
    scores = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    order = np.argsort(-lengths, kind="stable")  # the sentences that still go on are the first ones
    going = [int(np.searchsorted(-lengths[order], -step)) for step in range(int(lengths.max()))]
    reached = scores[offsets[order[: going[0]]]] + opens
    back = []
    for step, count in enumerate(going[1:], 1):
        ways = reached[:count, :, None] + follows
        came = ways.argmax(1)
        back.append(came)
        best = np.take_along_axis(ways, came[:, None], 1)[:, 0] + scores[offsets[order[:count]] + step]
        reached = np.concatenate([best, reached[count:]])
    tags = np.zeros(len(logits), np.int64)
    current = reached.argmax(1)
    for step in range(len(going) - 1, -1, -1):
        count = going[step]
        tags[offsets[order[:count]] + step] = current[:count]
        if step:
            current[:count] = np.take_along_axis(back[step - 1], current[:count, None], 1)[:, 0]
    return tags


def entity_counts(answers: NDArray[np.integer], marks: Spans, labels: Sequence[str]) -> NDArray[np.int64]:
    """``[sentence, type, 3]``: how many entities were said, are true, and were said and are true.

    Args:
        answers: ``[word]``, indices of tags.
    """
    types = entity_types(labels)
    index = {name: place for place, name in enumerate(types)}
    counts = np.zeros((len(marks.offsets) - 1, max(1, len(types)), 3), np.int64)
    names = np.array(labels, object)
    said_tags, true_tags = names[answers].tolist(), names[marks.codes].tolist()
    for sentence, (low, high) in enumerate(pairwise(marks.offsets.tolist())):
        said, true = set(get_entities(said_tags[low:high])), set(get_entities(true_tags[low:high]))
        for column, some in enumerate((said, true, said & true)):
            for kind, _, _ in some:
                counts[sentence, index[kind], column] += 1
    return counts


def entity_types(labels: Sequence[str]) -> list[str]:
    """The types that tags name, in the order of their first label."""
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def _may_follow(after: str, before: str) -> bool:
    return not after.startswith("I-") or (before[:2] in ("B-", "I-") and before[2:] == after[2:])
