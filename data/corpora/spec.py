"""The corpus spec: which texts and targets a recipe uses, and how they are split."""

from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.corpora.records import SPLITS
from permafrost.data.spec import SpecError, nearest


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Texts and targets of a recipe: source, columns, kind of target and splits."""

    name: str = ""
    """A named corpus (stsb, snli, sst2, conll2003, squad, genericskb, samples-pairs, ...) or the id of a hub data
    set."""

    path: str = ""
    """Your own file (csv, tsv, jsonl, parquet, txt; .gz), or a folder with train, validation and test files. Tags: a
    file of columns as CoNLL's (txt, conll, tsv, bio), or jsonl or parquet with lists. Answers: JSON as SQuAD's, or a
    table."""

    columns: tuple[str, ...] = ()
    """Your column names in order: one text or two, then the target; for example first,second,score. Of tags: the lists
    of words and of tags. Of answers: question, context, answer and, if there, the answer's first character."""

    target: Literal["", "score", "class", "none", "tags", "answers"] = ""
    """What the rows are labelled with: a score, a class, nothing, an IOB2 tag for each word, or the answers to a
    question on a passage; empty takes the target of a named corpus."""

    rule: Literal["", "question"] = ""
    """Make classes of single sentences by a rule instead of a column. "question": those that begin with a wh-word or
    end with a question mark; the others are statements."""

    score_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score."""

    labels: tuple[str, ...] = ()
    """Names of classes or tags in order; empty takes those of the training rows. Each must occur in training."""

    split_column: str = "split"
    """Name of the column that holds train, validation or test; if a file has none, splits are cut by seed."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test if they are cut by seed. If only validation is missing, its share is held
    out of train."""

    split_seed: int = 0
    """Seed of that cut."""

    held_out: float = 0.0
    """Share of train to choose epochs and variants by, cut by seed, so that the validation split can be reported beside
    test. If there is no validation split, none is made then."""

    limit: int = 0
    """Keep at most this many rows of each split; 0 keeps all."""

    limits: dict[str, int] = field(default_factory=dict)
    """The same for single splits by name, as train = 4000; what is held out of train counts as train."""

    spread: bool = False
    """Take the rows of a limit evenly from the whole split, not its first."""

    strict: bool = False
    """Refuse answers that are empty or not at their offset; else they are left out and counted."""

    revision: str = ""
    """Commit of the hub data set; empty takes the pinned one of a named corpus, else the newest."""

    config: str = ""
    """Configuration of the hub data set, if it has several."""

    def __post_init__(self) -> None:
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
        if not 0 <= self.held_out < 1:
            raise SpecError(f"held_out must be a share of train, at least 0 and below 1, got {self.held_out:g}.")
        if self.rule and (self.labels or self.target not in ("", "class")):
            raise SpecError(f'rule = "{self.rule}" makes the classes: leave target and labels empty.')
