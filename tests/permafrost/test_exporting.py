"""Exported latents: read back by other libraries they are those of the store, row by row, whatever stops the export."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.ipc
import pytest
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import load_file

from permafrost import exporting, inspection
from permafrost.data.corpora.records import CorpusError
from permafrost.data.errors import InputError, MachineError
from permafrost.data.export import table_files, tensor_files, vectors
from permafrost.data.latents.reader import open_store
from permafrost.data.spec import SpecError
from tests.support.bench import ROOT, Bench, write

COLORS, SPLITS = ("red", "blue", "green"), ("test", "train", "test", "train")
ROWS = [(f"the {COLORS[row % 3]} dog of day {row % 25}", COLORS[row % 3], SPLITS[row % 4]) for row in range(60)]
"""Sixty rows of fewer texts; splits take turns."""


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


@pytest.fixture
def blocks(monkeypatch):
    """Blocks of 8 rows, parts of some 20."""
    monkeypatch.setattr(vectors, "LEAST_ROWS", 8)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(table_files, "PART_BYTES", 20 * 2 * 4 * 32 * 2)


def settings(bench: Bench, *more: str) -> list[str]:
    kept = ("plan.", "extract.")
    return [*(setting for setting in bench.settings() if setting.startswith(kept)), "plan.views=mean,cls", *more]


def rows_file(bench: Bench) -> Path:
    return write(bench.folder / "rows.csv", ["text", "color", "split"], ROWS)


def export(bench: Bench, format_name: str, *more: str, data: Any = None, out: str = "out", **options: Any) -> Any:
    given = {"data": data or rows_file(bench), "overrides": settings(bench, *more)} | options
    return exporting.export_latents(out=bench.folder / out, format=format_name, **given)


def stored(bench: Bench, texts: list[str]) -> dict[str, np.ndarray]:
    reader = inspection.open_store(bench.folder / "cache")
    return {view: np.asarray(reader.latents(texts, view)) for view in ("mean", "cls")}


def test_tables_are_read_by_pandas_and_datasets(bench, blocks):
    for name, read in (("parquet", pd.read_parquet), ("arrow", pd.read_feather)):
        result = export(bench, name, out=name)
        assert result.files == tuple(f"data-{part:05}-of-00003.{name}" for part in range(3))
        table = pd.concat([read(result.folder / file) for file in result.files], ignore_index=True)
        assert list(zip(table["text"], table["target"], table["split"], strict=True)) == ROWS
        wanted = stored(bench, [row[0] for row in ROWS])
        files = [str(result.folder / file) for file in result.files]
        loaded = datasets.load_dataset(name, data_files=files, split="train", cache_dir=str(bench.folder / "hub"))
        loaded = loaded.with_format("numpy")
        for view, values in wanted.items():
            for layer in range(4):
                column = f"{view}_{layer}"
                np.testing.assert_array_equal(np.stack(table[column].tolist()), values[layer])
                assert table[column][0].dtype == np.float16
                np.testing.assert_array_equal(loaded[column][:], values[layer])
    about = json.loads(
        parquet.read_schema(bench.folder / "parquet" / result.files[0].replace("arrow", "parquet")).metadata[
            b"permafrost"
        ]
    )
    assert about["layers"] == {"cls": [0, 1, 2, 3], "mean": [0, 1, 2, 3]}
    assert len(pd.read_parquet(bench.folder / "parquet")) == 60  # the folder as a whole


def test_arrays_are_read_by_numpy_and_safetensors(bench, blocks):
    for name in ("npy", "safetensors"):
        result = export(bench, name, out=name)
        rows = pd.read_parquet(result.folder / "rows.parquet")
        assert list(zip(rows["text"], rows["target"], rows["split"], strict=True)) == ROWS
        wanted = stored(bench, list(rows["text"]))
        for view, values in wanted.items():
            if name == "npy":
                found = np.load(result.folder / f"{view}.npy", mmap_mode="r")
            else:
                found = load_file(result.folder / "latents.safetensors")[view].numpy()
            assert found.dtype == np.float16
            np.testing.assert_array_equal(found, values)
    with safe_open(bench.folder / "safetensors" / "latents.safetensors", "np") as file:
        assert json.loads(file.metadata()["layers"])["mean"] == [0, 1, 2, 3]


def test_bfloat16_is_exact_in_safetensors_and_float32_elsewhere(bench):
    asked = ("plan.stored_dtype=bfloat16", "plan.layers=2")
    tensor = load_file(export(bench, "safetensors", *asked, out="a").folder / "latents.safetensors")["mean"]
    values = np.load(export(bench, "npy", *asked, out="b").folder / "mean.npy")
    table = pd.read_parquet(export(bench, "parquet", *asked, out="c").folder)
    assert (tensor.dtype, values.dtype) == (torch.bfloat16, np.float32)
    assert torch.equal(tensor.float(), torch.from_numpy(values))
    np.testing.assert_array_equal(np.stack(table["mean_2"].tolist()), values[0])


def test_eight_bits_are_exported_as_the_numbers_that_they_stand_for(bench):
    asked = ("plan.stored_dtype=int8", "plan.layers=2")
    exported = export(bench, "safetensors", *asked, out="a")
    values = load_file(exported.folder / "latents.safetensors")["mean"].numpy()
    store = open_store(bench.folder / "cache")
    assert store.identity.stored_dtype == "int8"
    texts = pd.read_parquet(exported.folder / "rows.parquet")["text"].tolist()
    np.testing.assert_array_equal(values, np.asarray(store.latents(texts, "mean", 2)))
    assert values.dtype == np.float32


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", ["npy", "safetensors", "parquet", "arrow"])
def test_a_stopped_export_goes_on_and_ends_with_the_same_files(name, bench, blocks, monkeypatch):
    monkeypatch.setattr(tensor_files, "SYNC_SECONDS", 0)
    whole = export(bench, name, out="whole")
    from permafrost.data.export.corpus_rows import CorpusVectors

    read, starts = CorpusVectors.read, list[int]()

    def stopping(self: CorpusVectors, start: int, stop: int) -> Any:
        starts.append(start)
        if len(starts) in (4, 6):
            raise StoppedError
        return read(self, start, stop)

    monkeypatch.setattr(CorpusVectors, "read", stopping)
    for _ in range(2):
        with pytest.raises(StoppedError):
            export(bench, name)
        assert not [path for path in (bench.folder / "out").glob("*") if path.suffix == ".tmp"]
    result = export(bench, name)
    assert starts[3] > 0
    assert starts[4] > 0  # not from the beginning
    assert (result.files, result.rows, result.existed) == (whole.files, 60, False)
    for file in result.files:
        assert (result.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    count = len(starts)
    assert export(bench, name).existed
    assert len(starts) == count
    for file in result.files:
        right = (whole.folder / file).read_bytes()
        for wrong in (b"cut short", right[:-1] + bytes([right[-1] ^ 1])):
            (result.folder / file).write_bytes(wrong)
            assert not export(bench, name).existed
            assert (result.folder / file).read_bytes() == right


def test_an_export_of_something_else_is_refused_before_anything_runs(bench, monkeypatch):
    export(bench, "npy")
    monkeypatch.setattr("permafrost.stage_one.extract", None)
    other = write(bench.folder / "other.csv", ["text", "color", "split"], ROWS[::-1])
    for change, difference in [
        ({"format_name": "parquet"}, "format"),
        ({"more": ["plan.layers=1"]}, "plan"),
        ({"data": other}, "data"),
    ]:
        more = change.pop("more", [])
        with pytest.raises(InputError, match=f"differs in {difference}"):
            export(bench, change.pop("format_name", "npy"), *more, **change)
    (bench.folder / "mine").mkdir()
    (bench.folder / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="it holds other files"):
        export(bench, "npy", out="mine")
    with pytest.raises(InputError, match="it is a file"):
        export(bench, "npy", out="rows.csv")
    with pytest.raises(SpecError, match="Did you mean 'npy'"):
        export(bench, "npz", out="new")
    with pytest.raises(SpecError, match="no table 'train'"):
        export(bench, "npy", "train.epochs=1", out="new")
    with pytest.raises(SpecError, match="tokens has a vector for each token"):
        export(bench, "npy", "plan.views=tokens", out="new")
    with pytest.raises(InputError, match="a part of the path is a file"):
        export(bench, "npy", out="rows.csv/new")
    with pytest.raises(CorpusError, match="no such file"):
        export(bench, "npy", data="none.csv", out="new")
    assert not (bench.folder / "new").exists()


def test_rows_of_every_kind_keep_their_texts_and_targets(bench):
    one = "plan.layers=-1"
    lines = bench.folder / "lines.txt"
    lines.write_text("a dog\nit sleeps\na dog\nsnow\n")
    plain = pd.read_parquet(export(bench, "parquet", one, data=lines, out="lines").folder)
    assert list(plain["text"]) == ["a dog", "it sleeps", "a dog", "snow"]
    assert list(plain.columns) == ["text", "split", "cls_3", "mean_3"]
    pairs = [("a dog", "a cat", 1), ("snow", "a dog", 5), ("it sleeps", "snow", 3)]
    file = write(bench.folder / "pairs.csv", ["first", "second", "score"], pairs)
    scored = pd.read_parquet(export(bench, "parquet", one, data=file, target="score", out="pairs").folder)
    assert list(zip(scored["first"], scored["second"], scored["target"], strict=True)) == pairs
    np.testing.assert_array_equal(scored["first_mean_3"][0], scored["second_mean_3"][1])
    arrays = export(bench, "npy", one, data=file, target="score", out="arrays")
    assert arrays.files == ("first_cls.npy", "first_mean.npy", "second_cls.npy", "second_mean.npy", "rows.parquet")
    for name, column, count in [
        ("samples-labels", lambda row: list(row["target"]), 5),
        ("samples-tags", lambda row: [span["tag"] for span in row["target"]], 5),
        ("samples-ranking", lambda row: (row["query"], row["passage"], row["target"]), 5),
    ]:
        limit = (one, "corpus.limits={train=40,validation=9,test=9}", "plan.max_tokens=64")
        table = pd.read_parquet(export(bench, "parquet", *limit, data=name, out=name).folder)
        assert all(column(row) is not None for _, row in table.iloc[:count].iterrows())
        assert table["target"].map(np.size).min() >= (0 if name == "samples-labels" else 1)
    limit = (one, "corpus.limits={train=9,validation=4,test=4}", "plan.max_tokens=64")
    answers = pd.read_parquet(export(bench, "parquet", *limit, data="samples-questions", out="qa").folder)
    row = answers[answers["target"].map(len) > 0].iloc[0]
    span = row["target"][0]
    assert row["context"][span["start"] : span["end"]].strip()
    windows = ("plan.truncation=windows", "plan.stride=4")
    with pytest.raises(SpecError, match='set "cut"'):
        export(bench, "parquet", *limit, *windows, data="samples-questions", out="windows")


def test_no_row_is_left_out_for_what_training_rows_lack(bench):
    rows = [("snow", "cold", "test"), ("fire", "hot", "train"), ("sun", "hot", "train"), ("ice", "cold", "test")]
    for name, chosen in (("both", rows), ("tests", [row for row in rows if row[2] == "test"])):
        file = write(bench.folder / f"{name}.csv", ["text", "label", "split"], chosen)
        table = pd.read_parquet(export(bench, "parquet", "plan.layers=0", data=file, out=name).folder)
        assert list(zip(table["text"], table["target"], table["split"], strict=True)) == chosen


def test_the_command_writes_the_same(bench):
    words = ["latents", "--data", str(rows_file(bench)), "--backbone", str(bench.backbone), "--layers", "1..-1"]
    words += ["--view", "cls", "--max-tokens", "16", "--template", 'say "{text}" and it\'s', "--format", "npy"]
    settings_given = [
        setting for setting in settings(bench)[:-1] if not setting.startswith(("plan.backbone", "plan.max"))
    ]
    words += [word for setting in settings_given for word in ("--set", setting)]
    words += ["--out", str(bench.folder / "cli"), "--json"]
    code, out, err = bench.command(*words)
    assert code == 0, err
    said = json.loads(out)
    assert (said["rows"], said["existed"], said["files"]) == (60, False, ["cls.npy", "rows.parquet"])
    values = np.load(bench.folder / "cli" / "cls.npy")
    reader = inspection.open_store(bench.folder / "cache")
    assert (reader.identity.template, reader.identity.max_tokens) == ('say "{text}" and it\'s', 16)
    np.testing.assert_array_equal(values, reader.latents([row[0] for row in ROWS], "cls", [1, 2, 3]))
    code, out, err = bench.command(*words[:-1])
    assert (code, out.startswith("it was there already: 60 rows")) == (0, True)


def test_an_arrow_file_is_of_the_format_that_can_be_mapped(bench):
    result = export(bench, "arrow", "plan.layers=0")
    with pyarrow.memory_map(str(result.folder / result.files[0])) as source:
        assert pyarrow.ipc.open_file(source).read_all().num_rows == 60


@pytest.mark.slow
def test_memory_stays_flat_while_rows_are_written():
    """As the benchmark measures it: within 10 % of what it was after a tenth of the rows."""
    command = [sys.executable, "-m", "benchmarks.store.export", "--rows", "100000", "--format", "npy", "parquet"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in said.splitlines()[-2:]:
        _, _, _, first, highest, _ = line.split()
        assert float(highest) <= 1.1 * float(first), said


@pytest.mark.parametrize("name", [".export.json", ".export.state", ".mean.npy.partial"])
def test_a_pipe_in_the_place_of_a_file_of_an_export_is_refused_and_not_waited_for(bench, name):
    export(bench, "npy", out="whole")
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / ".export.json").write_bytes((bench.folder / "whole" / ".export.json").read_bytes())
    (bench.folder / "out" / name).unlink(missing_ok=True)
    os.mkfifo(bench.folder / "out" / name)
    with pytest.raises(MachineError, match="is no regular file"):
        export(bench, "npy")


def test_a_folder_with_a_record_that_cannot_be_parsed_holds_other_files(bench):
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "mean.npy").touch()
    (bench.folder / "out" / ".export.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="holds other files"):
        export(bench, "npy")
