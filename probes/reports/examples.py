"""Examples with marks: what was said and what is true, within the text itself; the surest mistakes first.

Drawn from ``predictions.csv`` alone, of the first seed.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from seqeval.metrics.sequence_labeling import get_entities

from permafrost.data.script import is_mark, is_unspaced
from permafrost.probes.reports.page import Example, Examples, Look, Piece, tidy
from permafrost.probes.results.run_tables import Tables, first_seed

SHOWN = 12
"""Mistakes that are shown, and as many of what was right, folded away."""

MOST_WORDS = 80
"""Of a longer sentence the first so many words are shown."""

AROUND = 90
"""Characters of a context on either side of what is marked in it."""

LEGEND = "Underlined solid: right; dashed: missed; dotted: said and not there; double: said, but not just so."

LOOKS: Sequence[tuple[Look, str]] = (
    ("plain", ""), ("missed", "true"), ("extra", "said"), ("differs", "true and said"), ("right", "true and said"),
)  # fmt: skip
"""Of characters that are neither true nor said, true, said, both, and both with the same ends."""

Stretch = tuple[str, int, int]
"""Type, first and last word."""


def marked(run: Tables) -> list[Examples]:
    """Sentences with entities, or contexts with answers; none for other predictions."""
    made = {"tags": _sentences, "answers": _questions}.get(run.kind)
    if made is None:
        return []
    wrong, right = made(first_seed(run.predictions))
    blocks = [Examples(f"Mistakes. {LEGEND}", wrong)] if wrong else []
    caption = f"What was right. {LEGEND}" if wrong else f"There is no mistake. {LEGEND}"
    return [*blocks, *([Examples(caption, right, "What was right")] if right else [])]


def _sentences(rows: pd.DataFrame) -> tuple[list[Example], list[Example]]:
    """Those with most mistakes, and of those without the ones with most entities."""
    found = []
    for number, part in rows.groupby("sentence", sort=False):
        said, true = (set(get_entities(part[name].tolist())) for name in ("label", "target"))
        if said or true:
            found.append((len(said ^ true), len(true), str(number), part, said, true))
    wrong = sorted((one for one in found if one[0]), key=lambda one: -one[0])
    right = sorted((one for one in found if not one[0]), key=lambda one: -one[1])
    shown = [
        [
            Example(_sentence(part["word"].tolist(), said, true), note=f"sentence {tidy(number, 20)}")
            for _, _, number, part, said, true in some[:SHOWN]
        ]
        for some in (wrong, right)
    ]
    return shown[0], shown[1]


def _sentence(words: Sequence[str], said: set[Stretch], true: set[Stretch]) -> list[Piece]:
    """A sentence in pieces, each of words that belong to the same entities."""
    covers: list[tuple[Stretch | None, Stretch | None]] = [(None, None)] * len(words)
    for side, stretches in enumerate((true, said)):
        for one in stretches:
            for place in range(one[1], one[2] + 1):
                covers[place] = (one, covers[place][1]) if side == 0 else (covers[place][0], one)
    pieces: list[Piece] = []
    for (gold, guess), some in groupby(range(min(len(words), MOST_WORDS)), key=lambda place: covers[place]):
        first, *others = some
        text = words[first] + "".join(gap(words, place) + words[place] for place in others)
        pieces += [Piece(" ")] * bool(gap(words, first)) + [_piece(tidy(text), gold, guess)]
    return pieces + [Piece(" …")] * (len(words) > MOST_WORDS)


def gap(words: Sequence[str], place: int) -> str:
    """What stands before a word of a sentence: a space; nothing at its start and within a script without spaces."""
    return "" if not place or all(is_unspaced(word[:1]) for word in words[place - 1 : place + 1]) else " "


def _piece(text: str, gold: Stretch | None, guess: Stretch | None) -> Piece:
    true, said = (tidy(one[0], 24) if one else "" for one in (gold, guess))
    if gold == guess:
        return Piece(text, "right", true) if gold else Piece(text)
    if gold and guess:
        note = f"{true}, said {said}" if true != said else f"{true}, said with other ends"
        return Piece(text, "differs", note)
    return Piece(text, "missed", f"{true}, missed") if gold else Piece(text, "extra", f"not {said}")


def _questions(rows: pd.DataFrame) -> tuple[list[Example], list[Example]]:
    """The surest mistakes and the surest of what was right."""
    rows = rows.sort_values("score", ascending=False, kind="stable")
    hit = rows["exact_match"] == 1
    wrong, right = (some.head(SHOWN) for some in (rows[~hit], rows[hit]))
    return [_question(row) for _, row in wrong.iterrows()], [_question(row) for _, row in right.iterrows()]


def _question(row: pd.Series) -> Example:
    context, gold = str(row["context"]), str(row["target"])
    start, end = (int(row[name]) if pd.notna(row[name]) else 0 for name in ("start", "end"))
    said = (start, end) if 0 <= start < end <= len(context) else None
    told = row.get("target_start")
    true = nearest_place(context, gold, int(told) if pd.notna(told) else start)
    words = f"said “{tidy(row['answer'], 120)}”" if str(row["answer"]) else "said nothing"
    value = f", F1 {row['f1']:.2f}" if pd.notna(row["f1"]) else ""
    note = f"{words}, true is “{tidy(gold, 120)}”{value}"
    return Example(list(_excerpt(context, said, true)), tidy(row["question"], 300), note)


def nearest_place(context: str, gold: str, start: int) -> tuple[int, int] | None:
    """Where ``gold`` stands in a context, nearest to ``start`` where it does so several times; None where nowhere."""
    if not gold:
        return None
    places = (context.rfind(gold, 0, max(0, start) + len(gold)), context.find(gold, max(0, start)))
    found = [place for place in places if place >= 0]
    if not found:
        return None
    place = min(found, key=lambda place: abs(place - start))
    return place, place + len(gold)


def border_before(context: str, place: int) -> int:
    """Where the word that a place is in begins, or in a script that is written without spaces the character."""
    while place > 0 and context[place - 1] != " " and not _stands_alone(context[place]):
        place -= 1
    return max(0, place)


def border_after(context: str, place: int) -> int:
    """Where the word that a place is in ends, or in a script that is written without spaces the character."""
    while place < len(context) and context[place] != " " and not _stands_alone(context[place]):
        place += 1
    return place


def _stands_alone(character: str) -> bool:
    return is_unspaced(character) and not is_mark(character)


def _excerpt(context: str, said: tuple[int, int] | None, true: tuple[int, int] | None) -> Iterator[Piece]:
    """The context around what is marked, in pieces; what is further away is left out."""
    spans = sorted(span for span in (said, true) if span)
    near = np.zeros(len(context), bool)
    for first, last in spans:
        near[border_before(context, first - AROUND) : border_after(context, last + AROUND)] = True
    if not spans:
        near[: 2 * AROUND] = True
    codes = np.zeros(len(context), np.int64)
    for code, span in ((1, true), (2, said)):
        if span:
            codes[span[0] : span[1]] += code
    if true == said:
        codes[codes == 3] = 4
    codes[~near] = -1
    for code, some in groupby(range(len(context)), key=lambda place: int(codes[place])):
        places = list(some)
        look, note = LOOKS[max(code, 0)]
        yield Piece(" … ") if code < 0 else Piece(tidy(context[places[0] : places[-1] + 1]), look, note)
