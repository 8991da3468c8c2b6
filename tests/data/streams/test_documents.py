"""Documents to pretrain on, as streams."""

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from permafrost.data.corpora.records import CorpusError
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.streams.documents import open_documents


def test_files_of_a_pattern_are_read_in_natural_order_and_anew(tmp_path):
    for number in (10, 2):
        (tmp_path / f"{number}.txt").write_text(f"first of {number}\n\nsecond\nof {number}\n")
    documents = open_documents(LanguageSpec(corpus=f"{tmp_path}/*.txt"))
    assert list(documents) == list(documents) == ["first of 2", "second of 2", "first of 10", "second of 10"]
    assert len(list(open_documents(LanguageSpec(corpus=f"{tmp_path}/*.txt", lines=True)))) == 6
    with pytest.raises(CorpusError, match="no file matches"):
        open_documents(LanguageSpec(corpus=f"{tmp_path}/*.md"))


def test_a_hub_data_set_is_read_as_a_stream(tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").write_text(
        '{"id": "1", "text": "A dog runs."}\n{"id": "2", "text": " "}\n{"id": "3", "text": "It snows."}\n'
    )
    real, asked = datasets.load_dataset, []

    def load(name, config, **settings):
        asked.append((name, config, settings))
        return real(str(tmp_path), None, **settings)

    monkeypatch.setattr(datasets, "load_dataset", load)
    documents = open_documents(LanguageSpec(corpus="wikimedia/wikipedia", config="20231101.en"))
    assert list(documents) == list(documents) == ["A dog runs.", "It snows."]
    assert asked[0] == ("wikimedia/wikipedia", "20231101.en", {"split": "train", "streaming": True})

    def refuse(*_, **__):
        raise DatasetNotFoundError("it is not there")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(CorpusError, match="no data set of the hub that can be opened"):
        list(open_documents(LanguageSpec(corpus="nobody/nothing")))
