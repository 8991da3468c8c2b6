"""IOB2 tags: ``O`` outside entities, ``B-TYPE`` on the first word of an entity, ``I-TYPE`` on its further words."""

from collections.abc import Sequence

from permafrost.data.corpora.records import CorpusError

OUTSIDE = "O"


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag: ``B-PER -> (B, PER)``, ``O -> (O, "")``; two empty strings if it is not IOB2."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") and len(tag) > 2 else ("", "")


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
