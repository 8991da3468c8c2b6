"""Questions are grouped by the word that asks."""

from permafrost.probes.tasks.answers import question_word

ASKED = {
    "What is it?": "what", "In which year?": "which", "By whom was it sold?": "who", "Whose is it?": "who",
    "How many are there?": "how many/how much", "how  much": "how many/how much", "How is it?": "how",
    "Name the capital.": "other", "Somewhat": "other", "The cat sat when?": "when",
    "谁赢了比赛？": "other", "请问what是": "what", "कौन जीता?": "other",
}  # fmt: skip


def test_a_question_asks_by_its_first_question_word():
    assert {question: question_word(question) for question in ASKED} == ASKED
