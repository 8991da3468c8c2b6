"""Tabular files: every kind is read alike, and every fault is told with its place."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from permafrost.data.corpora.records import CorpusError
from permafrost.data.files.encoding import guess_encoding
from permafrost.data.files.settings import FileFormat
from permafrost.data.files.table import as_text, get_field, open_table

ROWS = [("a cat", 'says "no", twice', "0.5"), ("über", "日本", "1"), ("x", "'", "0")]
COLUMNS = ("first", "second", "score")


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def as_csv() -> bytes:
    return "\n".join(",".join(map(quoted, row)) for row in [COLUMNS, *ROWS]).encode()


def as_tsv() -> bytes:
    return "\n".join("\t".join(row) for row in [COLUMNS, *ROWS]).encode()


def as_jsonl() -> bytes:
    return "\n".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in ROWS).encode()


def as_parquet() -> bytes:
    table = pyarrow.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def as_txt() -> bytes:
    return "\n".join(first for first, _, _ in ROWS).encode()


WRITERS: dict[str, Callable[[], bytes]] = {
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
    ".txt": as_txt,
}
LINED = [suffix for suffix in WRITERS if suffix != ".parquet"]


def read_table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file as text."""
    return ((origin, as_text(fields)) for origin, fields in open_table(path).rows())


def fault(path: Path) -> str:
    """The message that reading ``path`` to its end gives, without the folder."""
    with pytest.raises(CorpusError) as error:
        list(read_table(path))
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{path.parent}/", "")


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_reader_gives_the_rows_that_were_written(tmp_path, suffix):
    read = [fields for _, fields in read_table(written(tmp_path / f"f{suffix}", WRITERS[suffix]()))]
    if suffix == ".txt":
        assert read == [{"sentence": first} for first, _, _ in ROWS]
    else:
        assert read == [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize("suffix", LINED)
def test_a_gzipped_file_reads_like_the_plain_one(tmp_path, suffix):
    plain = list(read_table(written(tmp_path / f"f{suffix}", WRITERS[suffix]())))
    zipped = list(read_table(written(tmp_path / f"f{suffix}.gz", gzip.compress(WRITERS[suffix]()))))
    assert [fields for _, fields in zipped] == [fields for _, fields in plain]
    assert [place.replace(".gz", "") for place, _ in zipped] == [place for place, _ in plain]


@pytest.mark.parametrize("suffix", LINED)
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path, suffix):
    plain = list(read_table(written(tmp_path / f"f{suffix}", WRITERS[suffix]())))
    marked = b"\xef\xbb\xbf" + WRITERS[suffix]().replace(b"\n", b"\r\n")
    assert list(read_table(written(tmp_path / f"f{suffix}", marked))) == plain


@pytest.mark.parametrize("suffix", LINED)
def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path, suffix):
    content = gzip.compress(WRITERS[suffix]())
    assert len(list(read_table(written(tmp_path / f"F.v1{suffix.upper()}.GZ", content)))) == len(ROWS)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt"])
def test_a_place_is_the_line_of_the_row_and_blank_lines_count(tmp_path, suffix):
    header = "" if suffix in (".jsonl", ".txt") else "a\n"
    line = '{"a": 1}' if suffix == ".jsonl" else "x"
    path = written(tmp_path / f"f{suffix}", f"{header}{line}\n\n\n{line}\n")
    first = 1 + bool(header)
    assert [place for place, _ in read_table(path)] == [f"{path}:{first}", f"{path}:{first + 3}"]


def test_a_quoted_field_may_span_lines_and_its_row_is_where_it_begins(tmp_path):
    path = written(tmp_path / "f.csv", 'a,b\n"one\ntwo\n",1\nthree,2\n')
    assert list(read_table(path)) == [
        (f"{path}:2", {"a": "one\ntwo\n", "b": "1"}),
        (f"{path}:5", {"a": "three", "b": "2"}),
    ]


def test_quotes_mean_nothing_in_tsv(tmp_path):
    path = written(tmp_path / "f.tsv", 'a\tb\n"x\ty"\n')
    assert next(iter(read_table(path)))[1] == {"a": '"x', "b": 'y"'}


def test_typed_values_become_text_and_nothing_becomes_the_empty_text(tmp_path):
    lines = written(tmp_path / "f.jsonl", '{"a": null, "b": 0.25, "c": 3}')
    assert next(read_table(lines))[1] == {"a": "", "b": "0.25", "c": "3"}
    parquet.write_table(pyarrow.table({"a": [None, "x"], "b": [0.25, None]}), tmp_path / "f.parquet")
    assert [fields for _, fields in read_table(tmp_path / "f.parquet")] == [{"a": "", "b": "0.25"}, {"a": "x", "b": ""}]


BROKEN: list[tuple[str, bytes | str, str]] = [
    ("f.csv", "a,b\n1,2\n1,2,3\n", "f.csv:3: expected 2 fields (a, b), found 3."),
    ("f.csv", 'a,b\n"1\n",2\n1\n', "f.csv:4: expected 2 fields (a, b), found 1."),
    ("f.tsv", "a\tb\n1 2\n", "f.tsv:2: expected 2 fields (a, b), found 1."),
    ("f.csv", "a,b,a\n1,2,3\n", "f.csv:1: the header names the column 'a' twice; rename one"),
    ("f.jsonl", json.dumps({str(n): n for n in range(300_000)}), "f.jsonl:1: a row has 300,000 fields, and at most"),
    ("f.csv", "a," * 100_000 + "b\n", "f.csv: a row has 100,001 fields, and at most 10,000 are read"),
    ("f.csv", "", "f.csv:1: expected a header that names the columns, found nothing."),
    ("f.tsv", "\n", "f.tsv:1: expected a header that names the columns, found nothing."),
    (
        "f.csv",
        'a,b\n1,2\n"open,3\n4,5\n6,7\n',
        "f.csv:3: unexpected end of data; if quotes are part",
    ),
    ("f.jsonl", b'{"a": "\xe9"}', "f.jsonl:1: the line is not UTF-8."),
    ("f.jsonl", '{"a": 1}\n{"a": \n', "f.jsonl:2: not valid JSON ("),
    ("f.jsonl", "[" * 100_000, "f.jsonl:1: not valid JSON ("),
    ("f.jsonl", '{"a": "\\ud83d\\ude00"}\n{"a": "b", "\\uDE00": 1}', "f.jsonl:2: it holds half a character ('\\ude00'"),
    ("f.jsonl", "9" * 5_000, "f.jsonl:1: not valid JSON ("),
    ("f.jsonl", '{"a": 1}\n\n"a"\n', "f.jsonl:3: expected a JSON object, found str."),
    ("f.csv.gz", gzip.compress(b"a,b\n1\n"), "f.csv.gz:2: expected 2 fields (a, b), found 1."),
    ("f.jsonl.gz", gzip.compress(as_jsonl())[:-9], "f.jsonl.gz: it cannot be read (Compressed file ended"),
    ("f.txt.gz", gzip.compress(as_txt())[:-8] + bytes(8), "f.txt.gz: it cannot be read (CRC check failed"),
    ("f.txt.gz", gzip.compress(as_txt())[:10] + b"\xff" * 9, "f.txt.gz: it cannot be read (Error -3"),
    ("f.parquet", "no parquet", "f.parquet: not a parquet file that can be read; "),
    ("f.parquet", "", "f.parquet: not a parquet file that can be read; its first bytes"),
    ("f.parquet", as_parquet()[:-20], "f.parquet: not a parquet file that can be read ("),
    ("f.xlsx", "x", "f.xlsx: not a xlsx file that can be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_a_broken_file_is_told_with_its_place(tmp_path, name, content, message):
    assert fault(written(tmp_path / name, content)).startswith(message)


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", "fixed", "dictionary"])
def test_bytes_of_any_layout_are_read_as_texts(tmp_path, kind):
    texts = ["über", "other"]
    values = pyarrow.array([text.encode() for text in texts], pyarrow.binary(5) if kind == "fixed" else None)
    values = values.dictionary_encode() if kind == "dictionary" else values
    if kind not in ("fixed", "dictionary"):
        values = values.cast(getattr(pyarrow, kind)())
    parquet.write_table(pyarrow.table({"a": values}), tmp_path / "f.parquet")
    assert [fields["a"] for _, fields in read_table(tmp_path / "f.parquet")] == texts


def test_parquet_that_is_not_utf_8_is_told_with_its_row(tmp_path):
    raw = pyarrow.array([b"ok", b"a\xff"], pyarrow.binary())
    unchecked = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
    parquet.write_table(pyarrow.table({"a": unchecked}), tmp_path / "f.parquet")
    rows = read_table(tmp_path / "f.parquet")
    assert next(rows)[1] == {"a": "ok"}
    with pytest.raises(CorpusError, match=r"f\.parquet:2: not UTF-8 at byte 2 of a text"):
        next(rows)


def test_a_field_without_end_is_refused_and_not_held_in_memory(tmp_path):
    path = written(tmp_path / "f.csv", b'a\nx\n"' + b"y" * (17 << 20))
    assert fault(path).startswith("f.csv:3: the line has more than 16 million characters")


@pytest.mark.parametrize("suffix", [*WRITERS, ".csv.gz"])
def test_a_missing_file_and_a_folder_are_no_files(tmp_path, suffix):
    assert fault(tmp_path / f"none{suffix}") == f"none{suffix}: no such file."
    (tmp_path / f"folder{suffix}").mkdir()
    assert fault(tmp_path / f"folder{suffix}").startswith(f"folder{suffix}: ")


def test_a_field_is_found_by_its_column_and_a_missing_one_names_the_nearest():
    row = ("f.csv:2", {"first": "a", "second": "b", "score": "1"})
    assert [get_field(row, column) for column in ("score", "first")] == ["1", "a"]
    with pytest.raises(CorpusError) as error:
        get_field(row, "scores")
    assert str(error.value) == "f.csv:2: no column 'scores'; set corpus.columns. Did you mean 'score'?"


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_any_text_survives_csv_and_jsonl(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    lines = ["a,b", *(",".join(map(quoted, row)) for row in rows)]
    objects = [json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in rows]
    for path in (written(folder / "f.csv", "\n".join(lines)), written(folder / "f.jsonl", "\n".join(objects))):
        table = open_table(path, FileFormat(header="yes"))  # a name that is a value too is taken for one
        assert [tuple(as_text(fields).values()) for _, fields in table.rows()] == rows


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("marks.conll", 'a\tO\n"\tO\nb\tB-X\n"\tO\nc\tO\n' * 9, ("a", '"', "b", '"', "c")),
        ("late.tsv", "h\tk\n" + "x y\t1\n" * 9 + '"open\t1\n' + "x y\t1\n" * 9, ("x y", '"open')),
        ("all.tsv", 'id\tq\n"1"\t"x ""y"""\n"2"\t"two\nlines"\n' + '"3"\t"z"\n' * 9, ("1", "2", "3")),
        ("half.csv", "a;b\n" + "x y;3,5\n" * 9, ("x y",)),
        ("v.csv", "v1,v2,,\n" + "ham,a b c,,\n" * 9, ("ham",)),
        ("ends.txt", "a b c,\nd e f,\n" * 9, ("a b c,", "d e f,")),
        ("lines.txt", '{"a": "x"}\n' * 9, ("x",)),
        ("lines.txt", "[x] y [z]\n" * 9, ("[x] y [z]",)),
        ("lines.ndjson", '{"a": "x"}\n' * 9, ("x",)),
    ],
)
def test_the_layout_is_found_from_the_rows(tmp_path, name, content, rows):
    first = [next(iter(fields.values())) for _, fields in read_table(written(tmp_path / name, content))]
    assert tuple(dict.fromkeys(first)) == tuple(dict.fromkeys(rows))


@pytest.mark.parametrize(
    "value",
    [
        [{"a": "x", "b": 1}, {"a": "y", "b": 2}],
        {"version": 1, "examples": [{"a": "x", "b": 1}, {"a": "y", "b": 2}]},
        {"k1": {"a": "x", "b": 1}, "k2": {"a": "y", "b": 2}},
        {"a": ["x", "y"], "b": [1, 2]},
        {"a": {"0": "x", "1": "y"}, "b": {"0": 1, "1": 2}},
        {"0": {"a": "x", "b": 1}, "1": {"a": "y", "b": 2}},
        {"columns": ["a", "b"], "index": [0, 1], "data": [["x", 1], ["y", 2]]},
    ],
)
def test_json_gives_the_same_rows_in_every_shape(tmp_path, value):
    rows = [fields for _, fields in read_table(written(tmp_path / "f.json", json.dumps(value)))]
    assert rows == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [("fünf süße Äpfel, naïf – été", "cp1252", "cp1252"), ("これは日本語の文章です。", "shift-jis", "cp932")],
)
def test_an_encoding_is_guessed_by_its_letters(text, encoding, guess):
    assert guess_encoding(f"{text} and so on\n".encode(encoding) * 20) == guess


def test_json_in_a_single_line_may_be_longer_than_a_line_of_texts(tmp_path):
    rows = [{"a": "x" * (1 << 20)}] * 17
    path = written(tmp_path / "f.json", json.dumps(rows))
    assert sum(len(fields["a"]) for _, fields in read_table(path)) == 17 << 20


def test_a_text_of_json_is_no_longer_than_a_line(tmp_path):
    path = written(tmp_path / "f.json", json.dumps([{"a": "x" * (17 << 20)}]))
    assert fault(path).startswith("f.json: item 1: a text has more than 16 million characters; cut it into several")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_rows_of_empty_cells_are_given_to_skip_and_blank_lines_are_none(tmp_path, suffix):
    rows = [["first", "second"], ["", ""], ["a dog", "1"], ["", ""], ["a cat", ""]]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append([*row])
        book.save(path)
    else:
        path.write_text("\n\n".join(("," if suffix == "csv" else "\t").join(row) for row in rows) + "\n")
    skipped = []
    found = list(open_table(path).rows(lambda *row: skipped.append(row)))
    assert [fields["first"] for _, fields in found] == ["a dog", "a cat"]
    assert {(reason, problem) for _, reason, problem in skipped} == {("empty cells", "all its cells are empty")}
    assert len(skipped) == 2
    assert len(list(open_table(path).rows())) == 2  # a reader that refuses faulty rows reads on


LARGE = "dog " * (1 << 20)


def as_dictionary(path: Path) -> None:
    """4,000 rows of one text of 4 MB, which is stored once."""
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 4000, "int32"), pyarrow.array([LARGE]))
    parquet.write_table(pyarrow.table({"text": texts}), path, compression="zstd")


def as_a_long_cell(path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": [8 * LARGE]}), path, compression="zstd", use_dictionary=False)


def as_arrow(path: Path) -> None:
    batch = pyarrow.record_batch([pyarrow.array([LARGE] * 8)], ["text"])
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def as_a_workbook(path: Path) -> None:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for _ in range(2000):
        sheet.append(["a" * 32_000])
    book.save(path)


def as_far_cells(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "text", 1
    book.save(path)


@pytest.mark.parametrize(
    ("suffix", "write", "message"),
    [
        (".parquet", as_dictionary, "100 times"),
        (".parquet", as_a_long_cell, "100 times"),
        (".arrow", as_arrow, "100 times"),
        (".xlsx", as_a_workbook, "100 times"),
        (".xlsx", as_far_cells, "cells that span 17,179,869,184"),
    ],
)
def test_a_small_file_that_unpacks_to_far_more_is_refused_before_it_is_held(tmp_path, suffix, write, message):
    path = tmp_path / f"a{suffix}"
    write(path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(CorpusError, match=message):
        list(open_table(path).rows())


def test_texts_that_repeat_are_read_from_a_dictionary_as_they_are(tmp_path):
    texts = ["dog", None, "cat", "", "dog"] * 2000
    parquet.write_table(pyarrow.table({"text": texts, "number": range(len(texts))}), tmp_path / "a.parquet")
    rows = [row for _, row in open_table(tmp_path / "a.parquet").rows()]
    assert [row["text"] for row in rows] == texts
    assert [row["number"] for row in rows] == [*range(len(texts))]


def test_a_table_of_more_columns_than_are_read_is_refused(tmp_path):
    parquet.write_table(pyarrow.table({f"c{number}": ["a"] for number in range(10_001)}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="10,001 fields, and at most 10,000"):
        list(open_table(tmp_path / "a.parquet").rows())
