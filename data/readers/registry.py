"""Registry of named corpora: files, columns and labels, and the data set on the hub."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from permafrost.data.corpora.records import SPLITS, Kind

SAMPLES = Path(__file__).parent.parent / "samples"


@dataclass(frozen=True, kw_only=True)
class CorpusEntry:
    """Files, columns and hub data set of a named corpus."""

    files: dict[str, str]
    """Split -> file under ``folder`` or ``PERMAFROST_DATA``; the empty name is a single file that holds all splits."""

    target: Kind
    columns: tuple[str, ...] = ()
    """Column names: texts, then the target; empty for tags and answers, whose file formats define them."""

    labels: tuple[str, ...] = ()
    hub: str = ""
    revision: str = ""
    config: str = ""
    hub_columns: tuple[str, ...] = ()
    """Column names on the hub, if they differ."""

    hub_splits: dict[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})
    """Split on the hub -> split of the corpus."""

    ignore: tuple[str, ...] = ()
    """Left out beside ``corpus.ignore``: targets of rows whose annotators disagree, or whose label is withheld."""

    folder: Path | None = None
    """Folder of the files; None takes ``PERMAFROST_DATA``."""

    @property
    def local_files(self) -> dict[str, Path]:
        """Split -> file on this machine; empty if they are not here."""
        root = self.folder or os.environ.get("PERMAFROST_DATA")
        files = {split: Path(root) / name for split, name in self.files.items()} if root else {}
        is_local = self.folder is not None or any(path.exists() for path in files.values())
        return files if is_local else {}


def _splits(pattern: str) -> dict[str, str]:
    return {split: pattern.format(split) for split in SPLITS}


NLI = ("entailment", "neutral", "contradiction")

ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")

CORPORA: dict[str, CorpusEntry] = {
    "stsb": CorpusEntry(
        files=_splits("stsb/{}.csv"),
        target="score",
        columns=("sentence1", "sentence2", "score"),
        hub="sentence-transformers/stsb",
        revision="ab7a5ac0e35aa22088bdcf23e7fd99b220e53308",
    ),
    "snli": CorpusEntry(
        files=_splits("snli/{}.jsonl.gz"),
        target="class",
        columns=("premise", "hypothesis", "label"),
        labels=NLI,
        hub="stanfordnlp/snli",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        ignore=("-", "-1"),
    ),
    "sst2": CorpusEntry(
        files=_splits("sst2/{}.tsv"),
        target="class",
        columns=("sentence", "label"),
        labels=("negative", "positive"),
        hub="stanfordnlp/sst2",
        revision="8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb",
        ignore=("-1",),
    ),
    "conll2003": CorpusEntry(
        files=_splits("conll2003/{}.txt"),
        target="tags",
        labels=ENTITIES,
        hub="lhoestq/conll2003",
        hub_columns=("tokens", "ner_tags"),
    ),
    "squad": CorpusEntry(
        files={"train": "squad/train-subset-v1.1.json.gz", "test": "squad/dev-v1.1-reconstructed.json.gz"},
        target="answers",
        hub="rajpurkar/squad",
        hub_columns=("question", "context", "answers"),
        hub_splits={"train": "train", "validation": "test"},  # the test set is not public: dev is reported
    ),
    "genericskb": CorpusEntry(
        files={"train": "genericskb/sentences.txt.gz"},
        target="none",
        columns=("sentence",),
        hub="community-datasets/generics_kb",
        config="generics_kb_best",
        hub_columns=("generic_sentence",),
    ),
    "samples-pairs": CorpusEntry(
        files={"": "pairs.csv"}, target="score", columns=("sentence1", "sentence2", "score"), folder=SAMPLES
    ),
    "samples-topics": CorpusEntry(
        files={"": "topics.csv"}, target="class", columns=("sentence", "topic"), folder=SAMPLES
    ),
    "samples-tones": CorpusEntry(
        files={"": "topics.csv"},
        target="class",
        columns=("sentence", "tone"),
        labels=("negative", "neutral", "positive"),
        folder=SAMPLES,
    ),
    "samples-labels": CorpusEntry(
        files={"": "labels.csv"}, target="labels", columns=("sentence", "labels"), folder=SAMPLES
    ),
    "samples-nli": CorpusEntry(
        files={"": "nli.csv"}, target="class", columns=("premise", "hypothesis", "label"), labels=NLI, folder=SAMPLES
    ),
    "samples-ranking": CorpusEntry(
        files={"": "ranking.csv"}, target="rank", columns=("query", "passage", "relevance"), folder=SAMPLES
    ),
    "samples-tags": CorpusEntry(files={"": "tags.conll"}, target="tags", folder=SAMPLES),
    "samples-questions": CorpusEntry(files={"": "questions.json"}, target="answers", folder=SAMPLES),
    "samples-sentences": CorpusEntry(
        files={"train": "sentences.txt"}, target="none", columns=("sentence",), folder=SAMPLES
    ),
}
