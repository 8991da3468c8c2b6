"""IOB2 tags: ``O`` outside of entities, ``B-TYPE`` on the first word of one, ``I-TYPE`` on its further words."""

from collections.abc import Iterable, Sequence

from permafrost.data.corpora.records import CorpusError

OUTSIDE = "O"


def parts(tag: str) -> tuple[str, str]:
    """``B-PER -> (B, PER)``; ``O -> (O, "")``; of anything else, both are empty."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") and len(tag) > 2 else ("", "")


def label_set(tags: Iterable[str]) -> tuple[str, ...]:
    """``O``, then ``B-TYPE`` and ``I-TYPE`` of every type that occurs, by its name."""
    types = sorted({parts(tag)[1] for tag in set(tags)} - {""})
    return (OUTSIDE, *(f"{part}-{type_}" for type_ in types for part in "BI"))


def check_labels(labels: Sequence[str]) -> None:
    """Labels of tags begin with ``O``; the others are ``B-TYPE`` or ``I-TYPE``.

    Raises:
        CorpusError: they do not.
    """
    wrong = [label for label in labels if not parts(label)[0]]
    if labels[0] != OUTSIDE or wrong:
        found = repr(wrong[0]) if wrong else f"{labels[0]!r} first"
        raise CorpusError(f"corpus.labels: of tags they are 'O', then B-TYPE and I-TYPE of each type; found {found}.")


def check_tag(place: str, tag: str) -> None:
    """Raise :class:`CorpusError` for what is no tag of IOB2."""
    if not tag:
        raise CorpusError(f"{place}: the tag is missing; expected O, B-TYPE or I-TYPE.")
    if not parts(tag)[0]:
        raise CorpusError(f"{place}: {tag!r} is no IOB2 tag; expected O, B-TYPE or I-TYPE, as in B-PER.")


def check_transitions(tags: Sequence[str], places: Sequence[str]) -> None:
    """``I-TYPE`` must follow ``B-TYPE`` or ``I-TYPE`` of the same type, within its sentence.

    Raises:
        CorpusError: the first that does not, as in files of the older IOB1.
    """
    before = ""
    for tag, place in zip(tags, places, strict=True):
        part, type_ = parts(tag)
        if part == "I" and before not in (f"B-{type_}", tag):
            after = f"follows {before!r}" if before else "begins a sentence"
            raise CorpusError(
                f"{place}: invalid IOB transition: {tag!r} {after}; expected B-{type_} or I-{type_} before it. "
                f"Tags must be IOB2: write B-{type_} on the first word of every entity."
            )
        before = tag
