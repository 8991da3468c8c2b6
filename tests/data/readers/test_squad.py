"""Questions and answers: SQuAD's JSON and plain tables; answers are where they are said to be, or are told of."""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.reader import RecordReader
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments

CONTEXT = "The peak is 8,848.86 metres high; the peak is in Nepal."


def squad(*qas: dict[str, Any], context: str = CONTEXT, **article: str) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "t", **article, "paragraphs": [{"context": context, "qas": [*qas]}]}]}


def asked(text: str = "Nepal", start: int | None = None, question: str = "Where?", **more: Any) -> dict[str, Any]:
    at = CONTEXT.find(text) if start is None else start
    return {"id": "q7", "question": question, "answers": [{"text": text, "answer_start": at}], **more}


def written(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path, columns: tuple[str, ...] = (), strict: bool = False) -> tuple[list[Record], tuple[str, ...]]:
    reader = RecordReader(CorpusSpec(target="answers", columns=columns, strict=strict))
    return list(reader.read_file(path)), reader.omissions.notes()


def answers(record: Record) -> list[str]:
    (text,) = record.texts
    assert isinstance(text, Segments)
    return [text.second[mark.start : mark.end] for mark in record.spans]


def test_a_question_and_its_context_are_two_segments_and_its_answers_are_marks(tmp_path):
    twice = asked() | {
        "answers": [{"text": text, "answer_start": CONTEXT.find(text)} for text in ("in Nepal", "Nepal", "Nepal")]
    }
    path = written(tmp_path / "f.json.gz", gzip.compress(json.dumps(squad(twice, split="test")).encode()))
    (record,), notes = read(path)
    assert record.texts == (Segments("Where?", CONTEXT),)
    assert (answers(record), record.split, notes) == (["in Nepal", "Nepal"], "test", ())
    assert record.origin == f"{path}: question 'q7'"


def test_blanks_around_an_answer_are_no_part_of_it(tmp_path):
    (record,), notes = read(written(tmp_path / "f.json", squad(asked(" Nepal"))))
    assert (answers(record), notes) == (["Nepal"], ())


def test_answers_count_characters_not_bytes(tmp_path):
    context = "🏔 é Nepal"
    (record,), _ = read(written(tmp_path / "f.json", squad(asked(start=4), context=context)))
    assert answers(record) == ["Nepal"]


def test_answers_that_are_not_at_their_offset_are_counted_and_left_out(tmp_path):
    wrong = asked() | {"id": "q8", "answers": [{"text": "Nepal", "answer_start": at} for at in (3, 49, -6)]}
    content = squad(asked(), wrong, asked(start=9999) | {"id": "q9"}, asked("", 0) | {"id": "q10"})
    path = written(tmp_path / "f.json", content)
    records, notes = read(path)
    assert [answers(record) for record in records] == [["Nepal"], ["Nepal"]]
    assert notes == (
        f"3 of 6 answers are not at their offset and are left out; the first: {path}: question 'q8'",
        f"1 of 6 answers are empty and are left out; the first: {path}: question 'q10'",
        "questions whose answers are all left out are left out too: 2",
    )


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (asked(start=12), "question 'q7': the answer 'Nepal' is not at its offset 12, where the context has '8,848'"),
        (asked(start=-1), "question 'q7': the answer 'Nepal' is not at its offset -1, before the context"),
        (asked(" ", 3), "question 'q7': an answer is empty"),
    ],
)
def test_strictness_refuses_what_would_be_left_out(tmp_path, item, message):
    with pytest.raises(CorpusError) as error:
        read(written(tmp_path / "f.json", squad(item)), strict=True)
    assert message in str(error.value)
    assert "set corpus.strict = false" in str(error.value)


def test_questions_without_an_answer_are_records_without_spans_and_are_told(tmp_path):
    impossible = {"id": "x", "question": "Why?", "is_impossible": True, "answers": [], "plausible_answers": asked()}
    empty = {"id": "y", "question": "Why not?", "answers": []}
    path = written(tmp_path / "f.json", squad(asked(is_impossible=False), impossible, empty))
    records, notes = read(path, strict=True)
    assert [answers(record) for record in records] == [["Nepal"], [], []]
    assert notes == (
        f"2 of 3 questions have no answer, which the probe learns to say; the first: {path}: question 'x'",
    )


EMPTY = {
    "f.csv": "question,context,answer,start\nWhy?,here,,\nWho?,here,here,0\nWhen?,here, ,3\n",
    "f.jsonl": "".join(
        json.dumps({"question": "q", "context": "here", "answer": answer}) + "\n" for answer in (None, "here", "")
    ),
    "hub.jsonl": "".join(
        json.dumps({"question": "q", "context": "here", "answers": {"text": [text] * n, "answer_start": [0] * n}})
        + "\n"
        for text, n in (("", 0), ("here", 1), ("", 0))
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_answer_of_a_table_is_a_question_without_one(tmp_path, name):
    records, (note,) = read(written(tmp_path / name, EMPTY[name]), strict=True)
    assert [answers(record) for record in records] == [[], ["here"], []]
    assert note.startswith("2 of 3 questions have no answer, ")


TABLES: dict[str, Callable[[str], str]] = {
    ".csv": lambda start: f'question,context,answer,start\nWhere?,"{CONTEXT}",the peak,{start}\n',
    ".tsv": lambda start: f"question\tcontext\tanswer\tstart\nWhere?\t{CONTEXT}\tthe peak\t{start}\n",
    ".jsonl": lambda start: json.dumps(
        {"question": "Where?", "context": CONTEXT, "answer": "the peak", "start": int(float(start)) if start else None}
    ),
}


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("start", ["34", "34.0", ""])
def test_a_table_of_questions_may_say_where_an_answer_begins(tmp_path, suffix, start):
    path = written(tmp_path / f"f{suffix}", TABLES[suffix](start))
    (record,), notes = read(path)
    assert (answers(record), [mark.start for mark in record.spans], notes) == (["the peak"], [34], ())
    with pytest.raises(CorpusError, match="not at its offset 1"):
        read(written(path, TABLES[suffix]("1")), strict=True)


def test_without_a_start_the_first_occurrence_counts_and_none_is_told(tmp_path):
    path = written(tmp_path / "f.csv", "q,c,a\nWhere?,here and here,here\nWho?,here,me\n")
    records, notes = read(path, ("q", "c", "a"))
    assert [mark.start for record in records for mark in record.spans] == [0]
    assert notes[0] == f"1 of 2 answers are not at their offset and are left out; the first: {path}:3"
    with pytest.raises(CorpusError, match=r"f\.csv:3: the answer 'me' does not occur in its context; "):
        read(path, ("q", "c", "a"), strict=True)


def test_columns_of_a_file_that_has_none_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"corpus\.columns: JSON in the layout of SQuAD names no columns"):
        read(written(tmp_path / "f.json", squad(asked())), ("question", "context", "answer"))


def test_a_row_may_list_its_answers_as_the_hub_does(tmp_path):
    row = {"question": "Where?", "context": CONTEXT, "answers": {"text": ["Nepal", "peak"], "answer_start": [49, 4]}}
    (record,), _ = read(written(tmp_path / "f.jsonl", row))
    assert answers(record) == ["Nepal", "peak"]


def without(key: str) -> dict[str, Any]:
    """A file whose only question, paragraph or article lacks a key."""
    content = squad(asked())
    paragraph = content["data"][0]["paragraphs"][0]
    for holder in (content, content["data"][0], paragraph, paragraph["qas"][0], paragraph["qas"][0]["answers"][0]):
        holder.pop(key, None)
    return content


BROKEN: list[tuple[str, Any, str]] = [
    ("f.json", squad(asked(question=" ")), "f.json: question 'q7': the question is empty; a question needs a context"),
    ("f.json", squad(asked(), context=""), "f.json: question 'q7': the context is empty; a question needs a context"),
    ("f.json", without("context"), "f.json: article 1, paragraph 1: no 'context'. Known: qas."),
    ("f.json", without("paragraphs"), "f.json: article 1: no 'paragraphs'. Known: title."),
    ("f.json", without("data"), "f.json: no 'data'. Known: version."),
    ("f.json", without("answers"), "f.json: question 'q7': no 'answers'."),
    ("f.json", without("question"), "f.json: question 'q7': no 'question'."),
    ("f.json", without("answer_start"), "f.json: question 'q7': no 'answer_start'. Known: text."),
    ("f.json", squad(asked(answers="Nepal")), "f.json: question 'q7': 'answers' must be a list, found a text."),
    (
        "f.json",
        squad(asked(answers=["Nepal"])),
        "f.json: question 'q7': expected a JSON object with 'text', found a te",
    ),
    ("f.json", squad("Where?"), "f.json: question 1: expected a JSON object with 'question', found a text."),
    ("f.json", squad(asked(start="4")), "f.json: question 'q7': 'answer_start' must be a whole number, found a text."),
    ("f.json", squad(asked(start=True)), "f.json: question 'q7': 'answer_start' must be a whole number, found bool."),
    (
        "f.json",
        squad(asked(), context=None),
        "f.json: article 1, paragraph 1: 'context' must be a text, found nothing.",
    ),
    ("f.json", [1], "f.json: item 1: expected a JSON object, found int."),
    ("f.json", '{"data": [], "data": []}', "f.json: not valid JSON (it names 'data' twice)."),
    ("f.json", '{"data": [\n', "f.json: not valid JSON ("),
    ("f.json", '{"data": ' * 100_000, "f.json: not valid JSON ("),
    ("f.json", "", "f.json: not valid JSON ("),
    ("f.json", b'{"data":\n "\xe9"}', "f.json:2: not UTF-8 at byte 12; save it as UTF-8."),
    ("f.csv", "question,answer\nWhere?,here\n", "f.csv:2: no column 'context'; set corpus.columns."),
    ("f.csv", "question,context,answer\nWhere?,,here\n", "f.csv:2: the context is empty; a question needs a context"),
    ("f.csv", "question,context,answer\n,here,here\n", "f.csv:2: the question is empty; a question needs a context"),
    ("f.csv", "question,context,answer,start\nq,c,c,x\n", "f.csv:2: the first character of the answer must be a whole"),
    ("f.csv", "question,context,answer,start\nq,c,c,inf\n", "f.csv:2: the first character of the answer must be a"),
    ("f.jsonl", '{"question": "q", "context": ["c"], "answer": "c"}', "f.jsonl:1: 'context' must be a text, found a l"),
    (
        "f.jsonl",
        '{"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": []}}',
        "f.jsonl:1: 'answers' must hold as many whole numbers in 'answer_start' as texts in 'text'.",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_a_broken_file_is_told_with_its_place(tmp_path, name, content, message):
    with pytest.raises(CorpusError) as error:
        read(written(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert str(error.value).replace(f"{tmp_path}/", "").startswith(message)


def test_a_named_column_of_starts_must_be_there(tmp_path):
    path = written(tmp_path / "f.csv", TABLES[".csv"]("34"))
    with pytest.raises(CorpusError, match=r"f\.csv:2: no column 'starts'; .*Did you mean 'start'\?"):
        read(path, ("question", "context", "answer", "starts"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PLACES: list[tuple[str | int, ...]] = [
    (),
    ("data",),
    ("data", 0),
    ("data", 0, "split"),
    ("data", 0, "paragraphs", 0),
    ("data", 0, "paragraphs", 0, "context"),
    ("data", 0, "paragraphs", 0, "qas", 0),
    ("data", 0, "paragraphs", 0, "qas", 0, "id"),
    ("data", 0, "paragraphs", 0, "qas", 0, "is_impossible"),
    ("data", 0, "paragraphs", 0, "qas", 0, "answers", 0),
    ("data", 0, "paragraphs", 0, "qas", 0, "answers", 0, "answer_start"),
]


@given(value=anything, place=st.sampled_from(PLACES))
def test_whatever_stands_in_the_place_of_a_part_it_is_read_or_refused_in_words(tmp_path_factory, value, place):
    content: Any = {"whole": copy.deepcopy(squad(asked(), split="test"))}
    holder, last = content, "whole"
    for step in place:
        holder, last = holder[last], step
    holder[last] = value
    path = written(tmp_path_factory.getbasetemp() / "any.json", content["whole"])
    refused, records = "", list[Record]()
    try:
        records, _ = read(path)
    except CorpusError as error:
        refused = str(error)
    assert not refused or refused.startswith(str(path))
    impossible = value is True and place[-1:] == ("is_impossible",)  # its answers are no answers, as in SQuAD 2.0
    assert all(answers(record) == ([] if impossible else ["Nepal"]) for record in records)
