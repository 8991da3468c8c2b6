"""The corpus spec: which texts and targets a recipe uses, and how they are split."""

from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.corpora.records import SPLITS
from permafrost.data.plugin_registry import is_known, unknown_name
from permafrost.data.plugins import Reader
from permafrost.data.spec import SpecError, nearest
from permafrost.data.writing.script import LANGUAGES


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Texts and targets of a recipe: source, columns, kind of target and splits."""

    name: str = ""
    """A named corpus (stsb, snli, sst2, conll2003, squad, genericskb, samples-pairs, ...) or the id of a hub data
    set."""

    path: str = ""
    """Your own file: delimited text (csv, tsv, txt), json, jsonl, parquet, Arrow or xlsx; text may be compressed by gz,
    zst, xz or bz2. A pattern such as "texts/*.jsonl" names all files that match it, in natural order, as one corpus. Or
    a folder with a file per split, whose names hold train, dev, val, valid, validation or test. For
    tags: a file with a word per line, or lists of words and tags. For answers: JSON in SQuAD format, or a table."""

    reader: str = ""
    """Reader of your own for the files of path, by name. Empty takes the one that is named as their suffix, if there is
    one; formats of ours need none."""

    columns: tuple[str, ...] = ()
    """Your columns in order: one text or two, then the target, e.g. first,second,score; by name, or by position from 1,
    e.g. 6,7,5. Or one regular expression that matches a line, with the groups text, second and label, e.g.
    '(?P<label>[A-Z]+):[a-z]+ (?P<text>.*)'. For tags: words and tags, or sentences, words and
    tags; in a file with a word per line also positions from 1, or from -1 at the end. For answers: question, context,
    answer and, if there is one, the column with the offset of the answer's first character. To rank: query, passage
    and relevance; or query, a relevant passage, and any number of passages that are not. Empty finds them."""

    target: str = ""
    """Kind of target: "score", "class", "labels" (any number of them for a row), "tags" (a tag for each word),
    "answers" (to a question on a passage), "rank" (the relevance of passages to a query, 0 or more), or "none". A query
    ranks the passages that the file pairs it with; if all of a file are relevant, all distinct passages of its split.
    Metrics leave out queries without a relevant passage; equal scores count as ranked in the worst order. Empty uses
    the kind of a named corpus, or finds it from the file."""

    encoding: str = "auto"
    """Encoding of a file of text, e.g. "cp1252"; "auto" reads UTF-8, and UTF-16 or UTF-32 that begin with their
    mark."""

    delimiter: str = "auto"
    """What separates the fields of a line: "tab", "comma", "semicolon", "bar" or a single character; "none" makes each
    line one text. "auto" finds it from the first lines."""

    quoting: Literal["auto", "double", "none"] = "auto"
    """Whether fields may stand in double quotes ("double"), or quotation marks are part of the texts ("none")."""

    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line names the columns; without a header they are named by their positions, "1", "2", ..."""

    decimal: Literal["point", "comma"] = "point"
    """How numbers of a file of delimited text are written: 3.5 ("point"), or 3,5 ("comma")."""

    rule: Literal["", "question"] = ""
    """Derive the classes of single sentences by a rule instead of a column. "question": a sentence that begins with a
    wh-word or ends with a question mark is a question, any other a statement."""

    score_range: tuple[float, float] | Literal["auto"] = "auto"
    """Lowest and highest score. "auto": of your own file, the whole numbers that enclose all its scores; of a named
    corpus 0 to 1."""

    indicators: tuple[str, ...] = ()
    """For target = "labels": columns that each say whether a row has the label that the column is named after, by 1 or
    0, true or false; columns then names the texts alone. Found if columns names several such after the texts."""

    labels: tuple[str, ...] = ()
    """Names of classes, labels or tags in order. Rows have the names, or their numbers from 0, or from 1 if no row has
    0 and one the number of names. Empty uses classes.txt, a file beside yours or in your folder with a name in each
    line, if all labels are numbers; else the names in the training rows, of labels those in all rows. Each tag must
    occur in training; a class or label that does not cannot be learnt."""

    label_names: tuple[str, ...] = ()
    """Names of classes or labels that rows have as numbers, as classes.txt gives them: from 0, or from 1 as for labels.
    Rows whose labels are no numbers keep them."""

    label_separator: str = ","
    """For target = "labels": separator of the labels in a column, e.g. ",", "|", ";" or " ". A field may also be a
    list such as ["late", "refund"]; an empty one is a row without labels."""

    language: str = ""
    """Language of the answers, by whose published rules exact match and F1 compare them: "en" (SQuAD's, which XQuAD
    uses for every language), "ar", "de", "es", "hi", "vi" or "zh" (MLQA's). Empty takes it from the name of the file,
    e.g. xquad.zh.json; without one, the rules for the script of each context."""

    split_column: str = "split"
    """Name of the column that holds train, validation or test, or words such as dev; if there is none of this name,
    one whose values are all such words. A file without one is split by fractions."""

    tag_scheme: Literal["auto", "IO", "IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BILOU"] = "auto"
    """Scheme of tags, which are converted to IOB2. "auto" finds it, and refuses a corpus that mixes schemes; with the
    name of one, any entity that is written otherwise is repaired and counted. "IO": types, or I- and a type."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Fractions of train, validation and test for rows without a split. The digest of a row's first text (of an
    answer: of its context) and split_seed decide alone, so that rows added later leave the others where they are. A
    class without a training row keeps all its rows in train; a split that no digest falls into takes its share of
    the rows of train whose digests are nearest, two at least. If only validation is missing, its
    fraction is held out of train."""

    split_seed: int = 0
    """Seed of the split by fractions, and of what is held out of train."""

    held_out: float = 0.0
    """Fraction of train that is held out (by split_seed) for selecting epochs and variants, so that validation can be
    reported beside test. If the corpus has no validation split, none is created."""

    limit: int = 0
    """Maximum number of rows of each split; 0 keeps all. Rows that stay in train for their class come on top."""

    limits: dict[str, int] = field(default_factory=dict)
    """Like limit, per split, e.g. {train = 4000}; rows held out of train count as train."""

    spread: bool = False
    """Take the rows of a limit at even distances from the whole split instead of its first rows."""

    ignore: tuple[str, ...] = ("-", "unsup", "unlabeled", "unlabelled")
    """Labels or scores of rows to leave out, as the file has them; they are counted, and most_skipped does not apply to
    them. Those of a named corpus are left out too."""

    most_skipped: float = 0.01
    """Largest share of all rows that may be left out because they cannot be used: no score or one outside score_range,
    an empty text or label, a label that training rows lack. They are counted, and listed in skipped.csv of the run;
    more are an error."""

    strict: bool = False
    """Refuse the first row that cannot be used, answers that are empty or not at their offset, and entities that are
    not written as in the scheme of their tags; otherwise rows and answers are left out, entities repaired, and all
    counted."""

    drop_leaks: bool = False
    """Take training rows out whose text, or pair of texts in either order, is in validation or test too; otherwise
    they are only counted."""

    revision: str = ""
    """Commit of the hub data set; empty uses the pinned commit of a named corpus, else the newest."""

    config: str = ""
    """Configuration of the hub data set, if it has several."""

    stream: bool = False
    """Read a hub data set as a stream, row by row over the network, and keep no file of it on this disk: for "extract"
    on a data set that is larger than the disk or the memory. Its rows are not counted before."""

    def __post_init__(self) -> None:
        if self.target:
            from permafrost.data.corpora.targets import TARGETS  # loads numpy, half of the time of a refused command

            if self.target not in TARGETS:
                raise SpecError(f"target = '{self.target}': {nearest(self.target, ['', *TARGETS])}")
        if self.reader and (self.reader in Reader.built_in or not is_known(Reader, self.reader)):
            raise SpecError(f"reader = '{self.reader}': {unknown_name(Reader, self.reader, ())}")
        if self.reader and not self.path:
            raise SpecError(f"reader = '{self.reader}' reads the files of path; set path too.")
        if self.language and self.language not in LANGUAGES:
            raise SpecError(f"language = '{self.language}': {nearest(self.language, ['', *LANGUAGES])}")
        if self.name and self.path:
            raise SpecError("name and path exclude each other: a corpus is either named or a file.")
        if self.score_range != "auto" and not self.score_range[0] < self.score_range[1]:
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
        if self.stream and self.path:
            raise SpecError("stream is for data sets of the hub (name); files (path) are read as streams anyway.")
        if self.stream and self.spread:
            raise SpecError(
                "spread takes rows at even distances, which needs their number, and a stream has none: set spread or "
                "stream to false."
            )
        if self.spread and self.target == "rank":
            raise SpecError("spread takes single rows and would part the passages of a query; set it to false.")
        for name in ("labels", "label_names"):
            names = getattr(self, name)
            if repeated := [label for label in names if names.count(label) > 1]:
                raise SpecError(f"{name} names '{repeated[0]}' twice.")
        if self.labels and self.label_names:
            raise SpecError("labels and label_names both name the classes: set one of them.")
        if not 0 <= self.most_skipped <= 1:
            raise SpecError(f"most_skipped must be a share of all rows, from 0 to 1, got {self.most_skipped:g}.")
        if not self.label_separator:
            raise SpecError("label_separator must not be empty.")
        if not 0 <= self.held_out < 1:
            raise SpecError(f"held_out must be a share of train, at least 0 and below 1, got {self.held_out:g}.")
        if self.indicators and self.target not in ("", "labels"):
            raise SpecError(f'indicators are columns of labels: set target = "labels", got "{self.target}".')
        if self.rule and (self.labels or self.target not in ("", "class")):
            raise SpecError(f'rule = "{self.rule}" makes the classes: leave target and labels empty.')
