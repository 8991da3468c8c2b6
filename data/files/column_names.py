"""Usual names of columns, in lower case, letters and digits alone: of texts, pairs, targets and splits."""

import re

PAIRS = (
    ("sentence1", "sentence2"), ("text1", "text2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("sentencea", "sentenceb"), ("texta", "textb"), ("first", "second"), ("query", "passage"), ("sent1", "sent2"),
    ("1string", "2string"), ("anchor", "positive"), ("sourcetext", "targettext"), ("s1", "s2"), ("q1", "q2"),
    ("context", "hypothesis"), ("question", "sentence"), ("question", "passage"), ("query", "document"),
    ("claim", "evidence"),
)  # fmt: skip
"""Columns of two texts of a row; ``1string`` is MRPC's ``#1 String``."""

TEXTS = (
    "text", "sentence", "review", "reviewtext", "tweet", "message", "comment", "commenttext", "content", "document",
    "utterance", "sms", "email",
)  # fmt: skip
"""Columns of the only text of a row, the likelier first, also if another column holds texts."""

PARTS = ("body", "question", "query", "post", "abstract", "description", "headline", "title", "v2")
"""Columns of texts of which a row may have several: it is asked which, if another column holds texts."""

SCORES = ("score", "similarity", "relatedness", "relatednessscore", "similarityscore", "rating", "stars", "valence")
"""Columns of numbers that are a scale, also if they are whole numbers."""

CLASSES = ("label", "goldlabel", "labels", "class", "target", "y")
"""Columns that are the target, whatever else a file has."""

TOPICS = (
    "category", "intent", "topic", "sentiment", "polarity", "emotion", "quality", "isduplicate", "stance", "genre",
    "spam", "tag", "tags", "v1", "coarselabel",
)  # fmt: skip
"""Columns of classes or labels, which may be a property of a row whose target is another column."""

WORDS, TAGS = ("tokens", "words"), ("nertags", "tags", "labels", "ner")
"""Columns of lists: the words of a sentence, and their tags."""

RELEVANCES = ("relevance", "label", "score", "rel")
"""Columns of the relevance of a passage, if passages are to be ranked."""

RANKS = ("relevance", "rel")
"""Columns that say by their name that passages are to be ranked."""

OTHERS = (
    "id", "idx", "index", "url", "date", "author", "name", "source", "language", "lang", "pos",
    "word", "context", "answer", "answers", "split", "set", "length", "uid", "pairid", "captionid", "timestamp", "user",
)  # fmt: skip
"""Columns that are neither."""

SPLITS = {
    "train": "train", "training": "train", "trn": "train",
    "dev": "validation", "val": "validation", "valid": "validation", "validation": "validation",
    "development": "validation", "trial": "validation", "testa": "validation", "test": "test", "testing": "test",
    "testb": "test",
}  # fmt: skip
"""Word for a split, in lower case -> split; ``trial`` is SICK's, ``testa`` and ``testb`` are CoNLL's."""

KNOWN = frozenset(
    [*(name for pair in PAIRS for name in pair), *TEXTS, *PARTS, *SCORES, *CLASSES, *TOPICS, *WORDS, *TAGS, *OTHERS]
)


def plain_name(name: str) -> str:
    """Return the letters and digits of a name in lower case, to compare names by."""
    return re.sub(r"[\W_]+", "", name).lower()


def split_of(word: str) -> str:
    """Return the split that a word stands for; empty if it stands for none."""
    return SPLITS.get(word.strip().lower(), "")
