"""Questions are grouped by the word that asks, and have a sentence that is closest to them."""

from permafrost.probes.metrics.questions import closest_sentence, question_word

ASKED = {
    "What is it?": "what", "In which year?": "which", "By whom was it sold?": "who", "Whose is it?": "who",
    "How many are there?": "how many/how much", "how  much": "how many/how much", "How is it?": "how",
    "Name the capital.": "other", "Somewhat": "other", "The cat sat when?": "when",
    "谁赢了比赛？": "other", "请问what是": "what", "कौन जीता?": "other",
}  # fmt: skip


def test_a_question_asks_by_its_first_question_word():
    assert {question: question_word(question) for question in ASKED} == ASKED


def test_the_closest_sentence_shares_most_words_and_is_the_first_of_equals():
    context = "The cat sat. A dog ran home! It was 3.5 km."
    for question, sentence in {"Where ran the dog?": 1, "How many km?": 2, "Why?": 0}.items():
        first, last = closest_sentence(question, context)
        assert context[first:last].strip() == ["The cat sat.", "A dog ran home!", "It was 3.5 km."][sentence]
