"""The texts of a corpus as a stream: in the order of its files, checked as a run checks them, and none of them held.

Extraction needs the texts alone. They are those of all rows that a run would read, whatever their split. Rows whose
label never occurs in training, which only the whole corpus tells, have theirs too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from permafrost.data.corpora.build import make_encoding, usable_records
from permafrost.data.corpora.encoding import TargetEncoding
from permafrost.data.corpora.records import Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.splits import limit_records
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.readers.load import OpenedCorpus, is_on_hub, open_corpus, with_splits
from permafrost.data.streams.distinct import DistinctCount
from permafrost.data.text import Text

HELD_ROWS = 100
"""Rows that are left out of which the first ones are held, for each reason; the others are counted."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TextStream:
    """The texts of a corpus; each iteration reads its files anew."""

    spec: CorpusSpec
    name: str
    source: str = ""
    """As :attr:`permafrost.data.corpora.corpus.Corpus.source`."""

    rows: Mapping[str, int] | None = None
    """Split -> number of rows; of rows that are split by their digests, before the splits are settled. None if the
    files are read but once, and are not counted before."""

    text_count: int = 0
    """Number of texts in all rows, with repetitions; 0 if they are not counted."""

    distinct: DistinctCount | None = None
    notes: tuple[str, ...] = ()
    """Notes for the user: how many rows are left out and why."""

    @property
    def texts_distinct(self) -> int:
        """Number of distinct texts, perhaps an estimate; 0 if they are not counted."""
        return self.distinct.count if self.distinct else 0

    @property
    def texts(self) -> "TextStream":
        """The texts, with repetitions."""
        return self

    def __iter__(self) -> Iterator[Text]:
        """Yield the texts of all rows.

        Raises:
            CorpusError: a file is broken; or, if the rows were not counted before, too many cannot be used.
        """
        opened = _opened(self.spec)
        empty = True
        for record in _rows(opened, self.spec):
            empty = False
            yield from record.texts
        if self.rows is None:
            opened.check_rows(not empty)

    def __length_hint__(self) -> int:
        """Return the number of texts, if they are counted."""
        return NotImplemented if self.rows is None else self.text_count

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines for the user: how the files are read, the sizes, and what is left out."""
        sizes = "its rows are not counted before"
        if self.rows is not None:
            rows = ", ".join(f"{count:,} {split}" for split, count in self.rows.items())
            sizes = f"{rows} rows; {self.text_count:,} texts, {self.distinct} distinct"
        first = f"{self.name}: read as a stream, {sizes}"
        return *([self.source] * bool(self.source)), first, *(f"{self.name}: {note}" for note in self.notes)


def scan_texts(spec: CorpusSpec, most_held: int) -> TextStream | None:
    """Read a corpus once, and count and check its rows; hold none of them.

    A data set of the hub that is read as a stream (``corpus.stream``) is not read before it is used.

    Args:
        spec: of a corpus, whose columns and kind of target are found if it names none.
        most_held: number of texts of a corpus that may be held.

    Returns:
        the texts; None if there are so few that the corpus may be loaded, or the spec needs the whole corpus: rows at
        even distances, words with tags, questions on passages, or a data set that ``datasets`` keeps on this disk.

    Raises:
        CorpusError: the corpus is missing or broken, or too many of its rows cannot be used.
        SpecError: the spec is incomplete.
    """
    if is_on_hub(spec) and not spec.stream:
        return None
    opened = _opened(spec)
    encoding = TARGETS[opened.targets.kind]
    if encoding.reads != "columns" or encoding.convert.__func__ is not TargetEncoding.convert.__func__:  # type: ignore[attr-defined]
        return None
    if spec.spread and (spec.limit or spec.limits):
        return None
    spec = replace(spec, columns=opened.reader.spec.columns, target=opened.reader.spec.target)
    if is_on_hub(spec):
        return TextStream(spec=spec, name=opened.name, source=opened.source)
    rows, distinct, texts = Counter[str](), DistinctCount(), 0
    for record in _rows(opened, spec):
        rows[record.split] += 1
        texts += len(record.texts)
        for text in record.texts:
            distinct.add(str(text))
    opened.check_rows(bool(rows))
    if texts <= most_held:
        return None
    return TextStream(
        spec=spec,
        name=opened.name,
        source=opened.source,
        rows=dict(rows),
        text_count=texts,
        distinct=distinct,
        notes=(*opened.reader.omissions.notes(), *opened.skipped.notes()),
    )


def _opened(spec: CorpusSpec) -> OpenedCorpus:
    opened = open_corpus(spec)
    opened.skipped.held = HELD_ROWS
    return opened


def _rows(opened: OpenedCorpus, spec: CorpusSpec) -> Iterator[Record]:
    """Yield the rows that a run reads, in their splits."""
    _, records = with_splits(opened.records, spec)
    usable = usable_records(records, make_encoding(opened.targets), opened.skipped)
    return limit_records(usable, spec.limit, spec.limits, spec.spread)
