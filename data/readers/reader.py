"""From files and rows to records, whatever they are labelled with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from permafrost.data.corpora.records import SPLITS, CorpusError, Kind, Record
from permafrost.data.readers.conll import COLUMN_FILES, ROW_FILES, read_tagged, tagged_row
from permafrost.data.readers.rule_labels import RULES
from permafrost.data.readers.squad import KINDS as QUESTION_FILES
from permafrost.data.readers.squad import Omissions, question_row, read_questions
from permafrost.data.readers.tabular import READERS, TypedRow, as_text, read_table, select
from permafrost.data.spec import SpecError, nearest


@dataclass(frozen=True)
class RecordReader:
    """How the files of one corpus are read."""

    kind: Kind
    columns: tuple[str, ...] = ()
    """Texts, then the target if there is one that no rule makes; of tags and answers empty for the usual names."""

    split_column: str = "split"
    rule: str = ""
    """Name of the rule that makes labels of the text."""

    omitted: Omissions = field(default_factory=Omissions)

    def __post_init__(self) -> None:
        if self.rule and len(self.columns) != 1:
            raise SpecError(
                f'corpus.rule = "{self.rule}" labels single sentences: name one column in corpus.columns, '
                f"got {list(self.columns)}."
            )
        if self.kind in ("score", "class", "none") and not self.columns:
            raise SpecError(
                "corpus.columns must name your columns in order, texts first, then the target; "
                "for example --set corpus.columns=first,second,score."
            )
        if self.kind == "tags" and len(self.columns) not in (0, 2):
            raise SpecError(f"corpus.columns of tags are those of words and of tags, got {list(self.columns)}.")
        if self.kind == "answers" and len(self.columns) not in (0, 3, 4):
            raise SpecError(
                "corpus.columns of answers are question, context, answer and, where there is one, the answer's first "
                f"character, got {list(self.columns)}."
            )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files that can be read."""
        if self.kind == "tags":
            return (*COLUMN_FILES, *ROW_FILES)
        return QUESTION_FILES if self.kind == "answers" else tuple(READERS)

    def file(self, path: Path) -> Iterator[Record]:
        """The records of a file, each with the split that the file says, if any."""
        if self.kind == "tags":
            yield from read_tagged(path, self.columns, self.split_column)
        elif self.kind == "answers":
            yield from read_questions(path, self.columns, self.split_column, self.omitted)
        else:
            for place, fields in read_table(path):
                yield self._labelled(place, fields)

    def row(self, row: TypedRow, tag_names: tuple[str, ...] = ()) -> Iterator[Record]:
        """The records of a typed row, as the hub gives them."""
        place, fields = row
        if self.kind == "tags":
            yield tagged_row(row, self.columns, self.split_column, tag_names)
        elif self.kind == "answers":
            yield from question_row(row, self.columns, self.split_column, self.omitted)
        else:
            yield self._labelled(place, as_text(fields))

    def files(self, files: dict[str, Path]) -> Iterator[Record]:
        """The records of files by split; of one under the empty name, each row says its split, or none does."""
        for split, path in files.items():
            stated = None
            for record in self.file(path):
                own = split or record.split
                if own not in (*SPLITS, ""):
                    raise CorpusError(f"{record.origin}: unknown split {own!r}. {nearest(own, SPLITS)}")
                stated = bool(own) if stated is None else stated
                if bool(own) != stated:
                    raise CorpusError(
                        f"{record.origin}: some rows have a split and some have none; fill '{self.split_column}' in."
                    )
                own = "train" if self.kind == "none" and not own else own
                yield record if record.split == own else replace(record, split=own)

    def _labelled(self, place: str, fields: Mapping[str, str]) -> Record:
        values = select((place, fields), self.columns)
        split = fields.get(self.split_column, "")
        if self.rule:
            return Record(place, split, values, RULES[self.rule].label(values[0]))
        if self.kind == "none":
            return Record(place, split, values)
        return Record(place, split, values[:-1], values[-1])
