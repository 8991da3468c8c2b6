"""Laws of loading a corpus: what a row means depends on no limit, no order and no other row."""

import json
from pathlib import Path

import pytest

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
