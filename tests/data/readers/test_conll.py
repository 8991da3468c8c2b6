"""Tagged sentences: column files and rows of lists read alike, and every fault is told with its line."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from permafrost.data.corpora.records import CorpusError, Record
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.reader import RecordReader
from permafrost.data.spec import SpecError
from tests.support.real import real_data

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


@pytest.mark.parametrize("suffix", [".conll", ".txt", ".bio", ".tsv"])
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


LAYOUTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "the tag first": ("f.bio", "B-PER\tAda\nI-PER\tLi\nO\tsmiles\n\nB-LOC\tOslo\n", ("2", "1")),
    "the tag in the middle": ("f.txt", "Ada B-PER x\nLi I-PER x\nsmiles O x\n\nOslo B-LOC x", ("1", "-2")),
    "numbered words and two tags": (
        "f.tsv",
        "#\thttp://a.org\t[2009]\n1\tAda\tB-PER\tO\n2\tLi\tI-PER\tO\n3\tsmiles\tO\tO\n\n"
        "#\thttp://b.org\t[2010]\n1\tOslo\tB-LOC\tO\n",
        ("2", "3"),
    ),
    "numbered words": ("f.conll", "1 Ada B-PER\n2 Li I-PER\n3 smiles O\n\n1 Oslo B-LOC\n", ()),
    "names in a comment": (
        "f.conll",
        "# global.columns = TAG FORM ID\n# text = B-x\nB-PER Ada 1\nI-PER Li 2\nO smiles 3\n\n# n\nB-LOC Oslo 1\n",
        (),
    ),
    "chosen names in a comment": (
        "f.conll",
        "#global.columns = A B\nB-PER Ada\nI-PER Li\nO smiles\n\nB-LOC Oslo",
        ("B", "A"),
    ),
    "names in the first line": ("f.tsv", "word\ttag\nAda\tB-PER\nLi\tI-PER\nsmiles\tO\n\nOslo\tB-LOC\n", ()),
    "chosen names in the first line": ("f.tsv", "w\tx\nAda\tB-PER\nLi\tI-PER\nsmiles\tO\n\nOslo\tB-LOC\n", ("w", "x")),
    "sentences on their first row": (
        "f.csv",
        "Sentence #,Word,POS,Tag\nSentence: 1,Ada,N,B-PER\n,Li,N,I-PER\n,smiles,V,O\nSentence: 2,Oslo,N,B-LOC\n",
        (),
    ),
    "sentences on every row": (
        "f.csv",
        "tag;s;word\nB-PER;1;Ada\nI-PER;1;Li\nO;1;smiles\nB-LOC;2;Oslo\n",
        ("s", "word", "tag"),
    ),
    "sentences by position": ("f.txt", "1 Ada B-PER\n1 Li I-PER\n1 smiles O\n2 Oslo B-LOC\n", ("1", "2", "3")),
    "empty rows of a sheet": ("f.csv", "word,tag\nAda,B-PER\nLi,I-PER\nsmiles,O\n,\nOslo,B-LOC\n,\n", ()),
    "blanks and tabs everywhere": (
        "f.txt",
        "\ufeff\r\n  Ada  B-PER \r\nLi \t I-PER\t\r\n smiles O  \r\n \t \r\n\t\r\nOslo   B-LOC  ",
        (),
    ),
    "tabs at the end": ("f.tsv", "Ada\tB-PER\t\nLi\tI-PER\t \nsmiles \tO\n\t\nOslo\tB-LOC\t\t\n", ()),
    "documents": (
        "f.txt",
        "-DOCSTART- -X- O O\n\nAda a b B-PER\nLi a b I-PER\nsmiles a b O\n\n-DOCSTART- O\n\nOslo a b B-LOC\n",
        (),
    ),
    "documents, the tag first": (
        "f.txt",
        "O -DOCSTART-\nB-PER Ada\nI-PER Li\nO smiles\nO -DOCSTART-\nB-LOC Oslo\n",
        ("2", "1"),
    ),
    "words that are empty": ("f.tsv", "Ada\tB-PER\n\tO\nLi\tI-PER\nsmiles\tO\n\tO\n\n\tO\n\nOslo\tB-LOC\n", ()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_are_read_as_they_are_laid_out(tmp_path, layout):
    name, content, columns = LAYOUTS[layout]
    assert said(read(written(tmp_path / name, content), columns))[:2] == EXPECTED


def test_a_word_of_a_space_that_does_not_break_is_a_word(tmp_path):
    records = read(written(tmp_path / "f.tsv", "a\tO\n\u00a0\tO\nb\tO\n"))
    assert said(records) == [("a \u00a0 b", [("a", "O"), ("\u00a0", "O"), ("b", "O")])]


def test_a_column_gives_the_split(tmp_path):
    records = read(written(tmp_path / "f.csv", "word,tag,split\na,O,test\nb,O,test\n\nc,O,train\n"))
    assert [(record.split, record.texts[0]) for record in records] == [("test", "a b"), ("train", "c")]


def test_quotes_and_separators_are_words_of_a_csv_file(tmp_path):
    records = read(written(tmp_path / "f.csv", 'word,tag\n"""",O\n",",O\n'))
    assert said(records) == [('" ,', [('"', "O"), (",", "O")])]


def test_a_hash_tag_is_a_word_and_a_remark_is_not(tmp_path):
    content = "#ada\tPER\nli\tO\n\n#li\tB-PER\n\n#a remark\n#oslo\tO\n\n# remark\tremark\nx\tO\n"
    records = read(written(tmp_path / "f.txt", "x\tPER\n\n" + content))
    assert [record.texts[0] for record in records] == ["x", "#ada li", "#li", "#oslo", "x"]


UNUSABLE: list[tuple[str, str, str, str]] = [
    ("f.conll", "a X O\n\nb X O\nc O\n\na X O", "f.conll:4: expected 3 columns as in line 1, found 2", "a"),
    ("f.txt", "a O\n\nb X O\n\na O\n", "f.txt:3: expected 2 columns as in line 1, found 3", "a"),
    ("f.txt", "a O\n\nb\tO\nc\n\na O\n", "f.txt:4: expected 2 columns as in line 1, found 1", "a"),
    ("f.tsv", "a\tO\n\nb O\n\na\tO\n", "f.tsv:3: expected 2 columns as in line 1, found 1", "a"),
    ("f.tsv", "a\tO\n\nb\t\n\na\tO\n", "f.tsv:3: the tag is missing", "a"),
    ("f.tsv", "a\tO\n\n\tB-X\n\na\tO\n", "f.tsv:3: the word is missing", "a"),
    ("f.csv", "word,tag\na,O\n\nb,\n\na,O\n", "f.csv:4: the tag is missing", "a"),
    (
        "f.jsonl",
        '{"words": ["a"], "tags": ["O"]}\n' * 2 + '{"words": [], "tags": []}',
        "f.jsonl:3: the sentence has no words",
        "a",
    ),
    (
        "f.jsonl",
        '{"words": ["a"], "tags": ["O"]}\n' * 2 + '{"words": ["a"], "tags": []}',
        "f.jsonl:3: expected a tag for each word, found 1 words and 0 tags",
        "a",
    ),
    (
        "f.jsonl",
        '{"words": ["a"], "tags": ["O"]}\n' * 2 + '{"words": ["a"], "tags": [""]}',
        "f.jsonl:3, word 1: the tag is missing",
        "a",
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "problem", "text"), UNUSABLE, ids=[problem for _, _, problem, _ in UNUSABLE]
)
def test_a_sentence_with_a_broken_line_is_left_out_or_refused(tmp_path, name, content, problem, text):
    path = written(tmp_path / name, content)
    reader = RecordReader(CorpusSpec(target="tags"))
    assert [record.texts[0] for record in reader.read_file(path)] == [text] * 2
    assert [f"{row.origin}: {row.problem}".replace(f"{tmp_path}/", "") for row in reader.skipped.rows] == [problem]
    with pytest.raises(CorpusError) as error:
        list(RecordReader(CorpusSpec(target="tags", strict=True)).read_file(path))
    assert str(error.value).replace(f"{tmp_path}/", "").startswith(f"{problem}; correct it")


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("f.bio", "alone\n", "f.bio:1: expected a word and its tag, with a blank or a tab between them, found one cell."),
    ("f.conll.gz", gzip.compress(b"a O\n" + b"b O\n" * 99)[:-12], "f.conll.gz: it cannot be read ("),
    ("f.jsonl", '{"tokens": "a b", "tags": ["O"]}', "f.jsonl:1: 'tokens' must be a list of texts."),
    ("f.jsonl", '{"tokens": ["a"], "tags": [null]}', "f.jsonl:1: 'tags' must be a list of texts."),
    ("f.jsonl", '{"text": "a"}', "f.jsonl:1: expected a list of words (tokens or words) and one of tags"),
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


@pytest.mark.parametrize("columns", [("word", "tgs"), ("1", "4"), ("0", "2")])
def test_a_column_that_a_file_lacks_is_told_with_those_that_it_has(tmp_path, columns):
    with pytest.raises(
        CorpusError, match=r"f\.tsv:1: no column '(tgs|4|0)' .*set corpus\.columns .*corpus\.columns=1,3"
    ):
        read(written(tmp_path / "f.tsv", "word\tpos\ttag\na\tX\tO\n"), columns)


def test_columns_are_those_of_words_and_tags(tmp_path):
    with pytest.raises(SpecError, match=r"corpus\.columns of tags are those of words and of tags, or of sentences"):
        RecordReader(CorpusSpec(target="tags", columns=("word",)))


SCHEMES_OF_A_FILE = {
    "IOB1": lambda letter, before, after: "I" if letter == "B" and not before else letter,
    "BIOES": lambda letter, before, after: {"B": "B" if after else "S", "I": "I" if after else "E"}[letter],
    "BILOU": lambda letter, before, after: {"B": "B" if after else "U", "I": "I" if after else "L"}[letter],
}


@pytest.mark.parametrize("scheme", SCHEMES_OF_A_FILE)
def test_real_sentences_are_the_same_in_every_scheme(tmp_path, scheme):
    sentences = (real_data("conll2003") / "test.txt").read_text("utf-8").split("\n\n")[700:1500]
    lines = []
    for sentence in sentences:
        rows = [line.rpartition(" ")[::2] for line in sentence.splitlines()]
        tags = ["O", *(tag for _, tag in rows), "O"]
        for (word, tag), before, after in zip(rows, tags, tags[2:], strict=False):
            if tag != "O":
                write = SCHEMES_OF_A_FILE[scheme]
                tag = f"{write(tag[0], before[1:] == tag[1:], after == f'I{tag[1:]}')}{tag[1:]}"
            lines.append(f"{word} {tag}")
        lines.append("")
    plain = written(tmp_path / "plain.txt", "\n\n".join(sentences))
    other = written(tmp_path / "other.txt", "\n".join(lines))
    expected, corpus = (load_corpus(CorpusSpec(path=str(path), target="tags")) for path in (plain, other))
    assert corpus.notes[0].startswith(f"tags are {scheme}, as in ")
    assert (corpus.texts, corpus.labels) == (expected.texts, expected.labels)
    for split, rows in expected.splits.items():
        assert rows.spans.codes.tolist() == corpus.splits[split].spans.codes.tolist()
