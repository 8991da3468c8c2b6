"""The corpus spec: which texts and targets a recipe uses, and how they are split."""

from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.corpora.records import SPLITS
from permafrost.data.script import LANGUAGES
from permafrost.data.spec import SpecError, nearest


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Texts and targets of a recipe: source, columns, kind of target and splits."""

    name: str = ""
    """A named corpus (stsb, snli, sst2, conll2003, squad, genericskb, samples-pairs, ...) or the id of a hub data
    set."""

    path: str = ""
    """Your own file (csv, tsv, jsonl, parquet, txt; .gz), or a folder with train, validation and test files. For tags:
    a file of columns in CoNLL format (txt, conll, tsv, bio), or jsonl or parquet with lists. For answers: JSON in SQuAD
    format, or a table."""

    columns: tuple[str, ...] = ()
    """Your column names in order: one text or two, then the target, e.g. first,second,score. For tags: the lists of
    words and of tags. For answers: question, context, answer and, if there is one, the column with the offset of the
    answer's first character."""

    target: str = ""
    """Kind of target: "score", "class", "labels" (any number of them for a row), "tags" (an IOB2 tag for each word),
    "answers" (to a question on a passage), or "none". Empty uses the kind of a named corpus."""

    rule: Literal["", "question"] = ""
    """Derive the classes of single sentences by a rule instead of a column. "question": a sentence that begins with a
    wh-word or ends with a question mark is a question, any other a statement."""

    score_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score."""

    labels: tuple[str, ...] = ()
    """Names of classes, labels or tags in order; empty uses the names in the training rows, of labels those in all
    rows. Each class and tag must occur in training; a label that does not is never predicted."""

    label_separator: str = ","
    """For target = "labels": separator of the labels in a column, e.g. ",", "|", ";" or " ". A field may also be a
    list such as ["late", "refund"]; an empty one is a row without labels."""

    language: str = ""
    """Language of the answers, by whose published rules exact match and F1 compare them: "en" (SQuAD's, which XQuAD
    uses for every language), "ar", "de", "es", "hi", "vi" or "zh" (MLQA's). Empty takes it from the name of the file,
    e.g. xquad.zh.json; without one, the rules for the script of each context."""

    split_column: str = "split"
    """Name of the column that holds train, validation or test; if a file has no such column, rows are split at
    random."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Fractions of train, validation and test for a random split. If only validation is missing, its fraction is held
    out of train."""

    split_seed: int = 0
    """Seed of the random split."""

    held_out: float = 0.0
    """Fraction of train that is held out (by split_seed) for selecting epochs and variants, so that validation can be
    reported beside test. If the corpus has no validation split, none is created."""

    limit: int = 0
    """Maximum number of rows of each split; 0 keeps all."""

    limits: dict[str, int] = field(default_factory=dict)
    """Like limit, per split, e.g. {train = 4000}; rows held out of train count as train."""

    spread: bool = False
    """Take the rows of a limit at even distances from the whole split instead of its first rows."""

    strict: bool = False
    """Refuse answers that are empty or not at their offset; otherwise they are left out and counted."""

    revision: str = ""
    """Commit of the hub data set; empty uses the pinned commit of a named corpus, else the newest."""

    config: str = ""
    """Configuration of the hub data set, if it has several."""

    def __post_init__(self) -> None:
        if self.target:
            from permafrost.data.corpora.targets import TARGETS  # loads numpy, half of the time of a refused command

            if self.target not in TARGETS:
                raise SpecError(f"target = '{self.target}': {nearest(self.target, ['', *TARGETS])}")
        if self.language and self.language not in LANGUAGES:
            raise SpecError(f"language = '{self.language}': {nearest(self.language, ['', *LANGUAGES])}")
        if self.name and self.path:
            raise SpecError("name and path exclude each other: a corpus is either named or a file.")
        if not self.score_range[0] < self.score_range[1]:
            raise SpecError(f"score_range must rise, got {list(self.score_range)}.")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise SpecError(f"fractions must be shares that add up to 1, got {list(self.fractions)}.")
        for name in ("limit", "split_seed"):
            if getattr(self, name) < 0:
                raise SpecError(f"{name} must not be negative, got {getattr(self, name)}.")
        for split, limit in self.limits.items():
            if split not in SPLITS:
                raise SpecError(f"limits.{split}: there is no such split. {nearest(split, SPLITS)}")
            if limit < 0:
                raise SpecError(f"limits.{split} must not be negative, got {limit}.")
        repeated = [label for label in self.labels if self.labels.count(label) > 1]
        if repeated:
            raise SpecError(f"labels names '{repeated[0]}' twice.")
        if not self.label_separator:
            raise SpecError("label_separator must not be empty.")
        if not 0 <= self.held_out < 1:
            raise SpecError(f"held_out must be a share of train, at least 0 and below 1, got {self.held_out:g}.")
        if self.rule and (self.labels or self.target not in ("", "class")):
            raise SpecError(f'rule = "{self.rule}" makes the classes: leave target and labels empty.')
