"""Questions are grouped by the word that asks."""

import numpy as np

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.text import Segments
from permafrost.probes.tasks.answers import question_word
from permafrost.probes.tasks.registry import TASKS

ASKED = {
    "What is it?": "what", "In which year?": "which", "By whom was it sold?": "who", "Whose is it?": "who",
    "How many are there?": "how many/how much", "how  much": "how many/how much", "How is it?": "how",
    "Name the capital.": "other", "Somewhat": "other", "The cat sat when?": "when",
    "谁赢了比赛？": "other", "请问what是": "what", "कौन जीता?": "other",
}  # fmt: skip


def test_a_question_asks_by_its_first_question_word():
    assert {question: question_word(question) for question in ASKED} == ASKED


def test_an_answer_of_white_space_alone_has_no_place_in_the_table():
    rows = Rows(np.array([[0]]), np.zeros(1), Spans(np.array([[0, 2]]), np.zeros(1, np.int64), np.array([0, 1])))
    corpus = Corpus(name="toy", texts=(Segments("q?", "ab \n cd"),), splits={"test": rows}, kind="answers")
    said = np.array([[2, 5, 0.5]], np.float32)
    columns = TASKS["answers"].prediction_columns(said, TASKS["answers"].scorer(corpus, "test"), None)
    assert (columns["answer"], columns["start"].tolist(), columns["end"].tolist()) == ([""], [0], [0])
