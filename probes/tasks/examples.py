"""Example predictions: rows with the largest errors; entities and answers marked within their texts, mistakes first.

Drawn from ``predictions.csv`` alone, examples from the rows of its first seed.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from permafrost.data.corpora.label_sets import read_labels
from permafrost.data.writing.script import is_mark, is_unspaced
from permafrost.probes.config.names import PROBABILITY
from permafrost.probes.metrics.entities import entities_of
from permafrost.probes.results.formatting import decimals
from permafrost.probes.results.grid import Example, Examples, Grid, Look, Piece, cell_text
from permafrost.probes.results.run_tables import first_seed

MAX_MISTAKES = 12
"""Mistakes that are shown; as many correct predictions are folded."""

MOST_WORDS = 80
"""Words of a sentence that are shown."""

CONTEXT_CHARACTERS = 90
"""Characters of a context that are shown on either side of a marked span."""

LEGEND = "Underlined solid: right; dashed: missed; dotted: predicted but wrong; double: only partly right."

MARKS: Sequence[tuple[Look, str]] = (
    ("plain", ""), ("missed", "gold"), ("extra", "predicted"), ("differs", "gold and predicted"),
    ("right", "gold and predicted"),
)  # fmt: skip
"""Look and note of a character: in no span, in the gold span, the predicted one, both, or both if they are equal."""

MOST_ERRORS = 12
"""Rows with the largest errors that are shown."""

Entity = tuple[str, int, int]
"""Type, first and last word."""


def text_names(predictions: pd.DataFrame) -> list[str]:
    """Return the columns of a prediction table that hold the texts of a row."""
    return [name for name in ("sentence", "sentence1", "sentence2") if name in predictions]


def marked_examples(wrong: Sequence[Example], right: Sequence[Example]) -> list[Examples]:
    """Return mistakes, and correct predictions folded."""
    blocks = [Examples(f"Mistakes. {LEGEND}", wrong)] if wrong else []
    caption = f"Correct predictions. {LEGEND}" if wrong else f"There is no mistake. {LEGEND}"
    return [*blocks, *([Examples(caption, right, "Correct predictions")] if right else [])]


def tagged_examples(predictions: pd.DataFrame) -> list[Examples]:
    """Return sentences with mistakes, the most mistakes first, and without, the most entities first."""
    wrong, right = [], []
    for number, rows in first_seed(predictions).groupby("sentence", sort=False):
        gold, predicted = (set(entities_of(rows[column].tolist())) for column in ("target", "label"))
        if mistakes := len(gold ^ predicted):
            wrong.append((mistakes, str(number), rows["word"].tolist(), gold, predicted))
        elif gold:
            right.append((len(gold), str(number), rows["word"].tolist(), gold, predicted))
    examples = (
        [
            Example(_pieces(words, gold, predicted), note=f"sentence {cell_text(number, 20)}")
            for _, number, words, gold, predicted in sorted(half, key=lambda sentence: -sentence[0])[:MAX_MISTAKES]
        ]
        for half in (wrong, right)
    )
    return marked_examples(*examples)


def _pieces(words: Sequence[str], *gold_and_predicted: set[Entity]) -> list[Piece]:
    """The sentence in pieces of words that belong to the same entities."""
    entity_of_word = [
        {index: entity for entity in entities for index in range(entity[1], entity[2] + 1)}
        for entities in gold_and_predicted
    ]
    pieces: list[Piece] = []
    shown = range(min(len(words), MOST_WORDS))
    for (gold, predicted), group in groupby(shown, key=lambda index: [known.get(index) for known in entity_of_word]):
        first, *others = group
        text = words[first] + "".join(space_before(words, index) + words[index] for index in others)
        pieces += [Piece(" ")] * bool(space_before(words, first)) + [_piece(cell_text(text), gold, predicted)]
    return pieces + [Piece(" …")] * (len(words) > MOST_WORDS)


def space_before(words: Sequence[str], index: int) -> str:
    """Return the space before a word of a sentence; empty for the first word, and within a script without spaces."""
    return "" if not index or all(is_unspaced(word[:1]) for word in words[index - 1 : index + 1]) else " "


def _piece(text: str, gold: Entity | None, predicted: Entity | None) -> Piece:
    gold_type, predicted_type = (cell_text(entity[0], 24) if entity else "" for entity in (gold, predicted))
    if gold == predicted:
        return Piece(text, "right", gold_type) if gold else Piece(text)
    if gold and predicted:
        ends_differ = gold_type == predicted_type
        note = f"{gold_type}, predicted with other ends" if ends_differ else f"{gold_type}, predicted {predicted_type}"
        return Piece(text, "differs", note)
    return Piece(text, "missed", f"{gold_type}, missed") if gold else Piece(text, "extra", f"not {predicted_type}")


def answer_examples(predictions: pd.DataFrame) -> list[Examples]:
    """Return mistakes and correct answers, the most confident first."""
    rows = first_seed(predictions).sort_values("score", ascending=False, kind="stable")
    hit = rows["exact_match"] == 1
    wrong, right = rows[~hit].head(MAX_MISTAKES), rows[hit].head(MAX_MISTAKES)
    examples = ([_question(row) for _, row in half.iterrows()] for half in (wrong, right))
    return marked_examples(*examples)


def _question(row: pd.Series) -> Example:
    context, gold = str(row["context"]), str(row["target"])
    start, end = (int(row[name]) if pd.notna(row[name]) else 0 for name in ("start", "end"))
    predicted_span = (start, end) if 0 <= start < end <= len(context) else None
    gold_start = row.get("target_start")
    gold_span = nearest_span(context, gold, int(gold_start) if pd.notna(gold_start) else start)
    answer = f"predicted “{cell_text(row['answer'], 120)}”" if str(row["answer"]) else "predicted no answer"
    f1 = f", F1 {row['f1']:.2f}" if pd.notna(row["f1"]) else ""
    note = f"{answer}, gold is {f'“{cell_text(gold, 120)}”' if gold else 'no answer'}{f1}"
    return Example(list(_excerpt(context, predicted_span, gold_span)), cell_text(row["question"], 300), note)


def nearest_span(context: str, text: str, start: int) -> tuple[int, int] | None:
    """Return the span of the occurrence of ``text`` in a context that begins nearest to ``start``; None without one."""
    if not text:
        return None
    before, after = context.rfind(text, 0, max(0, start) + len(text)), context.find(text, max(0, start))
    occurrences = [position for position in (before, after) if position >= 0]
    if not occurrences:
        return None
    nearest = min(occurrences, key=lambda position: abs(position - start))
    return nearest, nearest + len(text)


def word_start(context: str, position: int) -> int:
    """Return where the word around a position begins; in a script without spaces, the character."""
    while position > 0 and context[position - 1] != " " and not _stands_alone(context[position]):
        position -= 1
    return max(0, position)


def word_end(context: str, position: int) -> int:
    """Return where the word around a position ends; in a script without spaces, the character."""
    while position < len(context) and context[position] != " " and not _stands_alone(context[position]):
        position += 1
    return position


def _stands_alone(character: str) -> bool:
    return is_unspaced(character) and not is_mark(character)


def _excerpt(context: str, predicted: tuple[int, int] | None, gold: tuple[int, int] | None) -> Iterator[Piece]:
    """The context around the marked spans, in pieces; the rest is left out."""
    spans = sorted(span for span in (predicted, gold) if span)
    near = np.zeros(len(context), bool)
    for first, last in spans:
        near[word_start(context, first - CONTEXT_CHARACTERS) : word_end(context, last + CONTEXT_CHARACTERS)] = True
    if not spans:
        near[: 2 * CONTEXT_CHARACTERS] = True
    codes = np.zeros(len(context), np.int64)
    for code, span in ((1, gold), (2, predicted)):
        if span:
            codes[span[0] : span[1]] += code
    if gold == predicted:
        codes[codes == 3] = 4
    codes[~near] = -1
    for code, group in groupby(range(len(context)), key=lambda position: int(codes[position])):
        first, *others = group
        look, note = MARKS[max(code, 0)]
        text = context[first : (others or [first])[-1] + 1]
        yield Piece(" … ") if code < 0 else Piece(cell_text(text), look, note)


def score_errors(predictions: pd.DataFrame) -> Grid:
    """Return the rows with the largest distance of predicted and gold score."""
    texts = text_names(predictions)
    means = predictions.groupby([*texts, "target"], sort=False)["score"].mean().reset_index()
    means = means.assign(error=(means["score"] - means["target"]).abs()).nlargest(MOST_ERRORS, "error")
    lines = [
        [*(cell_text(row[name]) for name in texts), *(f"{row[name]:.2f}" for name in ("target", "score", "error"))]
        for _, row in means.iterrows()
    ]
    return _errors("Largest distance of predicted and gold, mean over seeds.", texts, "error", lines, len(texts))


def class_errors(predictions: pd.DataFrame) -> Grid:
    """Return the rows with a wrong class, those of the highest probability first."""
    texts = text_names(predictions)
    wrong = predictions[predictions["label"] != predictions["target"]].drop_duplicates(texts)
    confidence = [float(row.get(PROBABILITY + row["label"], float("nan"))) for _, row in wrong.iterrows()]
    wrong = wrong.assign(confidence=pd.Series(confidence, index=wrong.index, dtype=float))
    wrong = wrong.sort_values("confidence", ascending=False)
    lines = [
        [*(cell_text(row[name]) for name in (*texts, "target", "label")), decimals(row["confidence"], 2)]
        for _, row in wrong.head(MOST_ERRORS).iterrows()
    ]
    caption = "Mistakes, the surest first." if lines else "There is no mistake."
    return _errors(caption, texts, "probability", lines, len(texts) + 2)


def label_errors(predictions: pd.DataFrame) -> Grid:
    """Return the rows with the most labels that were missed or predicted in error."""
    rows, texts = first_seed(predictions), text_names(predictions)
    sets = [[set(read_labels(cell)) for cell in rows[name]] for name in ("target", "labels")]
    wrong = pd.Series([len(gold ^ predicted) for gold, predicted in zip(*sets, strict=True)], index=rows.index)
    shown = rows[wrong > 0].assign(wrong=wrong).nlargest(MOST_ERRORS, "wrong")
    columns = [*texts, "target", "labels", "wrong"]
    lines = [[cell_text(row[name]) for name in columns] for _, row in shown.iterrows()]
    caption = "Most wrong labels first, of the first seed." if lines else "There is no mistake."
    return _errors(caption, texts, "wrong labels", lines, len(texts) + 2)


def _errors(caption: str, texts: Sequence[str], figure: str, rows: Sequence[Sequence[str]], text_columns: int) -> Grid:
    heads = [*texts, "gold", "predicted", figure]
    return Grid(caption=caption, heads=heads, rows=rows, text_columns=text_columns, sentences=True)
