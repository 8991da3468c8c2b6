"""IOB2 tags: ``O`` outside entities, ``B-TYPE`` on the first word of an entity, ``I-TYPE`` on its further words."""

from collections.abc import Iterable, Sequence

from permafrost.data.corpora.records import CorpusError

OUTSIDE = "O"


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag: ``B-PER -> (B, PER)``, ``O -> (O, "")``; two empty strings if it is not IOB2."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") and len(tag) > 2 else ("", "")


def label_set(tags: Iterable[str]) -> tuple[str, ...]:
    """Return ``O``, then ``B-TYPE`` and ``I-TYPE`` of every type that occurs, in alphabetical order of the types."""
    types = sorted({split_tag(tag)[1] for tag in set(tags)} - {""})
    return (OUTSIDE, *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))


def check_labels(labels: Sequence[str]) -> None:
    """Raise a :class:`CorpusError` unless the first label is ``O`` and the others are ``B-TYPE`` or ``I-TYPE``."""
    wrong = [label for label in labels if not split_tag(label)[0]]
    if labels[0] != OUTSIDE or wrong:
        label = repr(wrong[0]) if wrong else f"{labels[0]!r} first"
        raise CorpusError(f"corpus.labels: of tags they are 'O', then B-TYPE and I-TYPE of each type; found {label}.")


def check_tag(origin: str, tag: str) -> None:
    """Raise a :class:`CorpusError` if ``tag`` is not IOB2."""
    if not tag:
        raise CorpusError(f"{origin}: the tag is missing; expected O, B-TYPE or I-TYPE.")
    if not split_tag(tag)[0]:
        raise CorpusError(f"{origin}: {tag!r} is no IOB2 tag; expected O, B-TYPE or I-TYPE, as in B-PER.")


def check_transitions(tags: Sequence[str], origins: Sequence[str]) -> None:
    """Check that ``I-TYPE`` follows ``B-TYPE`` or ``I-TYPE`` of the same type within the sentence.

    Raises:
        CorpusError: a tag does not, as in files of the older IOB1; the message names the first one.
    """
    previous = ""
    for tag, origin in zip(tags, origins, strict=True):
        prefix, type_ = split_tag(tag)
        if prefix == "I" and previous not in (f"B-{type_}", tag):
            context = f"follows {previous!r}" if previous else "begins a sentence"
            raise CorpusError(
                f"{origin}: invalid IOB transition: {tag!r} {context}; expected B-{type_} or I-{type_} before it. "
                f"Tags must be IOB2: write B-{type_} on the first word of every entity."
            )
        previous = tag
