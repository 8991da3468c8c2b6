"""The sample files that ship, read without our own readers: counts, offsets, tags, splits, and nothing twice."""

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data" / "samples"
SPLITS = {"train", "validation", "test"}
ENTITIES = ("LOC", "MISC", "ORG", "PER")
TAGS = {"O"} | {f"{place}-{entity}" for entity in ENTITIES for place in "BI"}
LABELS = {"entailment", "neutral", "contradiction"}
NEGATIONS = {"not", "no", "never", "nobody", "none", "nothing"}

Sentence = tuple[str, list[tuple[str, str]]]


def rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def sentences() -> list[Sentence]:
    """Split and ``(word, tag)`` of every sentence of ``tags.conll``."""
    found = []
    for block in (FOLDER / "tags.conll").read_text(encoding="utf-8").rstrip("\n").split("\n\n"):
        comment, *lines = block.split("\n")
        assert comment.startswith("# split = "), comment
        words = [(word, tag) for word, tag in (line.split(" ") for line in lines)]
        found.append((comment.removeprefix("# split = "), words))
    return found


def passages() -> list[tuple[str, str, list[dict]]]:
    """Split, context and questions of every passage of ``questions.json``."""
    whole = json.loads((FOLDER / "questions.json").read_text(encoding="utf-8"))
    assert whole["version"] == "permafrost-samples-1"
    return [(one["split"], part["context"], part["qas"]) for one in whole["data"] for part in one["paragraphs"]]


def negated(text: str) -> bool:
    words = text.lower().replace(",", " ").replace(".", " ").split()
    return any(word in NEGATIONS or word.endswith("n't") or word == "cannot" for word in words)


def folded(texts: list[str]) -> list[str]:
    return [" ".join(text.casefold().split()) for text in texts]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir() if path.is_file()))
def test_every_sample_file_is_plain_utf8_with_unix_lines_and_one_newline_at_its_end(name):
    text = (FOLDER / name).read_bytes().decode("utf-8", errors="strict")
    assert not text.startswith("\ufeff")
    assert not set("\r\t\ufffd\u00a0") & set(text)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_the_tagged_sentences_are_many_distinct_and_of_sane_length():
    found = sentences()
    assert len(found) >= 100
    texts = folded([" ".join(word for word, _ in words) for _, words in found])
    assert len(set(texts)) == len(texts)
    assert all(3 <= len(words) <= 30 for _, words in found)
    assert all(word and word.split() == [word] for _, words in found for word, _ in words)


def test_every_tag_stands_in_training_and_every_entity_type_in_every_split():
    found = sentences()
    tags = {split: {tag for part, words in found if part == split for _, tag in words} for split in SPLITS}
    assert {split for split, _ in found} == SPLITS
    assert tags["train"] == TAGS
    for split in SPLITS:
        assert {f"B-{entity}" for entity in ENTITIES} < tags[split]
        assert any(all(tag == "O" for _, tag in words) for part, words in found if part == split)


def test_no_tag_continues_an_entity_that_did_not_begin():
    for _, words in sentences():
        tags = ["O", *(tag for _, tag in words)]
        for before, tag in pairwise(tags):
            assert not tag.startswith("I-") or before[2:] == tag[2:], words


def test_every_answer_stands_at_its_offset_between_the_ends_of_words():
    for _, context, questions in passages():
        for question in questions:
            for answer in question["answers"]:
                start, text = answer["answer_start"], answer["text"]
                end = start + len(text)
                assert context[start:end] == text == text.strip() != ""
                assert not (start and context[start - 1].isalnum() and text[0].isalnum()), text
                assert not context[end : end + 1].isalnum(), text


def test_the_questions_are_many_distinct_and_in_every_split():
    found = passages()
    asked = [question for _, _, questions in found for question in questions]
    assert len(found) >= 14
    assert len(asked) >= 48
    assert {split for split, _, _ in found} == SPLITS
    for texts in (
        [context for _, context, _ in found],
        [one["question"] for one in asked],
        [one["id"] for one in asked],
    ):
        assert len(set(folded(texts))) == len(texts)
    assert all(one["question"].endswith("?") and len(one["question"].split()) <= 20 for one in asked)
    assert all(len(context.split()) <= 700 for _, context, _ in found)
    assert all({answer["text"] for answer in one["answers"]} for one in asked)
    assert sum(len(one["answers"]) > 1 for one in asked) >= 10
    assert all(len({answer["text"] for answer in one["answers"]}) == len(one["answers"]) for one in asked)


def test_the_questions_ask_in_many_ways_and_the_answers_are_hard_to_cut_out():
    asked = [question for _, _, questions in passages() for question in questions]
    assert {"Who", "What", "When", "Where", "Why", "How", "Which"} <= {one["question"].split()[0] for one in asked}
    answers = {answer["text"] for one in asked for answer in one["answers"]}
    assert "8,848.86 metres" in answers
    for sign in '-"°':
        assert any(sign in answer for answer in answers), sign
    assert sum(not answer.isascii() for answer in answers) >= 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_passage_is_longer_than_a_window_and_has_an_answer_beyond_it(split):
    """A word is at least one token, so the 385th word lies beyond a window of 384 tokens."""
    last = [
        len(context[: answer["answer_start"]].split())
        for part, context, questions in passages()
        if part == split
        for question in questions
        for answer in question["answers"][:1]
    ]
    assert max(last) > 384


def test_the_inference_pairs_are_balanced_triples_whose_premise_stays_in_one_split():
    found = rows("nli.csv")
    assert len(found) >= 180
    triples: dict[tuple[str, str], Counter[str]] = {}
    for row in found:
        triples.setdefault((row["premise"], row["split"]), Counter())[row["label"]] += 1
    assert len({premise for premise, _ in triples}) == len(triples)
    assert all(triple == Counter(dict.fromkeys(LABELS, 1)) for triple in triples.values())
    assert {split for _, split in triples} == SPLITS


def test_no_inference_text_stands_twice_or_is_too_long():
    found = rows("nli.csv")
    hypotheses = folded([row["hypothesis"] for row in found])
    assert len(set(hypotheses)) == len(hypotheses)
    assert not set(hypotheses) & set(folded([row["premise"] for row in found]))
    assert all(3 <= len(text.split()) <= 25 for row in found for text in (row["premise"], row["hypothesis"]))


def test_negation_gives_no_label_away():
    negative = Counter((row["split"], row["label"]) for row in rows("nli.csv") if negated(row["hypothesis"]))
    whole = Counter(label for _, label in negative.elements())
    assert set(negative) == {(split, label) for split in SPLITS for label in LABELS}
    assert min(whole.values()) >= 20
    assert max(whole.values()) < 2 * min(whole.values())


def test_the_topics_are_many_distinct_and_of_every_class_and_tone_in_every_split():
    found = rows("topics.csv")
    assert len(found) >= 120
    assert len(set(folded([row["sentence"] for row in found]))) == len(found)
    assert all(3 <= len(row["sentence"].split()) <= 30 for row in found)
    classes = {"topic": {"billing", "technical", "general"}, "tone": {"negative", "neutral", "positive"}}
    for column, names in classes.items():
        assert {(row["split"], row[column]) for row in found} == {(split, name) for split in SPLITS for name in names}


def test_the_passages_are_distinct_and_graded_four_to_a_query_of_one_split():
    found = rows("ranking.csv")
    by_query: dict[tuple[str, str], list[int]] = {}
    for row in found:
        by_query.setdefault((row["query"], row["split"]), []).append(int(row["relevance"]))
    assert len({query for query, _ in by_query}) == len(by_query) >= 60
    assert len(set(folded([row["passage"] for row in found]))) == len(found)
    assert all(len(grades) == 4 and sorted(grades)[:2] == [0, 0] for grades in by_query.values())
    without = [split for (_, split), grades in by_query.items() if not any(grades)]
    assert sorted(without) == ["test", "train"]
    assert all(max(grades) == 2 for grades in by_query.values() if any(grades))
    assert {split for _, split in by_query} == SPLITS


MESSAGE_LABELS = {"billing", "delivery", "account", "fault", "urgent"}


def test_the_labelled_messages_are_many_and_have_up_to_three_labels_or_none():
    found = rows("labels.csv")
    assert len(found) >= 240
    assert all(3 <= len(row["sentence"].split()) <= 30 for row in found)
    sets = [row["labels"].split(",") if row["labels"] else [] for row in found]
    assert {len(labels) for labels in sets} == {0, 1, 2, 3}
    assert all(len(set(labels)) == len(labels) for labels in sets)
    for split in SPLITS:
        counts = Counter(label for row, labels in zip(found, sets, strict=True) if row["split"] == split
                         for label in labels or ["none"])  # fmt: skip
        assert set(counts) == MESSAGE_LABELS | {"none"}
        assert min(counts.values()) >= 4


def test_a_few_messages_stand_twice_in_one_split_with_other_labels():
    versions: dict[str, list[tuple[str, str]]] = {}
    for row in rows("labels.csv"):
        versions.setdefault(row["sentence"], []).append((row["split"], row["labels"]))
    assert len(set(folded(list(versions)))) == len(versions)
    twice = [both for both in versions.values() if len(both) > 1]
    assert 3 <= len(twice) <= 12
    assert all(len(both) == 2 and both[0][0] == both[1][0] and both[0][1] != both[1][1] for both in twice)


@pytest.mark.parametrize("kind", ["tags", "questions", "nli", "labels"])
def test_training_holds_about_seven_tenths(kind):
    parts = {
        "tags": [split for split, _ in sentences()],
        "questions": [split for split, _, questions in passages() for _ in questions],
        "nli": [row["split"] for row in rows("nli.csv")],
        "labels": [row["split"] for row in rows("labels.csv")],
    }[kind]
    counts = Counter(parts)
    assert 0.6 <= counts["train"] / len(parts) <= 0.8
    assert min(counts["validation"], counts["test"]) / len(parts) >= 0.1
