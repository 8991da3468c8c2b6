"""Texts to predict and to embed that several processes run first."""

from typing import Any

import numpy as np
import pytest

from permafrost import api
from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress
from permafrost.data.store.identity import Identity
from permafrost.scaling.new_texts import extract_new_texts
from permafrost.scaling.request import Extracted
from tests.support.bench import Bench, pairs

WINDOWS = ["plan.max_tokens=48", "plan.stride=4"]
ITEMS = list(dict.fromkeys(row[:2] for row in pairs(seed=9)))


class HereAlone:
    """The pool's place: this process extracts, and nobody reads a backbone afterwards."""

    def __call__(self, request: Any, workers: int, progress: Any) -> Extracted:
        self.request = request
        return request.run(progress)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> HereAlone:
    pool = HereAlone()
    monkeypatch.setattr("permafrost.scaling.processes.extract_in_processes", pool)
    return pool


def test_predictions_and_vectors_from_the_store_are_those_of_the_run(finished, here, monkeypatch, tmp_path):
    """All layers that the probe reads are extracted, no others, and then no backbone is loaded."""
    _, done = finished
    alone, stored = api.load(done.path), api.load(done.path)
    planned = stored.texts_to_predict({"probe": ITEMS}, {"probe": [""] * len(ITEMS)})
    extract_new_texts(planned, 2, "", NoProgress())
    ((plan, texts),) = here.request.plans
    assert set(texts) == {text for item in ITEMS for text in item}
    assert dict.fromkeys(plan.views, plan.layers) == stored.columns_by_plan("probe")[""]
    monkeypatch.setattr(stored, "_make_extractor", None)
    for one, other in zip(alone.predict(ITEMS), stored.predict(ITEMS), strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
    np.testing.assert_allclose(alone.embed(texts[:9]), stored.embed(texts[:9]), atol=1e-5)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"b\.csv:2: .*two texts"):
        stored.texts_to_predict({"probe": [("one",)]}, {"probe": ["b.csv:2"]})
    other = Identity(**{**vars(stored.tasks["probe"].identities[""]), "weights": "others"})
    with pytest.raises(InputError, match="weights"):
        planned[0].read_from(type("Store", (), {"identity": other})())


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_what_cannot_be_shared_is_refused_in_a_line(finished, command, tmp_path):
    bench, done = finished
    file, out = tmp_path / "texts.csv", tmp_path / ("out.npy" if command == "embed" else "out.csv")
    file.write_text("sentence1,sentence2\na dog,a cat\n" if command == "predict" else "sentence\na dog\n")
    words = [command, str(done.path), "--file", str(file), "--out", str(out)]
    for given, said in ((["--workers", "-1"], "--workers must be at least 1"), (["--ray", "nowhere"], "HOST:PORT")):
        code, _, err = bench.command(*words, *given)
        assert code == 2
        assert said in err.splitlines()[-1]
    assert not out.exists()


LONG = ("How high is it?", "The peak, at 8,848.86 metres, is the highest. " * 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "settings", "item"),
    [
        ("ner", ["corpus.name=samples-tags", "corpus.held_out=0.2"], ("Elon Musk  spoke in Reykjavík.",)),
        ("qa", ["corpus.name=samples-questions", "corpus.limits={train=12,test=6}", *WINDOWS], LONG),
        ("qa-tuned", ["corpus.name=samples-questions", "corpus.limits={train=4,validation=3,test=3}", *WINDOWS], LONG),
    ],
)
def test_tokens_and_windows_of_new_texts_come_from_the_store(recipe, settings, item, tmp_path, tiny, here, quick):
    bench = Bench(tmp_path, tiny("bert"))
    done = api.run(recipe, bench.settings("train.epochs=1", *settings), bench.runs)
    alone, stored = api.load(done.path), api.load(done.path)
    extract_new_texts(stored.texts_to_predict({"probe": [item]}, {"probe": ["1"]}), 2, "", NoProgress())
    stored._make_extractor = None  # type: ignore[assignment]
    assert_same(alone.predict([item]), stored.predict([item]))


def assert_same(one: Any, other: Any) -> None:
    match one:
        case dict():
            assert one.keys() == other.keys()
            for key in one:
                assert_same(one[key], other[key])
        case list():
            assert len(one) == len(other)
            for each, there in zip(one, other, strict=True):
                assert_same(each, there)
        case float():
            assert one == pytest.approx(other, abs=1e-4)
        case _:
            assert one == other


@pytest.mark.slow
def test_two_processes_run_the_texts_of_a_file(finished, tmp_path):
    bench, done = finished
    file, out = tmp_path / "texts.txt", tmp_path / "out.npy"
    file.write_text("\n".join(text for item in ITEMS for text in item))
    words = ["embed", str(done.path), "--file", str(file), "--search", "a dog", "--out"]
    code, _, err = bench.command(*words, str(out), "--workers", "2")
    assert code == 0, err
    assert "texts run by 2 workers" in err
    assert bench.command(*words, str(tmp_path / "alone.npy"))[0] == 0
    np.testing.assert_allclose(np.load(out), np.load(tmp_path / "alone.npy"), atol=1e-5)
    code, _, err = bench.command("embed", str(bench.backbone), *words[2:], str(tmp_path / "b.npy"), "--workers", "2")
    assert code == 0, err
