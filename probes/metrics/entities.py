"""Named entities from IOB2 tags: decoding of valid tag sequences, and counts of entities for precision and recall.

An entity is correct if its type and both ends are; entities are read from tags by seqeval.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from permafrost.data.corpora.corpus import Spans

FORBIDDEN = -1e12
"""Log-probability of a transition that IOB2 does not allow."""


def valid_tags(logits: NDArray[np.floating], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the most likely valid IOB2 tag sequence of each sentence: I-X only after B-X or I-X.

    Source: Viterbi's algorithm, as in Lample et al., "Neural Architectures for Named Entity Recognition" (2016),
    section 2.2, with fixed transition scores: allowed or forbidden.

    Args:
        logits: ``[word, tag]``, the words of all sentences.
        offsets: ``[sentence + 1]``, index of the first word of each sentence.
        labels: tag names, in the order of the logits.

    Returns:
        ``[word]``, indices into ``labels``.
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
    """Count the entities of each sentence by type.

    Args:
        answers: ``[word]``, predicted tags as indices into ``labels``.
        marks: gold tags of all sentences.
        labels: tag names.

    Returns:
        ``[sentence, type, 3]``: predicted, gold, and correctly predicted entities.
    """
    types = entity_types(labels)
    type_index = {name: index for index, name in enumerate(types)}
    counts = np.zeros((len(marks.offsets) - 1, max(1, len(types)), 3), np.int64)
    names = np.array(labels, object)
    predicted_tags, gold_tags = names[answers].tolist(), names[marks.codes].tolist()
    for sentence, (low, high) in enumerate(pairwise(marks.offsets.tolist())):
        predicted, gold = set(get_entities(predicted_tags[low:high])), set(get_entities(gold_tags[low:high]))
        for column, entities in enumerate((predicted, gold, predicted & gold)):
            for entity_type, _, _ in entities:
                counts[sentence, type_index[entity_type], column] += 1
    return counts


def entity_types(labels: Sequence[str]) -> list[str]:
    """Return the entity types of the tags, e.g. ``PER``, in the order of their first label."""
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def _may_follow(after: str, before: str) -> bool:
    return not after.startswith("I-") or (before[:2] in ("B-", "I-") and before[2:] == after[2:])
