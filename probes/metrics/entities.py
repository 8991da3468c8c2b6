"""Named entities from IOB2 tags: decoding of valid tag sequences, and counts of entities for precision and recall.

An entity is correct if its type and both ends are; entities are read from tags by seqeval.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Spans

FORBIDDEN = -1e12
"""Log-probability of a transition that IOB2 does not allow."""


def decode_tags(logits: NDArray[np.floating], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
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
    transitions = np.array([[_transition(before, after) for after in labels] for before in labels])
    initial = np.array([_transition("O", label) for label in labels])
    maxima = logits.max(1, keepdims=True)
    log_probabilities = logits - maxima - np.log(np.exp(logits - maxima).sum(1, keepdims=True))
    by_length = np.argsort(-lengths, kind="stable")  # so the sentences that reach a step are the first ones
    active = [int(np.searchsorted(-lengths[by_length], -step)) for step in range(int(lengths.max()))]
    starts = offsets[by_length]
    scores = log_probabilities[starts[: active[0]]] + initial
    backpointers = []
    for step, count in enumerate(active[1:], 1):
        candidates = scores[:count, :, None] + transitions
        best_before = candidates.argmax(1)
        backpointers.append(best_before)
        best = np.take_along_axis(candidates, best_before[:, None], 1)[:, 0] + log_probabilities[starts[:count] + step]
        scores = np.concatenate([best, scores[count:]])
    tags, current = np.zeros(len(logits), np.int64), scores.argmax(1)
    for step, count in reversed(list(enumerate(active))):
        tags[starts[:count] + step] = current[:count]
        if step:
            current[:count] = np.take_along_axis(backpointers[step - 1], current[:count, None], 1)[:, 0]
    return tags


def entity_counts(predicted: NDArray[np.integer], gold: Spans, labels: Sequence[str]) -> NDArray[np.int64]:
    """Count the entities of each sentence by type.

    Args:
        predicted: ``[word]``, predicted tags as indices into ``labels``.
        gold: gold tags of all sentences.
        labels: tag names.

    Returns:
        ``[sentence, type, 3]``: predicted, gold, and correctly predicted entities.
    """
    types = entity_types(labels)
    type_index = {name: index for index, name in enumerate(types)}
    counts = np.zeros((len(gold.offsets) - 1, max(1, len(types)), 3), np.int64)
    names = np.array(labels, object)
    predicted_tags, gold_tags = names[predicted].tolist(), names[gold.codes].tolist()
    for sentence, (low, high) in enumerate(pairwise(gold.offsets.tolist())):
        predicted_set, gold_set = set(entities_of(predicted_tags[low:high])), set(entities_of(gold_tags[low:high]))
        for column, entities in enumerate((predicted_set, gold_set, predicted_set & gold_set)):
            for entity_type, _, _ in entities:
                counts[sentence, type_index[entity_type], column] += 1
    return counts


def entities_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities of a sentence: type, first and last word."""
    from seqeval.metrics.sequence_labeling import get_entities  # loads scikit-learn, which takes longer than a corpus

    entities: list[tuple[str, int, int]] = get_entities(list(tags))
    return entities


def entity_types(labels: Sequence[str]) -> list[str]:
    """Return the entity types of the tags, e.g. ``PER``, in the order of their first label."""
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def _transition(before: str, after: str) -> float:
    allowed = not after.startswith("I-") or (before[:2] in ("B-", "I-") and before[2:] == after[2:])
    return 0.0 if allowed else FORBIDDEN
