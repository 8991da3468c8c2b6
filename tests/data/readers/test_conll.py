"""Tagged sentences: column files and rows of lists read alike, and every fault is told with its line."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.reader import NO_COLUMNS, RecordReader
from permafrost.data.spec import SpecError

COLUMNS = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLi NNP I-PER\nsmiles VBZ O\n\n\nOslo NNP B-LOC\n"
ROWS = [
    {"tokens": ["Ada", "Li", "smiles"], "ner_tags": ["B-PER", "I-PER", "O"]},
    {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]},
]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, columns: tuple[str, ...] = ()) -> list[Record]:
    return list(RecordReader(CorpusSpec(target="tags", columns=columns)).read_file(path))


def said(records: list[Record]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (str(one.texts[0]), [(str(one.texts[0])[mark.start : mark.end], mark.tag) for mark in one.spans])
        for one in records
    ]


EXPECTED = [
    ("Ada Li smiles", [("Ada", "B-PER"), ("Li", "I-PER"), ("smiles", "O")]),
    ("Oslo", [("Oslo", "B-LOC")]),
]


@pytest.mark.parametrize("suffix", NO_COLUMNS["words"][0])
@pytest.mark.parametrize("apart", [" ", "\t"])
def test_columns_apart_by_blanks_or_tabs_hold_the_word_first_and_the_tag_last(tmp_path, suffix, apart):
    content = COLUMNS.replace(" ", apart)
    records = read(written(tmp_path / f"f{suffix}", content))
    assert said(records) == EXPECTED
    path = tmp_path / f"f{suffix}"
    assert [record.origin for record in records] == [f"{path}:3", f"{path}:8"]
    assert records[0].spans[1].origin == f"{path}:4"
    marked = b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode()
    assert said(read(written(tmp_path / f"g{suffix}.gz", gzip.compress(marked)))) == EXPECTED


@pytest.mark.parametrize("names", [("tokens", "ner_tags"), ("words", "tags"), ("w", "t")])
def test_rows_of_lists_read_like_columns(tmp_path, names):
    rows = [dict(zip(names, row.values(), strict=True)) for row in ROWS]
    columns = names if names == ("w", "t") else ()
    lines = written(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    assert said(read(lines, columns)) == said(read(tmp_path / "f.parquet", columns)) == EXPECTED
    assert read(lines, columns)[0].spans[1].origin == f"{lines}:1, word 2"


def test_a_comment_says_the_split_of_the_sentence_after_it_and_a_hash_may_be_a_word(tmp_path):
    content = "# split = test\nOslo B-LOC\n# O\n\n# another remark\n# split = train\n# O\n\nhome O\n"
    records = read(written(tmp_path / "f.conll", content))
    assert [(record.split, record.texts[0]) for record in records] == [("test", "Oslo #"), ("train", "#"), ("", "home")]


def test_a_word_may_hold_a_blank_where_tabs_part_the_columns(tmp_path):
    records = read(written(tmp_path / "f.tsv", "New York\tB-LOC\nis\u00a0big\tO\n"))
    assert said(records) == [("New York is\u00a0big", [("New York", "B-LOC"), ("is\u00a0big", "O")])]


def test_a_new_document_ends_a_sentence(tmp_path):
    assert len(read(written(tmp_path / "f.txt", "a O\n-DOCSTART- O\nb O\n"))) == 2


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("f.conll", "a X O\nb X O\nc O\n", "f.conll:3: expected 3 columns as in line 1, found 2."),
    ("f.txt", "a O\nb X O\n", "f.txt:2: expected 2 columns as in line 1, found 3."),
    ("f.txt", "a O\n\nb\tO\nc\n", "f.txt:4: expected 2 columns as in line 1, found 1."),
    ("f.tsv", "a\tO\nb O\n", "f.tsv:2: expected 2 columns as in line 1, found 1."),
    ("f.tsv", "a\tO\nb\t\n", "f.tsv:2: the tag is missing; expected O, B-TYPE or I-TYPE."),
    ("f.tsv", "a\tO\n\tO\n", "f.tsv:2: the word is empty."),
    ("f.bio", "alone\n", "f.bio:1: expected a word and its tag, with a blank or a tab between them, found one column."),
    ("f.bio", "a PERSON\n", "f.bio:1: 'PERSON' is no IOB2 tag; expected O, B-TYPE or I-TYPE, as in B-PER."),
    ("f.bio", "a O\nb E-PER\n", "f.bio:2: 'E-PER' is no IOB2 tag"),
    ("f.conll", b"a O\nna\xefve O\n", "f.conll:2: not UTF-8 at byte 3 of the line."),
    ("f.conll.gz", gzip.compress(b"a O\n" + b"b O\n" * 99)[:-12], "f.conll.gz: it cannot be read ("),
    ("f.jsonl", '{"tokens": [], "tags": []}', "f.jsonl:1: the sentence has no words."),
    ("f.jsonl", '{"tokens": ["a"], "tags": []}', "f.jsonl:1: expected a tag for each word, found 1 words and 0 tags."),
    ("f.jsonl", '{"tokens": ["a", " "], "tags": ["O", "O"]}', "f.jsonl:1, word 2: the word is empty."),
    ("f.jsonl", '{"tokens": "a b", "tags": ["O"]}', "f.jsonl:1: 'tokens' must be a list of texts."),
    ("f.jsonl", '{"tokens": ["a"], "tags": [null]}', "f.jsonl:1: 'tags' must be a list of texts."),
    ("f.jsonl", '{"text": "a"}', "f.jsonl:1: expected a list of words (tokens or words) and one of tags"),
    ("f.jsonl", '{"tokens": ["a"], "tokens": ["b"]}', "f.jsonl:1: not valid JSON (it names 'tokens' twice)."),
    ("f.csv", "a,b\n", "f.csv: unknown kind of file '.csv'. Known: .conll, .txt, .bio, .tsv, .jsonl, .parquet"),
    ("f.json", "[]", "f.json: unknown kind of file '.json'."),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_a_broken_file_is_told_with_its_line(tmp_path, name, content, message):
    with pytest.raises(CorpusError) as error:
        read(written(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert str(error.value).replace(f"{tmp_path}/", "").startswith(message)


def test_a_column_that_is_not_there_names_the_nearest(tmp_path):
    path = written(tmp_path / "f.jsonl", json.dumps(ROWS[0]))
    with pytest.raises(CorpusError, match=r"f\.jsonl:1: no column 'token'; .*Did you mean 'tokens'\?"):
        read(path, ("token", "ner_tags"))


def test_a_column_file_has_no_names_for_its_columns(tmp_path):
    with pytest.raises(SpecError, match=r"corpus\.columns: a file of tagged words names no columns"):
        read(written(tmp_path / "f.conll", COLUMNS), ("word", "tag"))
