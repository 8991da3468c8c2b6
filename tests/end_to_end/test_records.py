"""Whatever a command did, its record says what ran where, on which latents, and how long it took."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from permafrost import api
from permafrost.data.store.identity import Identity
from tests.end_to_end import test_pretrain
from tests.probes.experiments.test_similarity import SHORT, small
from tests.support.bench import Bench
from tests.support.marks import slow_but_first

TASKS = """
[plan]
views = ["mean"]

[tasks.topic]
corpus = {{ path = "{0}/topics1.csv", columns = ["sentence", "label"], target = "class" }}

[tasks.likeness]
corpus = {{ path = "{0}/pairs.csv", columns = ["first", "second", "score"], target = "score" }}
"""


def of_tasks(bench: Bench, *more: str) -> tuple[str, list[str]]:
    """A recipe of two tasks, and settings."""
    bench.of_topics()
    bench.of_pairs()
    path = bench.folder / "two.toml"
    path.write_text(TASKS.format(bench.folder), "utf-8")
    return str(path), bench.settings("train.epochs=1", *more)


def of_one(bench: Bench, *more: str) -> tuple[str, list[str]]:
    own = ["corpus.name=", "corpus.target=score", "variants=[]", "train.epochs=1", "ablation.kinds=single"]
    return "quickstart", bench.of_pairs(*own, *more)


def study(bench: Bench) -> list[Path]:
    space = 'study.space={"train.learning_rate"={low=0.001,high=0.01}}'
    found, done = api.study(*of_one(bench, space, "study.trials=2", "study.seeds=0"), runs=bench.runs)
    return [found.folder, done.path]


VERBS: dict[str, Callable[[Bench], list[Path]]] = {
    "run": lambda bench: [api.run(*of_one(bench), bench.runs).path],
    "multitask": lambda bench: [api.run(*of_tasks(bench, "multitask.schedule=joint"), bench.runs).path],
    "layers": lambda bench: [api.run(*of_tasks(bench), bench.runs).path],
    "ablation": lambda bench: [api.ablate(*of_one(bench), bench.runs).path],
    "study": study,
    "similarity": lambda bench: [
        api.similarity(SHORT, [str(bench.backbone)], overrides=small(bench.folder), runs=bench.runs).path
    ],
    "pretraining": lambda bench: [api.pretrain("gpt-small", test_pretrain.small(bench), bench.runs).path],
}


def identities(value: Any) -> list[Any]:
    """The identities of all latents that some stores of a record have, however they are nested."""
    if not isinstance(value, dict):
        return []
    return (
        [value["identity"]] if "identity" in value else [each for part in value.values() for each in identities(part)]
    )


@pytest.mark.parametrize("verb", slow_but_first(VERBS))
def test_every_command_records_what_ran_where_and_how_long(verb, tiny, tmp_path, quick):
    folders = VERBS[verb](Bench(tmp_path, tiny("bert")))
    for folder, experiment in zip(folders, (verb, "run"), strict=False):
        record = json.loads((folder / "record.json").read_text("utf-8"))
        assert record["experiment"] == experiment
        assert {"python", "permafrost", "torch", "numpy"} <= record["versions"].keys()
        assert re.fullmatch("[0-9a-f]{40}", record["commit"])
        assert all(isinstance(record[key], str) and record[key] for key in ("host", "machine", "name"))
        assert record["seconds"]["all"] > 0
        read = [Identity.from_json(identity) for identity in identities(record.get("stores"))]
        assert bool(read) == (verb != "pretraining")  # which reads no latents
        assert all(identity.weights and identity.tokenizer for identity in read)
