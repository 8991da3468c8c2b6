"""Texts of a corpus as a stream: those that a run reads, checked as a run checks them."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import MachineError
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.sources import find_files
from permafrost.data.spec import SpecError
from permafrost.data.streams.distinct import DistinctCount
from permafrost.data.streams.texts import TextStream, scan_texts


def rows(count: int = 400) -> list[tuple[str, str]]:
    """Texts, some of them repeated, with a class, "-" (left out) or an empty text once in a hundred."""
    draw = random.Random(0)
    made = [(f"the dog number {draw.randrange(count)} runs over the grass", draw.choice("abc")) for _ in range(count)]
    return [*made[:50], ("some text", "-"), *made[50:90], ("", "a"), *made[90:], ("lost\0byte", "b")]


def write_csv(path: Path) -> None:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows()))


def write_jsonl_gz(path: Path) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows())


def write_parquet(path: Path) -> None:
    texts, labels = zip(*rows(), strict=True)
    parquet.write_table(pa.table({"text": texts, "label": labels}), path, row_group_size=64)


def write_lines(path: Path) -> None:
    path.write_text("".join(f"{text}\n" for text, _ in rows()))


WRITERS = {"a.csv": write_csv, "a.jsonl.gz": write_jsonl_gz, "a.parquet": write_parquet, "a.txt": write_lines}


def stream_of(spec: CorpusSpec, most_held: int = 10) -> TextStream:
    stream = scan_texts(spec, most_held)
    assert stream is not None
    return stream


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("settings", [{}, {"limit": 30}, {"limits": {"train": 100}}])
def test_the_texts_are_those_that_a_run_reads_and_so_are_the_notes(name, settings, tmp_path):
    WRITERS[name](tmp_path / name)
    spec = CorpusSpec(path=str(tmp_path / name), **settings)
    stream, corpus = stream_of(spec), load_corpus(spec)
    texts = list(stream)
    assert tuple(dict.fromkeys(texts)) == corpus.texts
    assert texts == list(stream), "it is read anew"
    assert len(texts) == stream.text_count == stream.__length_hint__() == corpus.text_count
    assert stream.texts_distinct == corpus.texts_distinct
    assert stream.source == corpus.source
    assert set(stream.notes) <= set(corpus.notes)
    assert len(stream.notes) == (1 if name == "a.txt" else 3 if not settings else len(stream.notes))
    assert sum((stream.rows or {}).values()) == sum(map(len, corpus.splits.values()))


def test_the_blocks_of_a_run_are_those_of_the_stream(tmp_path):
    write_csv(tmp_path / "a.csv")
    spec = CorpusSpec(path=str(tmp_path / "a.csv"), columns=("text", "label"), target="class", held_out=0.2)
    assert load_corpus(spec).texts_by_row() == list(stream_of(spec))


def test_what_needs_the_whole_corpus_or_is_small_is_no_stream(tmp_path):
    write_csv(tmp_path / "a.csv")
    (tmp_path / "b.txt").write_text("A O\ndog B-X\n\n" * 30)
    spec = CorpusSpec(path=str(tmp_path / "a.csv"))
    assert scan_texts(spec, 400) is None
    assert scan_texts(replace(spec, limit=30, spread=True), 10) is None
    assert scan_texts(CorpusSpec(path=str(tmp_path / "b.txt"), target="tags"), 10) is None


def test_too_many_rows_that_cannot_be_used_are_the_error_of_a_run(tmp_path):
    write_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", "a") as file:
        file.write(",a\n" * 300)
    spec = CorpusSpec(path=str(tmp_path / "a.csv"))
    with pytest.raises(CorpusError) as of_run:
        load_corpus(spec)
    with pytest.raises(CorpusError) as of_stream:
        scan_texts(spec, 10)
    assert str(of_stream.value) == str(of_run.value)
    with pytest.raises(CorpusError, match="leave out --strict"):
        scan_texts(replace(spec, strict=True), 10)


def test_files_that_match_a_pattern_are_one_corpus_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"part{number}.txt").write_text(f"the dog of part {number} runs\nit snows in part {number}\n")
    spec = CorpusSpec(path=str(tmp_path / "part*.txt"))
    assert [path.name for _, path in find_files(Path(spec.path))] == ["part1.txt", "part2.txt", "part10.txt"]
    assert [text.split()[-2] for text in stream_of(spec, 1)][::2] == ["1", "2", "10"]
    assert load_corpus(spec).texts == tuple(stream_of(spec, 1))
    with pytest.raises(CorpusError, match="no file matches"):
        load_corpus(CorpusSpec(path=str(tmp_path / "*.csv")))


def hub_spec(folder: Path, **more: Any) -> CorpusSpec:
    return CorpusSpec(name=str(folder), columns=("text", "label"), target="class", stream=True, **more)


def test_a_hub_data_set_is_read_as_a_stream_row_by_row(tmp_path):
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "train.parquet")
    stream = stream_of(hub_spec(folder.parent), 10**9)
    whole = load_corpus(hub_spec(folder.parent))
    assert (
        tuple(dict.fromkeys(stream)) == whole.texts == load_corpus(replace(hub_spec(folder.parent), stream=False)).texts
    )
    assert stream.__length_hint__() is NotImplemented
    with pytest.raises(CorpusError, match="most_skipped"):
        list(stream_of(hub_spec(folder.parent, most_skipped=0.0), 10))
    with pytest.raises(SpecError, match="needs their number, and a stream has none"):
        hub_spec(folder, spread=True)


def test_distinct_texts_are_counted_exactly_up_to_a_number_and_then_estimated():
    count = DistinctCount(1000)
    for number in range(1000):
        count.add(f"text {number}")
        count.add(f"text {number // 2}")
    assert (count.count, count.is_exact, str(count)) == (1000, True, "1,000")
    for number in range(50_000):
        count.add(f"text {number}")
    assert not count.is_exact
    assert abs(count.count / 50_000 - 1) < 0.1
    assert str(count).startswith("about ")


def test_a_network_that_goes_away_is_one_line_that_says_how_to_go_on(tmp_path, monkeypatch):
    import datasets

    folder = tmp_path / "hub"
    folder.mkdir()
    write_parquet(folder / "train.parquet")
    real = datasets.IterableDataset.__iter__

    def broken(self: Any) -> Any:
        for number, row in enumerate(real(self)):
            if number == 20:
                raise ConnectionError("no route to host")
            yield row

    monkeypatch.setattr(datasets.IterableDataset, "__iter__", broken)
    with pytest.raises(MachineError, match=r"broke off after 20 rows .*; what was extracted is stored"):
        list(stream_of(hub_spec(folder)))
