"""Schemes in which entities are written as tags of words, and their conversion to IOB2.

One rule reads every scheme: an entity begins at ``B-`` and ``S-``, where the type changes, and after ``E-`` and ``S-``.
So entities do not depend on the scheme that is found; the scheme says which of them are slips, and are repaired.

| scheme | first word | further words | last word | single word |
|---|---|---|---|---|
| IOB2 | B | I | I | B |
| IO | I | I | I | I |
| IOB1 | B after an entity of its type, else I | I | I | as the first word |
| IOE1 | I | I | E before an entity of its type, else I | as the last word |
| IOE2 | I | I | E | E |
| BIOES | B | I | E | S |
| BILOU, BMEWO, BMES | as BIOES, with other letters: L for E, U or W for S, M for I | | | |

The scheme of a corpus is the one in which the fewest entities would be written differently; if several are equal, one
with all the letters that occur, then the first of the table. With ``I-`` and ``O`` alone that is IO, which IOB1 then
equals; IOB1 and IOB2 are equal only without entities. A tag is ``B-PER``, ``B_PER``, ``PER-B``, ``PER_B`` or a letter
alone; or, if no tag has a letter and ``O`` is the most frequent one, a type (IO).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from permafrost.data.corpora.records import CorpusError, Span

OUTSIDE = "O"

ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
"""Letter of a tag -> the letter that BIOES has for it."""

UNNAMED = "ENTITY"
"""Type of entities whose tags are letters alone."""

FEW, SHARE = 10, 0.2
"""Number and share of the entities that may differ from a scheme; beyond both, a corpus mixes schemes."""


class Tag(NamedTuple):
    """A tag by its parts, which are empty outside of entities."""

    role: str
    """B, I, E or S, as in BIOES."""

    type: str
    letter: str
    """As written."""


NO_ENTITY = Tag("", "", "")

Style = Callable[[str], Tag | None]
"""Splits a tag other than ``O`` into its parts; None if it is no tag of the style."""


class WordPlace(NamedTuple):
    """Place of a word in its entity."""

    first: bool
    last: bool
    after: bool
    """Whether an entity of the same type is directly before this one."""

    before: bool
    """Whether one is directly after it."""


SCHEMES: dict[str, Callable[[WordPlace], str]] = {
    "IOB2": lambda word: "B" if word.first else "I",
    "IO": lambda word: "I",
    "IOB1": lambda word: "B" if word.first and word.after else "I",
    "IOE1": lambda word: "E" if word.last and word.before else "I",
    "IOE2": lambda word: "E" if word.last else "I",
    "BIOES": lambda word: ("S" if word.last else "B") if word.first else ("E" if word.last else "I"),
}
"""Scheme -> the letter that it has for a word of an entity."""


def split_tag(tag: str) -> tuple[str, str]:
    """Split an IOB2 tag: ``B-PER -> (B, PER)``, ``O -> (O, "")``; two empty strings if it is none."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") and len(tag) > 2 else ("", "")


def iob2_labels(types: Iterable[str]) -> tuple[str, ...]:
    """Return ``O``, then ``B-`` and ``I-`` of each type."""
    return (OUTSIDE, *(f"{letter}-{type_}" for type_ in dict.fromkeys(types) for letter in "BI"))


def split_prefix(tag: str) -> Tag | None:
    """Split a tag that is written as ``B-PER`` or ``B_PER``, of any scheme; None for others."""
    return Tag(ROLES[tag[0]], tag[2:], tag[0]) if len(tag) > 2 and tag[0] in ROLES and tag[1] in "-_" else None


def _suffixed(tag: str) -> Tag | None:
    return Tag(ROLES[tag[-1]], tag[:-2], tag[-1]) if len(tag) > 2 and tag[-1] in ROLES and tag[-2] in "-_" else None


def _letter(tag: str) -> Tag | None:
    return Tag(ROLES[tag], UNNAMED, tag) if tag in ROLES else None


def _type(tag: str) -> Tag | None:
    return Tag("I", tag, "I")


WITH_LETTER: tuple[Style, ...] = (split_prefix, _suffixed, _letter)


def begins(previous: Tag, tag: Tag) -> bool:
    """Return whether an entity begins at a tag."""
    return bool(tag.type) and (tag.role in "BS" or tag.type != previous.type or previous.role in "ES")


def entities_of(tags: Sequence[Tag]) -> list[tuple[int, int]]:
    """Return the first word of each entity of a sentence, and the word after it."""
    entities: list[tuple[int, int]] = []
    previous = NO_ENTITY
    for index, tag in enumerate(tags):
        if tag is not NO_ENTITY:
            start = index if begins(previous, tag) else entities.pop()[0]
            entities.append((start, index + 1))
        previous = tag
    return entities


@cache
def _differing(place: WordPlace, role: str) -> frozenset[str]:
    """Return the schemes that do not have this letter for a word."""
    return frozenset(name for name, letter_of in SCHEMES.items() if letter_of(place) != role)


@dataclass(frozen=True, kw_only=True)
class TagScheme:
    """The scheme of the tags of a corpus."""

    name: str
    style: Style
    example: str
    """A tag as written."""

    repairs: str = ""
    """Description of the entities that are not written as in the scheme; empty if there are none."""

    def parse(self, tag: str) -> Tag:
        """Return the parts of a tag."""
        return NO_ENTITY if tag == OUTSIDE else self.style(tag) or NO_ENTITY

    def to_iob2(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        """Return the words of a sentence with their tags in IOB2."""
        previous, converted = NO_ENTITY, list[Span]()
        for span in spans:
            tag = self.parse(span.tag)
            name = f"{'B' if begins(previous, tag) else 'I'}-{tag.type}" if tag.type else OUTSIDE
            converted.append(span if name == span.tag else span._replace(tag=name))
            previous = tag
        return tuple(converted)

    def labels_to_iob2(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return ``O``, then ``B-`` and ``I-`` of each type of the given tags; they stay if they are such already.

        Raises:
            CorpusError: a label is no tag, or there is no ``O``.
        """
        types = [split_tag(label)[1] or self.parse(label).type for label in labels if label != OUTSIDE]
        if OUTSIDE not in labels or not all(types):
            expected = "of tags they are 'O' and those of each type, e.g. O,B-PER,I-PER"
            raise CorpusError(f"corpus.labels: {expected}; got {', '.join(labels)}.")
        is_iob2 = labels[0] == OUTSIDE and all(split_tag(label)[0] for label in labels)
        return tuple(labels) if is_iob2 else iob2_labels(types)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on the scheme if it is not IOB2, and one on the entities that are repaired."""
        is_iob2 = self.name == "IOB2" and split_tag(self.example)[0]
        name = "IO or IOB1" if self.name == "IO" and self.style is not _type else self.name
        scheme = () if is_iob2 else (f"tags are {name}, as in {self.example!r}, read as IOB2",)
        return (*scheme, self.repairs) if self.repairs else scheme


def find_scheme(sentences: Iterable[Sequence[Span]], setting: str = "auto", strict: bool = False) -> TagScheme:
    """Find the scheme of the tags of all sentences of a corpus.

    Args:
        setting: name of the scheme; "auto" finds it. With "IO", tags that do not all have the letter I are types.
        strict: raise an error for the first entity that is not written as in the scheme.

    Raises:
        CorpusError: a tag is of no scheme, or the corpus mixes schemes; the message begins with the origin of a word.
    """
    sentences = list(sentences)
    counts = Counter(span.tag for spans in sentences for span in spans)
    origins = {span.tag: span.origin for spans in reversed(sentences) for span in reversed(spans)}
    written = [tag for tag in counts if tag != OUTSIDE]
    if "" in counts:
        raise CorpusError(f"{origins['']}: the tag is missing.")
    style = _find_style(written, counts, origins, setting)
    tags = {tag: style(tag) or NO_ENTITY for tag in written}
    letters = _letters_of(tags, origins)
    slips = _Slips(sentences, {**tags, OUTSIDE: NO_ENTITY}, letters)
    kind = "BIOES" if setting == "BILOU" else setting
    if setting == "auto":
        kind = min(SCHEMES, key=lambda name: (slips.counts[name], not set(letters) <= {*name}))  # named by its letters
    name = _name_of(letters) if kind == "BIOES" else kind
    example = next((tag for tag in written if tags[tag].role != "I"), written[0] if written else "B-X")
    count = slips.counts[kind]
    if not count:
        return TagScheme(name=name, style=style, example=example)
    first = slips.first[kind]
    number = f"{count:,} of {slips.entities:,} entities are not written as in {name}"
    if strict:
        raise CorpusError(f"{first} in {name}. Correct it, or leave out --strict (corpus.strict) to have it repaired.")
    if setting == "auto" and count > max(FEW, SHARE * slips.entities):
        raise CorpusError(
            f'{first}; {number}: the corpus mixes schemes. Correct it, or set corpus.tag_scheme = "{kind}" to '
            "have all of them repaired."
        )
    return TagScheme(name=name, style=style, example=example, repairs=f"{number} and were repaired; the first: {first}")


def _find_style(written: Sequence[str], counts: Mapping[str, int], origins: Mapping[str, str], setting: str) -> Style:
    """Return how tags are written; raise a :class:`CorpusError` at a tag that is written differently."""
    fitting = [style for style in WITH_LETTER if all(map(style, written))]
    if setting == "IO":
        return next((style for style in fitting if all(tag.letter == "I" for tag in map(style, written) if tag)), _type)
    if fitting:
        return fitting[0]
    style = max(WITH_LETTER, key=lambda style: sum(counts[tag] for tag in written if style(tag)))
    like, unlike = ([tag for tag in written if bool(style(tag)) is fits] for fits in (True, False))
    most = max(counts, key=lambda tag: counts[tag])
    if setting == "auto" and most == OUTSIDE and not any(style(tag) for style in WITH_LETTER for tag in written):
        return _type
    are_tags = sum(counts[tag] for tag in like) > sum(counts[tag] for tag in unlike) or (like and most == OUTSIDE)
    reason = f"others are as {like[0]!r} ({origins[like[0]]})" if are_tags else f"most are {most!r}"
    remedy = (
        "if it is not from the column of tags, set corpus.columns to those of words and tags, e.g. corpus.columns=1,4; "
        'if tags are types without a letter, set corpus.tag_scheme = "IO"'
    )
    if unlike[0].isdecimal():
        remedy = "if tags are numbers, set corpus.labels to their names in order, e.g. corpus.labels=O,B-PER,I-PER"
    raise CorpusError(
        f"{origins[unlike[0]]}: {unlike[0]!r} is no tag: expected O, B-TYPE or I-TYPE, as in B-PER, or another scheme; "
        f"{reason}. Correct it; {remedy}."
    )


def _letters_of(tags: Mapping[str, Tag], origins: Mapping[str, str]) -> dict[str, str]:
    """Return role -> letter; raise a :class:`CorpusError` if two letters have the same role."""
    written: dict[str, str] = {}
    for name, tag in tags.items():
        other = written.setdefault(tag.role, name)
        if tags[other].letter != tag.letter:
            raise CorpusError(
                f"{origins[name]}: {name!r} and {other!r} ({origins[other]}) are of two schemes; write "
                f"{tags[other].letter} for {tag.letter} in the tags of entities, or the other way round."
            )
    return {role: tags[name].letter for role, name in written.items()}


def _name_of(letters: Mapping[str, str]) -> str:
    """Return the name of the variant of BIOES that has these letters, role -> letter."""
    written = set(letters.values())
    return "BILOU" if written & {"L", "U"} else "BMEWO" if "W" in written else "BMES" if "M" in written else "BIOES"


class _Slips:
    """Entities that schemes would write differently: their number by scheme, and a description of the first."""

    def __init__(
        self, sentences: Sequence[Sequence[Span]], tags: Mapping[str, Tag], letters: Mapping[str, str]
    ) -> None:
        self.entities, self.counts, self.first, self.letters = 0, Counter[str](), dict[str, str](), letters
        for spans in sentences:
            parts = [tags[span.tag] for span in spans]
            if entities := entities_of(parts):
                self._count(spans, parts, entities)

    def _count(self, spans: Sequence[Span], tags: Sequence[Tag], entities: Sequence[tuple[int, int]]) -> None:
        self.entities += len(entities)
        starts = {(start, tags[start].type) for start, _ in entities}
        ends = {(end, tags[start].type) for start, end in entities}
        for start, end in entities:
            after, before = (start, tags[start].type) in ends, (end, tags[start].type) in starts
            counted: frozenset[str] = frozenset()
            for index in range(start, end):
                place = WordPlace(index == start, index == end - 1, after, before)
                differing = _differing(place, tags[index].role)
                for name in differing - counted:
                    self.counts[name] += 1
                    if name not in self.first:
                        self.first[name] = self._describe(spans, index, SCHEMES[name](place), tags[index].type)
                counted |= differing

    def _describe(self, spans: Sequence[Span], index: int, role: str, type_: str) -> str:
        context = f"follows {spans[index - 1].tag!r}" if index else "begins a sentence"
        expected = f"{self.letters.get(role, role)}-{type_}"
        return f"{spans[index].origin}: {spans[index].tag!r} {context}; expected {expected}"
