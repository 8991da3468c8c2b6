"""Finished runs on labelled data: their own figures again, and those of data from elsewhere."""

import pytest

import permafrost as pf
from permafrost import api
from tests.support.bench import Bench

pytestmark = pytest.mark.usefixtures("quick", "trained_only")

MEASURED = ("value", "low", "high", "n")

MEAN = ("train.seeds=0,1", "train.average=true")
KINDS = {
    "classes in float16": ("classify", "topics", ["plan.stored_dtype=float16", "train.seeds=0"]),
    "classes in bfloat16, seeds averaged": ("classify", "topics", ["plan.stored_dtype=bfloat16", *MEAN]),
    "scores, seeds averaged": ("pairs", "pairs", [*MEAN]),
    "scores, the best of two seeds": ("pairs", "pairs", ["train.seeds=0,1"]),
    "two plans": ("pairs", "pairs", ["plans.loud.template={text} !", "probe.inputs=mean,loud/mean:-1"]),
    "labels": ("multilabel", "samples-labels", []),
    "tags": ("ner", "samples-tags", []),
    "answers": ("qa", "samples-questions", ["plan.stride=8"]),
    "ranks": ("rank", "samples-ranking", []),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_on_its_own_test_split_has_its_own_figures_to_the_last_digit(name, tmp_path, tiny):
    recipe, corpus, more = KINDS[name]
    bench = Bench(tmp_path, tiny("bert"))
    own = {"topics": bench.of_topics, "pairs": bench.of_pairs}.get(corpus)
    settings = own(*more) if own else bench.settings(f"corpus.name={corpus}", "corpus.path=", *more)
    done = api.run(recipe, settings, bench.runs)
    result = pf.evaluate(done.path, folder=bench.runs)
    assert result.selected == done.selected
    assert result.texts_run == 0
    before, again = _figures(done), _figures(result)
    alone = len({seed for _, _, seed in before}) <= 2 or "train.average=true" in more
    compared = [key for key in again if alone or key[-1] is not None]
    assert compared
    assert {key: again[key] for key in compared} == {key: before[key] for key in compared}


def _figures(result):
    """Metric, layer and seed -> the figures of the chosen variant on the test split."""
    return {
        (row["metric"], row["layer"], row["seed"]): [row[name] for name in MEASURED]
        for row in result.metrics
        if row["split"] == "test" and row["variant"] == result.selected
    }
