"""Confusion: how often a variant takes a row, or a word, of one class for one of another."""

import numpy as np
import pandas as pd

from data.corpus import Corpus
from probes.ensemble import Ensemble
from probes.scoring import scorer_of

COLUMNS = ["variant", "target", "label", "n"]


def confusion_table(one: Ensemble, corpus: Corpus) -> pd.DataFrame:
    """A line a pair of classes that occurs on the scored split: the true one, the one that is said, and how often.

    Of several seeds the first one counts. Empty for scores and answers, which have no classes.
    """
    if corpus.kind not in ("class", "tags"):
        return pd.DataFrame(columns=COLUMNS)
    scorer, names = scorer_of(corpus, corpus.scored), np.array(corpus.labels)
    marks = scorer.rows.marks
    true = scorer.rows.targets if marks is None else marks.codes
    said = scorer.answers(one.voices(corpus.scored)[0])
    pairs = pd.DataFrame({"target": names[true.astype(np.int64)], "label": names[said.astype(np.int64)]})
    counts = pairs.value_counts(sort=False).rename("n").reset_index()
    return counts.assign(variant=one.variant)[COLUMNS]
