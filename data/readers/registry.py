"""Corpora known by name: where their files lie, what their columns mean, where the hub has them."""

from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.corpora.records import SPLITS, Kind

SAMPLES = Path(__file__).parent.parent / "samples"


@dataclass(frozen=True)
class CorpusEntry:
    """What there is to know of a corpus."""

    files: dict[str, str]
    """Split -> file under the folder of corpora; a single file that says its splits is under the empty name."""

    target: Kind
    columns: tuple[str, ...] = ()
    """Texts, then the target; none for tags and answers, whose files have a layout of their own."""

    labels: tuple[str, ...] = ()
    hub: str = ""
    revision: str = ""
    config: str = ""
    hub_columns: tuple[str, ...] = ()
    """Column names on the hub, where they differ."""

    hub_splits: dict[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})
    """Split on the hub -> split here."""

    unlabelled: tuple[str, ...] = ()
    """Targets that mean: annotators did not agree, or the label is kept secret. Such rows are left out."""

    folder: Path | None = None
    """Where the files are, if not under ``PERMAFROST_DATA``."""


def _splits(pattern: str) -> dict[str, str]:
    return {split: pattern.format(split) for split in SPLITS}


NLI = ("entailment", "neutral", "contradiction")

ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")

CORPORA: dict[str, CorpusEntry] = {
    "stsb": CorpusEntry(
        _splits("stsb/{}.csv"),
        "score",
        ("sentence1", "sentence2", "score"),
        hub="sentence-transformers/stsb",
        revision="ab7a5ac0e35aa22088bdcf23e7fd99b220e53308",
    ),
    "snli": CorpusEntry(
        _splits("snli/{}.jsonl.gz"),
        "class",
        ("premise", "hypothesis", "label"),
        NLI,
        hub="stanfordnlp/snli",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        unlabelled=("-", "-1"),
    ),
    "sst2": CorpusEntry(
        _splits("sst2/{}.tsv"),
        "class",
        ("sentence", "label"),
        ("negative", "positive"),
        hub="stanfordnlp/sst2",
        revision="8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb",
        unlabelled=("-1",),
    ),
    "conll2003": CorpusEntry(
        _splits("conll2003/{}.txt"),
        "tags",
        labels=ENTITIES,
        hub="lhoestq/conll2003",
        hub_columns=("tokens", "ner_tags"),
    ),
    "squad": CorpusEntry(
        {"train": "squad/train-subset-v1.1.json.gz", "test": "squad/dev-v1.1-reconstructed.json.gz"},
        "answers",
        hub="rajpurkar/squad",
        hub_columns=("question", "context", "answers"),
        hub_splits={"train": "train", "validation": "test"},  # its test set is kept secret: dev is what is reported
    ),
    "genericskb": CorpusEntry(
        {"train": "genericskb/sentences.txt.gz"},
        "none",
        ("sentence",),
        hub="community-datasets/generics_kb",
        config="generics_kb_best",
        hub_columns=("generic_sentence",),
    ),
    "samples-pairs": CorpusEntry({"": "pairs.csv"}, "score", ("sentence1", "sentence2", "score"), folder=SAMPLES),
    "samples-topics": CorpusEntry({"": "topics.csv"}, "class", ("sentence", "topic"), folder=SAMPLES),
    "samples-tones": CorpusEntry(
        {"": "topics.csv"}, "class", ("sentence", "tone"), ("negative", "neutral", "positive"), folder=SAMPLES
    ),
    "samples-nli": CorpusEntry({"": "nli.csv"}, "class", ("premise", "hypothesis", "label"), NLI, folder=SAMPLES),
    "samples-tags": CorpusEntry({"": "tags.conll"}, "tags", folder=SAMPLES),
    "samples-questions": CorpusEntry({"": "questions.json"}, "answers", folder=SAMPLES),
    "samples-sentences": CorpusEntry({"train": "sentences.txt"}, "none", ("sentence",), folder=SAMPLES),
}
