"""The command embed: vectors of a file beside its texts, kept and searched; of a run, of a backbone."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import permafrost as pf
from permafrost import api, embedding, inspection
from permafrost.data.errors import InputError
from permafrost.data.export import tensor_files, vectors
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.stages import with_device
from tests.support.bench import Bench, pairs

TEXTS = list(dict.fromkeys(row[0] for row in pairs(seed=3)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


def test_a_run_embeds_a_file_once_and_finds_the_nearest(finished, file, tmp_path):
    bench, done = finished
    out = tmp_path / "vectors.npy"
    words = ["embed", str(done.path), "--out", str(out), "--search", TEXTS[4], "--json"]
    code, said, err = bench.command(*words, "--file", str(file))
    assert code == 0, err
    assert "the cosine of two vectors is the raw score of the run" in err
    first = json.loads(said)
    assert (first["texts"], first["existed"], first["is_score"]) == (len(TEXTS), False, True)
    assert first["nearest"][0] == {"score": pytest.approx(1, abs=1e-5), "number": 5, "text": TEXTS[4]}
    predictor = api.load(done.path)
    raw = [answer["raw"] for answer in predictor.predict([(TEXTS[4], text) for text in TEXTS])]
    assert [near["score"] for near in first["nearest"]] == pytest.approx(sorted(raw, reverse=True)[:10], abs=1e-5)
    np.testing.assert_allclose(np.load(out), predictor.embed(TEXTS), atol=1e-6)
    assert list(pd.read_parquet(tmp_path / "vectors.texts.parquet")["text"]) == TEXTS
    written = out.stat().st_mtime_ns
    code, said, _ = bench.command(*words)  # without the file
    assert json.loads(said) == first | {"existed": True}
    code, said, _ = bench.command(*words[:-1], "--file", str(file))
    lines = said.splitlines()
    assert (len(lines), lines[0].split()) == (12, ["score", "line", "text"])
    assert lines[-1].startswith("it was there already: ")
    assert out.stat().st_mtime_ns == written


def test_a_run_whose_backbone_lies_elsewhere_embeds_as_before(tmp_path, tiny, file, trained_only, quick):
    shutil.copytree(tiny("bert"), tmp_path / "model")
    bench = Bench(tmp_path, tmp_path / "model")
    done = api.run("pairs", bench.of_pairs("train.epochs=1"), bench.runs, only=["weights"])
    words = ["embed", str(done.path), "--file", str(file), "--out"]
    assert bench.command(*words, str(tmp_path / "before.npy"))[0] == 0
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    assert "--backbone" in bench.command(*words, str(tmp_path / "gone.npy"))[2]
    place = ["--backbone", str(tmp_path / "elsewhere")]
    code, _, err = bench.command(*words, str(tmp_path / "after.npy"), *place)
    assert code == 0, err
    np.testing.assert_array_equal(np.load(tmp_path / "before.npy"), np.load(tmp_path / "after.npy"))


NO_TEXTS = {
    "none": ([None], "1 .*NoneType"),
    "not a number": (["a dog", float("nan")], "2 .*nan, of type float"),
    "a number": (["a dog", "a cat", 7], "3 .*7, of type int"),
    "bytes": ([b"a dog"], "1 .*of type bytes"),
    "nested": ([[["a dog"]]], "1 .*of type list"),
    "a list of pairs": ([("a dog", ("a cat", None))], "1 .*of type tuple"),
    "a dict": ([{"text": "a dog"}], "1 .*of type dict"),
    "no list": (None, "NoneType"),
    "bytes alone": (b"a dog", "bytes"),
    "a number alone": (3.5, "float"),
    "a table": (pd.DataFrame({"text": ["a dog"]}), "DataFrame"),
    "columns": ({"text": ["a dog"]}, "dict"),
}


@pytest.mark.parametrize("name", NO_TEXTS)
def test_what_is_no_text_is_named_with_its_position_and_type(name, finished):
    given, message = NO_TEXTS[name]
    _, done = finished
    predictor = api.load(done.path)
    for verb in (
        predictor.predict,
        lambda texts: predictor.predict_task("probe", texts),
        predictor.embed,
        lambda texts: pf.latents(texts, "minilm", cache=None),
        lambda texts: pf.similarity(texts if texts is not None else [None]),
    ):
        with pytest.raises(InputError, match=message.replace(" .*", ".*", 1)) as caught:
            verb(given)
        assert len(str(caught.value).splitlines()) == 1


def test_items_may_be_rows_of_an_array(finished):
    _, done = finished
    predictor, pair = api.load(done.path), ["a dog", "the cat"]
    assert predictor.predict(np.array([pair])) == predictor.predict([pair]) == predictor.predict([tuple(pair)])


def test_a_backbone_embeds_by_its_last_layer(tiny, file, tmp_path, finished):
    bench, _ = finished
    out, cache = tmp_path / "vectors.npy", tmp_path / "cache"
    given = ["--set", f"extract.cache={cache}", "--set", "extract.device=cpu", "--set", "plan.compute_dtype=float32"]
    words = ["embed", str(tiny("gpt2")), "--file", str(file), "--view", "last", *given]
    code, said, err = bench.command(*words, "--out", str(out), "--json")
    assert code == 0, err
    wanted = inspection.open_store(cache).latents(TEXTS, "last", -1)[0].astype(np.float32)
    np.testing.assert_array_equal(np.load(out), wanted)
    assert json.loads(said)["is_score"] is False
    code, said, _ = bench.command(*words, "--search", TEXTS[2], "--json")  # nothing is written
    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[2]), kind="stable")[:10]
    assert [near["number"] for near in json.loads(said)["nearest"]] == (order + 1).tolist()


def test_a_stopped_file_goes_on(finished, tmp_path, monkeypatch):
    _, done = finished
    monkeypatch.setattr(vectors, "LEAST_ROWS", 8)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tensor_files, "SYNC_SECONDS", 0)
    embedder = embedding.make_embedder(str(done.path), "", "", ())
    read, starts = embedder.reader(TEXTS, NoProgress()), list[int]()

    def stopping(start: int, stop: int) -> np.ndarray:
        starts.append(start)
        if len(starts) == 4:
            raise KeyboardInterrupt
        return read(start, stop)

    stopped = embedding.Embedder(**vars(embedder) | {"reader": lambda texts, progress: stopping})
    out = tmp_path / "vectors.npy"
    with pytest.raises(KeyboardInterrupt):
        embedding.embed_file(stopped, TEXTS, out, NoProgress())
    assert not out.exists()
    embedded = embedding.embed_file(stopped, TEXTS, out, NoProgress())
    assert starts[5] == 16  # after the first text, which tells the width
    np.testing.assert_allclose(embedded.vectors, read(0, len(TEXTS)), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vectors.npy", "vectors.texts.parquet"]


def test_what_cannot_be_embedded_is_refused_in_a_line(finished, file, tmp_path, tiny):
    bench, done = finished
    run, out = str(done.path), str(tmp_path / "vectors.npy")
    assert bench.command("embed", run, "--file", str(file), "--out", out)[0] == 0
    (tmp_path / "other.txt").write_text("a dog\n")
    (tmp_path / "foreign.npy").write_bytes(b"")
    other, backbone = str(tmp_path / "other.txt"), str(tiny("gpt2"))
    cache = ("--set", f"extract.cache={tmp_path}")
    for words, message in [
        ([run], "give the texts, --file FILE"),
        ([run, "--file", other], "give --out FILE for the vectors, --search TEXT, or both"),
        ([run, "--file", other, "--out", out], "holds vectors of other texts"),
        ([backbone, "--file", str(file), "--out", out, *cache], "holds vectors of another model"),
        ([backbone, "--out", out, "--search", "a dog", *cache], "holds vectors of another model"),
        ([run, "--file", other, "--out", str(tmp_path / "foreign.npy")], "does not say what it holds"),
        ([run, "--file", other, "--out", str(tmp_path / "v.csv")], "written as .npy"),
        ([run, "--out", str(tmp_path / "none.npy"), "--search", "a"], "there are no vectors yet"),
        ([run, "--file", other, "--search", " "], "--search: the text is empty"),
        ([run, "--file", other, "--search", "a", "--view", "last"], "embeds with its own settings"),
        ([run + "0", "--file", other, "--search", "a"], "there is no such run folder"),
        ([backbone, "--file", other, "--search", "a", "--task", "x"], "a backbone has no tasks"),
        ([run, "--file", other, "--search", "a", "--backbone", str(tiny("bert", 48))], "has other weights"),
        ([backbone, "--file", other, "--search", "a", "--backbone", "x"], "is the backbone itself"),
        ([backbone, "--file", other, "--search", "a", "--view", "mean,cls"], "set plan.views (--view) to one of"),
        ([backbone, "--file", other, "--search", "a", "--set", "plan.layers=all"], "set plan.layers to one of"),
    ]:
        code, _, err = bench.command("embed", *words)
        assert (code, message in err) == (2, True), (words, err)
        assert len(err.strip().splitlines()) <= 2, err


def test_a_run_predicts_on_this_machine_wherever_it_was_trained(finished):
    _, done = finished
    (run,) = api.load(done.path).tasks.values()
    trained_there = replace(run, recipe=replace(run.recipe, device="cuda:3", extract=ExtractSpec(device="cuda:3")))
    here = with_device(trained_there, "")
    assert (here.recipe.device, here.recipe.extraction.device) == ("auto", "auto")
    assert with_device(trained_there, "cpu").recipe.extraction.device == "cpu"
    with pytest.raises(SpecError, match='device = "cuda:3" is not on this machine'):
        api.load(done.path, device="cuda:3")


def test_vectors_or_texts_that_were_changed_are_refused_and_not_searched(finished, file, tmp_path):
    bench, done = finished
    out, texts = tmp_path / "vectors.npy", tmp_path / "vectors.texts.parquet"
    words = ["embed", str(done.path), "--out", str(out), "--search", "a dog"]
    assert bench.command(*words, "--file", str(file))[0] == 0
    whole = out.read_bytes()
    as_object = whole[:10] + whole[10:].replace(b"'<f4'", b"'|O' ")
    flipped, beside = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], texts.read_bytes()
    for content in (flipped, whole[:-40], b"", as_object):
        out.write_bytes(content)
        code, said, err = bench.command(*words)
        assert (code, said, "vectors.npy is not as it was written" in err) == (3, "", True), err
    out.write_bytes(whole)
    table = parquet.read_table(texts)
    parquet.write_table(pa.table([table["text"][::-1]], schema=table.schema), texts)
    assert "vectors.texts.parquet is not as it was written" in bench.command(*words)[2]
    texts.write_bytes(beside)
    assert bench.command(*words)[0] == 0
    for name in (out, texts):
        name.unlink()
        os.mkfifo(name)
        code, _, err = bench.command(*words, "--file", str(file))
        assert (code, "is no regular file" in err) == (2, True), err
        name.unlink()
        name.write_bytes(whole if name == out else beside)
