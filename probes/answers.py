"""Answers as text, and how well one meets another: the official rules of SQuAD 1.1.

Source: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_text(context: str, span: Sequence[int]) -> str:
    """The characters of a span, widened to whole words; empty where there is none."""
    first, last = whole_words(context, int(span[0]), int(span[1]))
    return context[first:last]


def whole_words(context: str, first: int, last: int) -> tuple[int, int]:
    """A span without white space at its ends, widened where it begins or ends within a word or a number."""
    if not 0 <= first < last <= len(context):
        return 0, 0
    while first < last and context[first].isspace():
        first += 1
    while last > first and context[last - 1].isspace():
        last -= 1
    while 0 < first < last and context[first].isalnum() and context[first - 1].isalnum():
        first -= 1
    while first < last < len(context) and context[last].isalnum() and context[last - 1].isalnum():
        last += 1
    return first, last


def normalised(answer: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """1 where both are the same once normalised, else 0."""
    return float(normalised(answer) == normalised(gold))


def overlap(answer: str, gold: str) -> float:
    """F1 of the words of an answer against those of the gold one, repeats counted; 0 where they have none in common."""
    said, true = normalised(answer).split(), normalised(gold).split()
    both = sum((Counter(said) & Counter(true)).values())
    return 2 * both / (len(said) + len(true)) if both else 0.0
