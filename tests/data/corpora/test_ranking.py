"""Pairs to rank: pairs and triples from a file, repeated pairs, candidates, and queries that stay in one split."""

import numpy as np
import pytest

from permafrost.data.corpora import ranking
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import HELD_OUT, CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import SpecError

PAIRS = ["query", "passage", "relevance", "split"]
LISTED = "each query ranks the passages that the file pairs it with"


@pytest.fixture
def read(tmp_path):
    """A corpus of tab-separated rows, the first of which names the columns."""

    def read(*rows: tuple[str, ...], **settings) -> Corpus:
        path = tmp_path / "p.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
        columns = settings.pop("columns", tuple(name for name in rows[0] if name != "split"))
        return load_corpus(CorpusSpec(path=str(path), columns=columns, target="rank", **settings))

    return read


def pairs(corpus: Corpus, split: str) -> list[tuple[str, str, float]]:
    rows = corpus.split(split)
    return [
        (*(corpus.texts[text] for text in row), target) for row, target in zip(rows.texts, rows.targets, strict=True)
    ]


def test_pairs_have_a_relevance_of_which_what_is_below_0_is_0(read):
    rows = [("q", "a", "2", "train"), ("q", "b", "-2", "train"), ("q", "c", "false", "train")]
    corpus = read(PAIRS, *rows, ("r", "a", "0.5", "validation"))
    assert pairs(corpus, "train") == [("q", "a", 2), ("q", "b", 0), ("q", "c", 0)]
    assert pairs(corpus, "validation") == [("r", "a", 0.5)]
    assert LISTED in corpus.notes


def test_a_triple_is_two_pairs_and_further_columns_are_further_negatives(read):
    header = ["query", "positive", "negative", "other", "split"]
    corpus = read(header, ("q", "a", "b", "c", "train"), ("q", "a", "b", "d", "train"))
    assert pairs(corpus, "train") == [("q", "a", 1), ("q", "b", 0), ("q", "c", 0), ("q", "d", 0)]
    assert corpus.notes[0] == "pairs that occur several times: 2; each counts once, by its highest relevance"
    assert pairs(read([*header[:3], "split"], ("q", "a", "b", "train")), "train") == [("q", "a", 1), ("q", "b", 0)]


def test_a_number_among_passages_is_refused_with_its_line(read):
    rows = [("q", "a", "b", "train"), ("q", "a", "1912", "train")]
    message = r"p\.tsv:3: the last column of corpus\.columns holds passages in other rows, and here the number 1912"
    with pytest.raises(CorpusError, match=message):
        read(["query", "positive", "negative", "split"], *rows)


def test_a_missing_relevance_and_a_training_set_without_one_are_refused(read):
    with pytest.raises(CorpusError, match=r"p\.tsv:2: expected a number in the last column .* or a passage, got '';"):
        read(PAIRS, ("q", "a", "", "train"))
    with pytest.raises(CorpusError, match=r"none of its 2 training pairs is relevant .*; check corpus\.columns, which"):
        read(PAIRS, ("q", "a", "0", "train"), ("q", "b", "0", "train"))


def test_queries_without_a_choice_are_noted(read):
    train = [("q", "a", "1", "train"), ("q", "b", "0", "train")]
    test = [("r", "a", "1", "test"), ("s", "a", "0", "test"), ("t", "a", "1", "test"), ("t", "b", "0", "test")]
    assert read(PAIRS, *train, *train[:1], *test).notes[1:] == (
        "pairs that occur several times: 1; each counts once, by its highest relevance",
        LISTED,
        "1 of 3 test queries have no relevant passage; metrics leave them out",
        "1 test queries have relevant passages only; they count as ranked perfectly",
    )


def test_of_pairs_that_are_all_relevant_each_query_ranks_all_passages_of_its_split(read):
    rows = [("q", "a", "train"), ("r", "b", "train")]
    test = [("s", "x", "test"), ("t", "y", "test"), ("t", "s", "test")]
    corpus = read(["query", "passage", "split"], *rows, *test)
    assert corpus.notes == (
        "every passage of the file is relevant: each query ranks all distinct passages of its split",
    )
    assert pairs(corpus, "train") == [("q", "a", 1), ("r", "b", 1)]
    expected = {("s", "x"): 1, ("s", "y"): 0, ("s", "s"): -1, ("t", "x"): 0, ("t", "y"): 1, ("t", "s"): 1}
    assert {(query, passage): target for query, passage, target in pairs(corpus, "test")} == expected


def test_too_many_pairs_leave_queries_out_and_not_passages(read, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_PAIRS", 25)
    rows = [(f"q{n}", f"p{n}", split) for n, split in enumerate(["train"] * 2 + ["test"] * 10)]
    corpus = read(["query", "passage", "split"], *rows)
    found = pairs(corpus, "test")
    assert len(found) == 20
    assert {query for query, _, _ in found} == {"q2", "q11"}
    assert sum(target for *_, target in found) == 2
    assert corpus.notes[1].startswith("2 of 10 test queries are ranked, at even distances: all would be more than 25")


def test_rows_at_even_distances_are_refused():
    with pytest.raises(SpecError, match=r"spread takes single rows .* passages of a query; set it to false\."):
        CorpusSpec(path="p.tsv", target="rank", limit=10, spread=True)


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_the_passages_of_a_query_are_in_one_split(read, held_out):
    rows = [(f"query {n}", f"passage {n} {k}", str(k % 2)) for n in range(40) for k in range(3)]
    corpus = read(PAIRS[:3], *rows, held_out=held_out)
    sizes = {split: len(np.unique(part.texts[:, 0])) for split, part in corpus.splits.items()}
    assert sum(sizes.values()) == 40
    assert (HELD_OUT in sizes) == bool(held_out)
    assert all(len(part) == 3 * sizes[split] for split, part in corpus.splits.items())
