"""Questions without a model: the word that asks, and the sentence of a context that shares most words with one."""

import re

from permafrost.data.writing.script import SENTENCE_ENDS, UNSPACED, WORD_END, WORD_START, lazy_pattern, script_of
from permafrost.probes.metrics.squad import normalize_answer

QUESTION_WORD = lazy_pattern(
    rf"{WORD_START}(how\s+(?:many|much)|what|who|whom|whose|when|where|why|how|which){WORD_END}(?!-)", re.IGNORECASE
)
"""English question words; questions in other languages have none of them."""

WHO_FORMS = {"whom": "who", "whose": "who"}

OTHER = "other"
"""Group of questions without an English question word."""

_SENTENCE_SPACE = rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])"

_INSIDE = rf"(?:(?!{_SENTENCE_SPACE})[^.!?{SENTENCE_ENDS}])"

SENTENCE = re.compile(rf"{_INSIDE}+(?:[.!?](?![\s{UNSPACED}]){_INSIDE}*)*(?:[.!?]|[{SENTENCE_ENDS}]+[」』”’）]*)?")
"""Sentence that ends at a full stop; in scripts without spaces between words, such as Thai, also at a space."""


def question_word(question: str) -> str:
    """Return the first English question word, ``how many`` and ``how much`` as one; ``other`` if there is none."""
    match = QUESTION_WORD().search(question)
    if not match:
        return OTHER
    word = " ".join(match[1].lower().split())
    return "how many/how much" if word in ("how many", "how much") else WHO_FORMS.get(word, word)


def closest_sentence(question: str, context: str) -> tuple[int, int]:
    """Return the span of the first sentence of a context that shares most words with a question."""
    script = script_of(context)
    words = set(normalize_answer(question, script).split())
    spans = [match.span() for match in SENTENCE.finditer(context)] or [(0, len(context))]
    return max(spans, key=lambda span: len(words & set(normalize_answer(context[slice(*span)], script).split())))
