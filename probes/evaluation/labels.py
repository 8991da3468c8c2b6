"""Labels of other data as those of a run: matched by name, by number, or by a map that the user gives."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from permafrost.data.corpora.encoding import NamedTargets, Targets
from permafrost.data.corpora.label_sets import LabelSets
from permafrost.data.corpora.records import CorpusError, Record, RowError
from permafrost.data.corpora.skipped import SkippedRow, SkippedRows
from permafrost.data.corpora.tag_schemes import OUTSIDE, split_tag
from permafrost.data.corpora.targets import TARGETS, Tags
from permafrost.data.spec import SpecError, nearest

LabelMap = Mapping[str, str]
"""Label of the data -> label of the run; empty leaves the label out."""

LEFT_OUT = ""
"""Label of the run that stands for a label which the user leaves out."""


class NoLabelMeetsError(CorpusError):
    """Data have none of the labels of a run."""


def parse_label_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return ``theirs=ours`` pairs as a map; ``theirs=`` leaves a label out.

    Raises:
        SpecError: a pair has no ``=``, or a label is mapped twice.
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, ours = pair.rpartition("=")
        if not equals or not theirs:
            raise SpecError(f"--label-map {pair!r}: expected THEIRS=OURS, a label of the data and one of the run.")
        if labels.get(theirs, ours) != ours:
            raise SpecError(f"--label-map names the label {theirs!r} twice, as {labels[theirs]!r} and {ours!r}.")
        labels[theirs] = ours
    return labels


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Names of a run's classes, labels or types of entities."""

    names: tuple[str, ...]
    first_number: int | None
    """Number of the first name, if the run reads numbers instead of names; else None."""

    given: LabelMap
    """The part of the user's map whose labels the run has."""

    used: set[str] = field(default_factory=set)
    """Labels of the user's map that data were found to have."""

    @classmethod
    def of(cls, kind: str, labels: Sequence[str], first_number: int | None, given: LabelMap) -> "LabelSpace":
        """Return the label space of a run.

        Args:
            labels: classes, labels or tags of the run.
            given: the user's map, for this run and maybe others.
        """
        types = (split_tag(tag)[1] for tag in labels)
        names = tuple(dict.fromkeys(filter(None, types))) if kind == "tags" else tuple(labels)
        allowed = {*names, LEFT_OUT, *([OUTSIDE] if kind == "tags" else [])}
        own = {theirs: ours for theirs, ours in given.items() if ours in allowed}
        return cls(names=names, first_number=first_number, given=own)

    def match(self, label: str) -> str | None:
        """Return the run's label that a label of the data stands for, empty to leave it out; None if there is none."""
        if label in self.given:
            self.used.add(label)
            return self.given[label]
        if label in self.names:
            return label
        if self.first_number is not None and label.isascii() and label.isdigit():
            number = int(label) - self.first_number
            return self.names[number] if 0 <= number < len(self.names) else None
        return None


def check_label_map(given: LabelMap, spaces: Iterable[LabelSpace]) -> None:
    """Raise a :class:`SpecError` if the user's map names a label that no run has."""
    spaces = list(spaces)
    for theirs, ours in given.items():
        if not any(theirs in space.given for space in spaces):
            known = dict.fromkeys(name for space in spaces for name in space.names)
            raise SpecError(f"--label-map {theirs}={ours}: no run has the label {ours!r}. {nearest(ours, known)}")


def check_label_map_used(given: LabelMap, spaces: Iterable[LabelSpace]) -> str:
    """Return a line that names the labels of the user's map that no evaluated row has, empty if there are none.

    Raises:
        SpecError: that is the whole map.
    """
    unused = given.keys() - {label for space in spaces for label in space.used}
    line = (
        f"--label-map: no row that is evaluated has the label{'s' * (len(unused) > 1)} {_listed(unused)}; the corpus "
        "of a run is read with its own labels"
    )
    if unused and len(unused) == len(given):
        raise SpecError(f"{line}. Name labels of the data before the '=', or leave --label-map out.")
    return line if unused else ""


def match_records(
    records: Sequence[Record], targets: Targets, space: LabelSpace, skipped: SkippedRows, name: str
) -> list[Record]:
    """Return the records with the labels of a run; those with a label that it does not have go to ``skipped``.

    Args:
        targets: of the data, with the names that stand for numbers; tags are converted to IOB2.
        skipped: counts them with the rows that are left out on purpose, which are not limited in number.
        name: of the data, for messages.

    Raises:
        CorpusError: no row has a label of the run, or rows may not be left out.
    """
    encoding = TARGETS[targets.kind](targets)
    if not isinstance(encoding, NamedTargets):
        return list(records)
    found, matched = Counter[str](), list[Record]()
    translate = TRANSLATE.get(type(encoding), _translate_class)
    for record in records:
        found.update(encoding.names(record))
        try:
            matched.append(translate(record, encoding, space))
        except RowError as error:
            skipped.kept -= 1
            if skipped.strict:
                raise CorpusError(f"{error} Leave out --strict to leave such rows out.") from None
            skipped.leave_out(SkippedRow(error.origin, error.reason, error.problem))
    known = [label for label in found if space.match(label)]
    if not matched or (found and not known):
        raise NoLabelMeetsError(
            f"{name}: none of its labels ({_listed(found)}) is one of the run's ({_listed(space.names)}); say which is "
            f"which by --label-map {next(iter(found), 'THEIRS')}={space.names[0]}."
        )
    return matched


def _translate_class(record: Record, encoding: NamedTargets, space: LabelSpace) -> Record:
    (label,) = encoding.names(record)
    matched = _matched(record.origin, label, space)
    if matched == LEFT_OUT:
        raise RowError(record.origin, f"label {label!r}", "--label-map leaves its label out")
    return replace(record, target=matched)


def _translate_set(record: Record, encoding: NamedTargets, space: LabelSpace) -> Record:
    matched = (_matched(record.origin, label, space) for label in sorted(encoding.names(record)))
    names = list(dict.fromkeys(filter(None, matched)))
    return replace(record, target=json.dumps(names, ensure_ascii=False) if names else "")


def _translate_tags(record: Record, encoding: NamedTargets, space: LabelSpace) -> Record:
    spans = []
    for span in record.spans:
        prefix, type_ = split_tag(span.tag)
        matched = _matched(record.origin, type_, space) if type_ else LEFT_OUT
        tag = OUTSIDE if matched in (LEFT_OUT, OUTSIDE) else f"{prefix}-{matched}"
        spans.append(span._replace(tag=tag))
    return replace(record, spans=tuple(spans))


Translate = Callable[[Record, NamedTargets, LabelSpace], Record]

TRANSLATE: dict[type, Translate] = {LabelSets: _translate_set, Tags: _translate_tags}
"""Encoding -> what gives a record the labels of a run; of others, a record has one class."""


def _matched(origin: str, label: str, space: LabelSpace) -> str:
    """Return the run's label; raise a :class:`RowError` if it has none."""
    matched = space.match(label)
    if matched is None:
        problem = f"the run has no label {label!r}, only {_listed(space.names)}; --label-map {label}=OURS names one"
        raise RowError(origin, f"label {label!r}, which the run does not have", problem)
    return matched


def _listed(labels: Iterable[str]) -> str:
    """Return labels in single quotes, ten at most."""
    names = sorted(labels)
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
