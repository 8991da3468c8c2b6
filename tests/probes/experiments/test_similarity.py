"""Sentences by sentence encoders, end to end: the published cosines, what is left behind, what is left out."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from permafrost import api
from permafrost.data.errors import InputError
from permafrost.data.plan.plan import CapturePlan
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.locate import find_backbone
from permafrost.probes.config.load import load_recipe
from permafrost.probes.results.run_folder import ReportError, write_record
from permafrost.probes.results.run_tables import read_tables
from tests.support.bench import Bench
from tests.support.damage import resealed

SENTENCES = load_recipe("similarity")[1].similarity.texts
PUBLISHED = {
    "minilm": (0.797979, 0.717957, 0.779310),
    "sentence-transformers/paraphrase-mpnet-base-v2": (0.815372, 0.782905, 0.838281),
    "sentence-transformers/bert-base-nli-mean-tokens": (0.836366, 0.768571, 0.781588),
}
UNTUNED = {
    "bert-base": "sentence-transformers/bert-base-nli-mean-tokens",
    "microsoft/mpnet-base": "sentence-transformers/paraphrase-mpnet-base-v2",
    "microsoft/MiniLM-L12-H384-uncased": "minilm",
}
FILES = {"cosines.csv", "sentences.csv", "maps.csv", "record.json", "recipe.toml", "report.html", "figures"}
SHORT = ["the dog runs", "a brown dog runs over the grass", "the stove", "it sleeps near an old stove in winter"]


def settings(folder: Path, *more: str) -> list[str]:
    return [f"extract.cache={folder / 'cache'}", "extract.device=cpu", *more]


def small(folder: Path) -> list[str]:
    return settings(folder, "plan.max_tokens=32")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny):
    """Four sentences by two tiny backbones of different widths."""
    folder = tmp_path_factory.mktemp("compared")
    backbones = [str(tiny("bert")), str(tiny("mpnet", 48))]
    return api.similarity(SHORT, backbones, overrides=small(folder), runs=folder / "runs")


def need(backbone: str) -> None:
    try:
        find_backbone(CapturePlan(backbone=backbone))
    except BackboneError as error:
        pytest.skip(f"needs the hub: {error}")


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_the_published_cosines_come_back(backbone, tmp_path):
    need(backbone)
    done = api.similarity(backbones=[backbone], overrides=settings(tmp_path), runs=tmp_path / "runs")
    np.testing.assert_allclose(done.cosines["cosine"], PUBLISHED[backbone], atol=1e-5)


@pytest.mark.parametrize("backbone", UNTUNED)
def test_untuned_encoders_find_all_sentences_nearer_than_their_tuned_relatives_do(backbone, tmp_path):
    for name in (backbone, UNTUNED[backbone]):
        need(name)
    done = api.similarity(backbones=[backbone, UNTUNED[backbone]], overrides=settings(tmp_path), runs=tmp_path / "runs")
    means = done.cosines.groupby("backbone")["cosine"].mean()
    assert means[backbone] > means[UNTUNED[backbone]]


@pytest.mark.parametrize(
    "words",
    [
        ("similarity",),
        pytest.param(("similarity", *SENTENCES, "--backbone", "minilm"), marks=pytest.mark.slow),
        pytest.param(("run",), marks=pytest.mark.slow),
    ],
)
def test_the_command_line_prints_the_published_cosines(words, tmp_path):
    bench = Bench(tmp_path, tmp_path)
    words = ("run", "similarity") if words == ("run",) else (*words, "--runs", str(bench.runs))
    code, out, _ = bench.command(*words, "--json", settings=settings(tmp_path))
    assert code == 0
    said = json.loads(out)
    assert set(said) == {"cosines", "run"}
    assert said["run"] == str(bench.runs / "similarity-1")
    assert [(one["backbone"], one["first"], one["second"]) for one in said["cosines"]] == [
        ("minilm", 1, 2), ("minilm", 1, 3), ("minilm", 2, 3),
    ]  # fmt: skip
    np.testing.assert_allclose([one["cosine"] for one in said["cosines"]], PUBLISHED["minilm"], atol=1e-5)


def test_without_json_a_line_a_pair_and_a_column_a_backbone_are_printed(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    (tmp_path / "short.txt").write_text("\n".join(SHORT))
    words = ["similarity", "--file", str(tmp_path / "short.txt"), "--runs", str(bench.runs), "--pooling", "cls"]
    words += ["--backbone", str(bench.backbone), "--max-bytes", "1MB"]
    code, out, err = bench.command(*words, settings=small(tmp_path))
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[1:7]] == ["1-2", "1-3", "1-4", "2-3", "2-4", "3-4"]
    assert f"run: {bench.runs / 'similarity-1'}" in out


def test_a_table_is_symmetric_with_ones_on_its_diagonal_whatever_the_width(compared):
    tables = [compared.tables[backbone] for backbone in compared.backbones]
    for table in tables:
        assert table.shape == (4, 4)
        np.testing.assert_array_equal(table, table.T)
        np.testing.assert_array_equal(np.diag(table), 1)
        assert (table.abs() <= 1).all(axis=None)
    assert not np.allclose(*tables)


def test_the_run_folder_is_whole_and_its_tables_say_what_was_measured(compared):
    assert {path.name for path in compared.path.iterdir()} == FILES
    pd.testing.assert_frame_equal(pd.read_csv(compared.path / "cosines.csv"), compared.cosines)
    assert pd.read_csv(compared.path / "sentences.csv")["text"].tolist() == SHORT
    maps = pd.read_csv(compared.path / "maps.csv")
    assert set(maps.loc[maps["map"] == "latents", "method"]) == {"pca"}  # four are too few for t-SNE
    assert set(maps.loc[maps["map"] == "cosines", "method"]) == {"pca", "tsne"}  # four by two encoders are eight
    counts = maps[maps["method"] == "pca"].groupby(["map", "backbone"]).size()
    assert counts["latents"].to_dict() == counts["cosines"].to_dict() == dict.fromkeys(compared.backbones, 4)
    record = json.loads((compared.path / "record.json").read_text())
    assert set(record["stores"]) == set(compared.backbones)
    assert {one["identity"]["stored_dtype"] for one in record["stores"].values()} == {"float32"}


def test_the_page_has_a_heatmap_and_a_map_for_each_backbone_and_one_for_all(compared):
    page = (compared.path / "report.html").read_text()
    figures = sorted(path.stem for path in (compared.path / "figures").glob("*.png"))
    assert figures == sorted(path.stem for path in (compared.path / "figures").glob("*.svg"))
    assert len(figures) == 2
    found = re.findall(r'<figure id="figure-([^"]+)"', page)
    assert sorted(found) == sorted([*figures, "pca-0", "pca-1", "pca-2", "tsne-0"])
    assert re.search("There is no t-SNE for .*: it needs 5 points", page)
    assert "t-SNE of 8 points is to be read with caution" in page
    data = json.loads(page.split('id="latents-data">')[1].split("</script>")[0])
    together, *alone = data["inputs"]
    assert [len(trace["marker"]["symbol"]) for trace in together["pca"]] == [4, 4]
    assert together["pca"][0]["marker"]["symbol"] == together["pca"][1]["marker"]["symbol"]  # shaped by sentence
    colours = [trace["marker"]["color"] for trace in together["pca"]]
    assert len(set(colours)) == 2  # coloured by backbone
    assert [one["pca"][0]["marker"]["color"] for one in alone] == colours


def test_tsne_is_drawn_where_distinct_sentences_suffice(tmp_path, tiny):
    many = [f"{word} dog" for word in ("the", "a", "an")]
    texts = [*many, *many, "it sleeps"]  # four distinct ones: enough for the map of two backbones alone
    backbones = [str(tiny("bert")), str(tiny("mpnet", 48))]
    done = api.similarity(texts, backbones, overrides=small(tmp_path), runs=tmp_path / "runs")
    maps = pd.read_csv(done.path / "maps.csv")
    assert maps.groupby(["map", "method"]).size().to_dict() == {
        ("cosines", "pca"): 8, ("cosines", "tsne"): 8, ("latents", "pca"): 8,
    }  # fmt: skip
    assert maps["sentence"].max() == 7
    page = (done.path / "report.html").read_text()
    assert 'id="figure-tsne-0"' in page
    assert "There is no t-SNE for " in page


def test_sentences_that_are_the_same_have_a_cosine_of_one_and_run_once(tmp_path, tiny):
    done = api.similarity(
        ["the dog", "a stove", "the dog"], str(tiny("bert")), "cls", small(tmp_path), tmp_path / "runs"
    )
    table = done.tables[done.backbones[0]]
    assert table.loc[1, 3] == pytest.approx(1, abs=1e-12)
    assert table.loc[1, 2] == pytest.approx(table.loc[2, 3], abs=1e-12)
    assert done.texts_run == 2


def test_the_pooling_is_heard_and_a_second_comparison_runs_no_text(tmp_path, tiny):
    first, again, other = (
        api.similarity(SHORT, str(tiny("bert")), pooling, small(tmp_path), tmp_path / "runs")
        for pooling in ("", "mean", "cls")
    )
    assert [first.texts_run, again.texts_run, other.texts_run] == [4, 0, 4]
    assert [one.path.name for one in (first, again, other)] == ["similarity-1", "similarity-2", "similarity-3"]
    pd.testing.assert_frame_equal(first.cosines, again.cosines)
    assert not np.allclose(first.cosines["cosine"], other.cosines["cosine"])


def test_the_report_is_drawn_again_from_the_tables_alone(compared):
    page = compared.path / "report.html"
    before = page.read_text()
    drawn = sorted((compared.path / "figures").iterdir())
    kept = {path: path.read_bytes() for path in drawn}
    for path in (page, *drawn):
        path.unlink()
    assert api.report(compared.path) == page
    assert page.read_text().replace("similarity-1", "similarity") == before  # the number came after the first drawing
    assert {path: path.read_bytes() for path in sorted((compared.path / "figures").iterdir())} == kept


def test_a_backbone_that_cannot_be_had_is_left_out_and_none_at_all_is_an_error(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    words = ["similarity", *SHORT, "--runs", str(bench.runs), "--json", "--backbone", "someone/something"]
    code, out, err = bench.command(*words, "--backbone", str(bench.backbone), settings=small(tmp_path))
    assert code == 0
    assert {one["backbone"] for one in json.loads(out)["cosines"]} == {str(bench.backbone)}
    assert err.count("someone/something is left out: 'someone/something' is not in the local hub cache") == 1
    code, out, err = bench.command(*words, settings=small(tmp_path))
    assert (code, out) == (2, "")
    assert "not in the local hub cache" in err
    assert [path.name for path in bench.runs.iterdir()] == ["similarity-1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], "two sentences or more, got 1"),
        (["one", ""], "sentence 2 is empty"),
        (["one", "two", "--pooling", "max"], "similarity.pooling = 'max': Known: cls, mean"),
        (["one", "two", "--file", "x.txt"], "give either sentences or --file"),
        (
            ["one", "two", "--set", "plan.backbone=gpt2"],
            "plan.backbone has no effect on a comparison of sentences: set",
        ),
        (["one", "two", "--set", "plan.stored_dtype=float16", "--set", "plan.layers=1"], "it reads the last layer"),
        (["one", "two", "--set", "train.epochs=3"], r"[train] has no effect on a comparison of sentences"),
        (["one", "two", "--max-bytes", "many"], "--max-bytes 'many': expected a size such as 500MB"),
    ],
)
def test_what_cannot_be_compared_is_an_error_of_one_line(words, message, tmp_path):
    code, out, err = Bench(tmp_path, tmp_path).command("similarity", *words, "--runs", str(tmp_path / "runs"))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", [api.extract, api.train, api.ablate, api.study])
def test_verbs_that_train_refuse_a_recipe_that_compares(verb):
    with pytest.raises(InputError, match="recipe 'similarity' compares sentences and trains nothing"):
        verb("similarity")


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("maps.csv", None, "it has no maps.csv"),
        ("cosines.csv", "backbone,first,second,cosine\na,1,9,0.5\n", "column 'second' must be numbers from 1 to 2"),
        ("cosines.csv", "backbone,first,second,cosine\n", "holds no cosines"),
    ],
)
def test_a_folder_that_is_no_comparison_is_refused(table, content, message, tmp_path):
    (tmp_path / "cosines.csv").write_text("backbone,first,second,cosine\na,1,2,0.5\n")
    (tmp_path / "sentences.csv").write_text("sentence,text\n1,one\n2,two\n")
    (tmp_path / "maps.csv").write_text("map,backbone,method,sentence,x,y,z\n")
    write_record(tmp_path, {"experiment": "similarity"})
    read_tables(tmp_path)
    (tmp_path / table).unlink()
    if content is not None:
        (tmp_path / table).write_text(content)
    resealed(tmp_path)
    with pytest.raises(ReportError, match=message):
        read_tables(tmp_path)
