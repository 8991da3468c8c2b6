"""What several tests share: tiny backbones of every family, real corpora and models where they are."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent / "support"

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers side by side; read when torch is first imported
# Child programs too: what is in site/ makes `import data`, a second copy of permafrost.data, an error.
os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])

import hypothesis
import numpy as np
import pytest

from permafrost.data.memo import Memo
from permafrost.data.store.identity import Identity
from tests.support.models.backbones import WORDS, tiny_folder
from tests.support.site.sitecustomize import refuse_top_level_packages

refuse_top_level_packages()
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


OTHER_FAMILIES = {"qwen2", "roberta", "distilbert", "mpnet"}
"""Families of backbones whose tests are slow ones; a decoder of each kind and an encoder remain."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is tried on a further kind of model as slow."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters and OTHER_FAMILIES & {value for value in parameters.params.values() if isinstance(value, str)}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers from torch, whichever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> None:
    """What was imported so far is no garbage: a training, which collects garbage first, need not look at it."""
    gc.collect()
    gc.freeze()


PROVEN_OF_STAGE_ONE = ("tests/extract", "tests/data")
"""Folders of tests that see for themselves what a cache remembers."""

TOLD = ("road ", "structure", "pilot ", "cut ", "tokenizer ")
"""Beginnings of the keys of what is found by running a backbone; their ends are digests of model, code and versions."""

FOUND = dict[str, str]()
"""What was found of backbones in this process."""


@pytest.fixture(autouse=True, scope="module")
def proven_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is proven of a tiny backbone holds in every cache: tests of what is trained on it prove it once."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.nodeid.startswith(PROVEN_OF_STAGE_ONE):
            patch.setattr(Memo, "read", read_or_found)
            patch.setattr(Memo, "write", write_and_find)
        yield


def read_or_found(memo: Memo, key: str, read: Any = Memo.read) -> str | None:
    found = FOUND.get(key) if key.startswith(TOLD) else None
    return found or read(memo, key)


def write_and_find(memo: Memo, key: str, value: str, write: Any = Memo.write) -> None:
    write(memo, key, value)
    if key.startswith(TOLD):
        FOUND[key] = value


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Family name, width and number of blocks -> folder of a tiny random backbone, made once a session."""
    made: dict[tuple[str, int, int], Path] = {}

    def folder(family: str, width: int = 32, blocks: int = 3) -> Path:
        sizes = width, blocks
        if (family, *sizes) not in made:
            made[family, *sizes] = tiny_folder(family, tmp_path_factory.mktemp(family), 0, *sizes)
        return made[family, *sizes]

    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Any:
    """A bench on which ``run pairs`` is done, with two seeds, and what it said; a trained variant is chosen."""
    from permafrost import api
    from tests.support.bench import Bench

    bench = Bench(tmp_path_factory.mktemp("finished"), tiny("bert"))
    with pytest.MonkeyPatch.context() as patch:
        leave_out_raw(patch)
        return bench, api.run("pairs", bench.of_pairs("train.seeds=0,1"), bench.runs)


def leave_out_raw(patch: pytest.MonkeyPatch) -> None:
    """Make runs choose among what they train: three epochs on a tiny random backbone rarely beat its cosines."""
    patch.setattr("permafrost.probes.experiments.run.untrained_variant", lambda variants, workspace: None)


@pytest.fixture
def trained_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs choose among what they train; see :func:`leave_out_raw`."""
    leave_out_raw(monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figures and few bootstrap samples, which take longer than all else of a small one."""
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    monkeypatch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)


@pytest.fixture
def pages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are written, with their figures; these are not drawn once more for files of their own."""
    monkeypatch.setattr("permafrost.probes.reports.report.save_pictures", lambda folder, sections, known: None)


@pytest.fixture
def texts() -> list[str]:
    """Texts of 1 to 24 words; many begin alike, one is the beginning of another, two differ only in their end."""
    rng = np.random.default_rng(0)
    starts = [WORDS[:6], WORDS[3:5], WORDS[8:9]]
    made = [" ".join(starts[i % 3] + list(rng.choice(WORDS, rng.integers(0, 18)))) for i in range(40)]
    return list(
        dict.fromkeys([*made, " ".join(WORDS[:6]), " ".join(WORDS[:6]) + " winter", "dog", "The dog , asleep ."])
    )


@pytest.fixture
def identity() -> Identity:
    return Identity(
        weights="w",
        tokenizer="t",
        template="{text}",
        rewording="[]",
        max_tokens=16,
        compute_dtype="float32",
        stored_dtype="float32",
        final_norm=False,
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pf.register``, of which nothing is left after the test."""
    from permafrost.data import plugin_registry

    monkeypatch.setattr(plugin_registry, "_registered", {})
    return plugin_registry.register
