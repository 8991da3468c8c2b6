"""Answers of the task: their columns, and questions that have none."""

import numpy as np

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.text import Segments
from permafrost.probes.tasks.registry import TASKS


def test_an_answer_of_white_space_alone_has_no_place_in_the_table():
    rows = Rows(np.array([[0]]), np.zeros(1), Spans(np.array([[0, 2]]), np.zeros(1, np.int64), np.array([0, 1])))
    corpus = Corpus(name="toy", texts=(Segments("q?", "ab \n cd"),), splits={"test": rows}, kind="answers")
    said = np.array([[2, 5, 0.5]], np.float32)
    columns = TASKS["answers"].prediction_columns(said, TASKS["answers"].scorer(corpus, "test"), None)
    assert (columns["answer"], columns["start"].tolist(), columns["end"].tolist()) == ([""], [0], [0])
