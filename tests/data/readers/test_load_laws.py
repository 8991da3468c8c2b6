"""Laws of loading a corpus: what a row means depends on no limit, no order and no other row."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.files.table import open_table
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.resolve import resolve_corpus


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_a_named_scheme_converts_tags_once(tmp_path):
    sentence = "the O\ncity B-LOC\nof I-LOC\nAnn B-PER\nsaw O\n"
    file = written(tmp_path / "tags.txt", [sentence] * 40)
    corpus = load_corpus(CorpusSpec(path=str(file), target="tags", tag_scheme="IOB2", strict=True))
    assert corpus.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_a_file_sorted_by_split_keeps_its_splits(tmp_path):
    rows = [f"a sentence with number {row}\t{row % 2}\ttrain" for row in range(6000)]
    rows += [f"a sentence with number {row}\t{row % 2}\ttest" for row in range(6000, 6050)]
    corpus = load_corpus(CorpusSpec(path=str(written(tmp_path / "rows.tsv", ["text\tlabel\tpart", *rows]))))
    assert len(corpus.split("test")) == 50


def test_numbers_of_classes_mean_the_same_under_a_limit(tmp_path):
    rows = [f"a sentence with number {row}\t{1 + row // 40}\ttrain" for row in range(120)]
    file = written(tmp_path / "rows.tsv", ["text\tlabel\tsplit", *rows])
    whole, limited = (load_corpus(CorpusSpec(path=str(file), labels=("a", "b", "c"), limit=limit)) for limit in (0, 60))
    classes = {}
    for corpus in (whole, limited):
        for rows in corpus.splits.values():
            for text, target in zip(rows.texts[:, 0], rows.targets, strict=True):
                assert classes.setdefault(corpus.texts[text], target) == target
    assert len(classes) == 120


def test_numbers_with_decimals_are_no_classes_however_late_they_come(tmp_path):
    rows = [f"a sentence with number {row}\t{row % 3}\ttrain" for row in range(5100)]
    rows += [f"another sentence with number {row}\t{row / 7:.3f}\ttrain" for row in range(1, 200)]
    file = written(tmp_path / "rows.tsv", ["text\tlabel\tsplit", *rows])
    with pytest.raises(
        CorpusError, match=r'classes are numbers with decimals .* set corpus\.target \(--target\) to "s'
    ):
        load_corpus(CorpusSpec(path=str(file)))


def test_json_by_column_is_joined_by_key(tmp_path):
    columns = {"text": {"0": "a b c", "1": "d e f"}, "label": {"1": "B", "0": "A"}}
    file = written(tmp_path / "columns.json", [json.dumps(columns)])
    assert [dict(fields) for _, fields in open_table(file).rows()] == [
        {"text": "a b c", "label": "A"},
        {"text": "d e f", "label": "B"},
    ]


@pytest.mark.parametrize("encoding", ["rot13", "hex", "zlib", "undefined", "idna"])
def test_a_codec_that_is_no_encoding_of_text_is_refused(tmp_path, encoding):
    file = written(tmp_path / "rows.tsv", ["text\tlabel", "a b c\tx"])
    with pytest.raises(CorpusError, match=rf'corpus\.encoding = "{encoding}": there is no such encoding; set it to'):
        resolve_corpus(CorpusSpec(path=str(file), encoding=encoding))


def loaded(path: Path, hint: str = "", **settings: Any) -> Corpus:
    return load_corpus(resolve_corpus(CorpusSpec(path=str(path), **settings), hint).spec)


def rows_by_text(corpus: Corpus) -> dict[str, Any]:
    """Text -> its target, over all splits."""
    return {
        str(corpus.texts[text]): target.tolist() if corpus.kind == "labels" else corpus.labels[int(target)]
        for rows in corpus.splits.values()
        for text, target in zip(rows.texts[:, 0], rows.targets, strict=True)
    }


LABELLED = [(f"a sentence with the number {row}", "xyz"[row % 3]) for row in range(60)]


def as_csv(header: str = "text,label", delimiter: str = ",", end: str = "") -> list[str]:
    return [header, *(f"{text}{delimiter}{label}{end}" for text, label in LABELLED)]


@pytest.mark.parametrize(
    "lines",
    [
        ["sep=;", *as_csv("text;label", ";")],  # as Excel writes it
        as_csv("0,1"),  # as pandas names columns without names
        [",0,1", *(f"{row},{line}" for row, line in enumerate(as_csv()[1:]))],
        as_csv(end=","),
        as_csv("text,label,,", end=",,"),
        as_csv() + as_csv(),
        [f"\ufeff{line}" if line == "text,label" else line for line in as_csv() * 2],
        as_csv(end=" "),
    ],
)
def test_rows_are_the_same_whatever_programs_write_around_them(tmp_path, lines):
    assert rows_by_text(loaded(written(tmp_path / "rows.csv", lines), "class")) == dict(LABELLED)


def test_a_text_that_holds_the_delimiter_is_no_row_of_more_fields(tmp_path):
    lines = [f"{text}{'@bob' if row % 9 == 0 else ''}@{label}" for row, (text, label) in enumerate(LABELLED)]
    file = written(tmp_path / "rows.txt", lines)
    with pytest.raises(CorpusError, match=r"rows\.txt:1: expected 2 fields, found 3; 7 of 60 rows"):
        loaded(file, delimiter="@")
    assert "bob" not in loaded(file, delimiter="@", most_skipped=0.2).labels


MARKS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "True": 1, "false": 0}


@pytest.mark.parametrize("columns", [(), ("text", "late", "rude", "lost"), ("1", "3", "4", "5")])
@pytest.mark.parametrize("texts", [1, 2])
def test_columns_that_say_whether_a_row_has_a_label_are_labels(tmp_path, columns, texts):
    values = list(MARKS)
    rows = [[values[row % 6], values[row // 6 % 6], "0"] for row in range(72)]
    cells = [f"a sentence with {row}\tanother one with {row}\t" + "\t".join(marks) for row, marks in enumerate(rows)]
    header = "text\tid\tlate\trude\tlost" if texts == 1 else "sentence1\tsentence2\tlate\trude\tlost"
    if texts == 1:
        cells = [cell.replace("another one with ", "n") for cell in cells]
    elif columns:
        columns = ("1", "2", "3", "4", "5")
    corpus = loaded(written(tmp_path / "rows.tsv", [header, *cells]), "labels", columns=columns)
    assert (corpus.kind, corpus.labels) == ("labels", ("late", "rude", "lost"))
    assert rows_by_text(corpus) == {f"a sentence with {n}": [MARKS[mark] for mark in row] for n, row in enumerate(rows)}
    assert all(rows.texts.shape[1] == texts for rows in corpus.splits.values())


def test_a_value_that_is_no_indicator_is_a_row_that_is_told(tmp_path):
    lines = [f"a sentence with {row}\t{row % 2}\t{-1 if row == 7 else 0}" for row in range(60)]
    file = written(tmp_path / "rows.tsv", ["text\tlate\trude", *lines])
    with pytest.raises(CorpusError, match=r"rows\.tsv:9: column 'rude' must be 1 or 0, got '-1'; 1 of 60 rows"):
        loaded(file, columns=("text",), target="labels", indicators=("late", "rude"))


@pytest.mark.parametrize("nested", [{"a": 1}, [{"a": 1}], [["a", 1]]])
def test_objects_are_neither_texts_nor_targets(tmp_path, nested):
    rows = [{"claim": text, "evidence": nested, "meta": nested, "label": label} for text, label in LABELLED]
    file = written(tmp_path / "rows.jsonl", list(map(json.dumps, rows)))
    assert resolve_corpus(CorpusSpec(path=str(file))).spec.columns == ("claim", "label")
    with pytest.raises(CorpusError, match=r"column 'meta' holds values such as .*, which are no target; set"):
        resolve_corpus(CorpusSpec(path=str(file), columns=("claim", "meta")))


def test_a_query_with_passages_is_for_ranking_only(tmp_path):
    lines = [f"what is number {row}?\tthe number {row} it is\tno number at all {row}" for row in range(60)]
    file = written(tmp_path / "triples.tsv", lines)
    for columns in ((), ("1", "2", "3")):
        corpus = loaded(file, "rank", columns=columns)
        assert (corpus.kind, sum(map(len, corpus.splits.values()))) == ("rank", 120)
    assert loaded(file, "rank", columns=("1", "2")).kind == "rank"
    with pytest.raises(CorpusError, match=r'column \'3\' is to be the target .* to "rank" if'):
        resolve_corpus(CorpusSpec(path=str(file), columns=("1", "2", "3")))


def test_a_column_is_named_once(tmp_path):
    file = written(tmp_path / "rows.csv", as_csv("0,1"))
    with pytest.raises(CorpusError, match=r"corpus\.columns \(--columns\) names '1' twice: 1, 2\."):
        resolve_corpus(CorpusSpec(path=str(file), columns=("1", "2")))


def test_classes_that_differ_in_case_are_told(tmp_path):
    lines = [f"a sentence with {row},{['Yes', 'yes', 'no'][row % 3]}" for row in range(60)]
    corpus = loaded(written(tmp_path / "rows.csv", ["text,label", *lines]))
    assert "classes that differ in their case alone: 'Yes', 'yes'; each is one of its own" in corpus.notes


@pytest.mark.parametrize(
    ("names", "are_parts"),
    [
        (("part-0.csv", "part-1.csv", "part-2.csv"), True),
        (("part-00001-b7c2-c000.csv", "part-00002-b7c2-c000.csv"), True),
        ((*(f"part.{part}.csv" for part in range(12)),), True),
        (("part-0.csv", "part-2.csv"), False),
        (("year-2019.csv", "year-2020.csv"), False),
        (("one.csv", "two.csv"), False),
    ],
)
def test_files_that_are_counted_are_parts_of_one(tmp_path, names, are_parts):
    for index, name in enumerate(names):
        written(tmp_path / name, ["text,label", *as_csv()[1:][index :: len(names)]])
    if are_parts:
        assert rows_by_text(loaded(tmp_path)) == dict(LABELLED)
    else:
        with pytest.raises(CorpusError, match="expected a file called train"):
            loaded(tmp_path)


@pytest.mark.parametrize("name", ["zip", "tar", "gztar"])
def test_an_archive_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder" / "rows.csv", as_csv())
    path = Path(shutil.make_archive(str(tmp_path / "rows"), name, tmp_path / "folder"))
    with pytest.raises(CorpusError, match=r": a (zip|tar) archive; unpack it, and give the file or the folder in it\."):
        loaded(path)


def test_documents_without_a_class_are_left_out_and_told(tmp_path):
    for folder in ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos"):
        (tmp_path / folder).mkdir(parents=True)
        for row in range(20):
            written(tmp_path / folder / f"{row}_0.txt", [f"a text of {folder} with the number {row}"])
    corpus = loaded(tmp_path)
    assert corpus.labels == ("neg", "pos")
    assert any(note.startswith("20 of 100 rows (20.00%) are left out, label 'unsup'") for note in corpus.notes)


@pytest.mark.parametrize("columns", [(), ("text", "label")])
def test_a_text_with_its_entities_is_a_sentence_with_tags(tmp_path, columns):
    rows = [{"id": row, "text": f"Ana lives in Rome, {row}", "label": [[0, 3, "PER"]] * (row % 2)} for row in range(60)]
    rows += [{"id": 60, "text": "Ana", "label": [[0, 9, "PER"]]}]
    file = written(tmp_path / "rows.jsonl", list(map(json.dumps, rows)))
    with pytest.raises(CorpusError, match=r"rows\.jsonl:61: the entity \[0, 9, 'PER'\] covers no word of the text"):
        loaded(file, "tags", columns=columns)
    corpus = loaded(file, "tags", columns=columns, most_skipped=0.1)
    assert (corpus.kind, corpus.labels) == ("tags", ("O", "B-PER", "I-PER"))
    assert all(str(text).startswith("Ana lives in Rome, ") for text in corpus.texts)
    assert all(rows.spans and rows.spans.characters[:2].tolist() == [[0, 3], [4, 9]] for rows in corpus.splits.values())


def test_a_target_whose_values_all_differ_is_asked_about(tmp_path):
    lines = [f"a sentence with {row}\t${row / 7:.2f}" for row in range(60)]
    file = written(tmp_path / "rows.tsv", ["text\tprice", *lines])
    for hint in ("", "score"):
        with pytest.raises(CorpusError, match=r"column 'price' is to be the target and holds values such as '\$0\.00'"):
            loaded(file, hint, columns=("text", "price"))


def test_a_class_is_no_relevance(tmp_path):
    lines = [f"what is number {row}\tthe number {row} it is\t{['good', 'bad'][row % 2]}" for row in range(60)]
    file = written(tmp_path / "rows.tsv", ["query\tpassage\tlabel", *lines])
    with pytest.raises(CorpusError, match=r"column 'label' holds values such as 'good'; a relevance is a number, 0 if"):
        loaded(file, "rank", columns=("query", "passage", "label"))


def test_what_is_no_word_of_conll_u_is_skipped(tmp_path):
    words = ["1\tJuan", "2-3\tvámonos", "2\tvamos", "3\tnos", "3.1\t_"]
    lines = ["# text = x", *(f"{word}" + "\t_" * 7 + f"\t{'B-PER' if word[0] == '1' else 'O'}" for word in words), ""]
    corpus = loaded(written(tmp_path / "f.conllu", lines * 20), "tags")
    assert corpus.texts == ("Juan vamos nos",)


@pytest.mark.parametrize("separator", [",", "|", ";", "; ", " | "])
def test_a_separator_of_labels_is_found_with_or_without_blanks(tmp_path, separator):
    rows = [("late", "rude", "lost")[: 1 + row % 3] for row in range(60)]
    lines = [f"a sentence with {row}\t{separator.join(labels)}" for row, labels in enumerate(rows)]
    corpus = loaded(written(tmp_path / "rows.tsv", ["text\tlabels", *lines]), "labels")
    assert corpus.labels == ("late", "lost", "rude")


def test_numbers_and_lists_are_no_texts(tmp_path):
    lines = [f"a sentence with {row}\t{row % 3 / 2}\t{row % 2}" for row in range(60)]
    file = written(tmp_path / "rows.tsv", ["text\tlate\trude", *lines])
    with pytest.raises(
        CorpusError, match=r"column 'late' holds numbers and stands where corpus\.columns .* names texts"
    ):
        loaded(file, "labels", columns=("text", "late", "rude"))
    file = written(tmp_path / "rows.json", [json.dumps({"result": {"rows": [{"text": "a b c"}] * 60}})])
    with pytest.raises(CorpusError, match="no column holds texts"):
        loaded(file)
