"""Estimates say what an extraction then does; options that do not go together are refused in a line."""

import json
from pathlib import Path
from typing import Any

import pytest

from permafrost.cli.exit_codes import run_guarded
from permafrost.cli.main import app
from permafrost.data.progress import NoProgress
from permafrost.extract.capacity import Capacity, hours
from permafrost.scaling.estimate import capacity_plan, estimate
from permafrost.scaling.request import ExtractionRequest
from tests.support.bench import Bench


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


@pytest.mark.parametrize(("view", "dtype"), [("mean", "float16"), ("tokens", "float16"), ("tokens", "int8")])
def test_an_estimate_is_what_the_extraction_writes(bench, view, dtype):
    """Bytes to some kB a shard; nothing is stored before."""
    settings = f"plan.views={view}", f"plan.stored_dtype={dtype}", "extract.shard_bytes=20000"
    request = ExtractionRequest("pairs", bench.of_pairs(*settings))
    (made,) = estimate(request, 3, 50.0, NoProgress())
    assert not list((bench.folder / "cache").glob("*/*/*.h5"))
    extracted = request.run(NoProgress())
    store = extracted.latents[0].store
    written = sum(store.shard_sizes().values())
    assert made.texts_distinct == made.sampled == extracted.texts_run == made.capacity.texts
    assert made.capacity.bytes < written < made.capacity.bytes + 20_000 * len(store.shard_sizes())
    assert made.tokens == sum(int(shard.lengths.sum()) for shard in store.shards)
    assert made.facts["hours"] == round(hours(made.tokens, 50.0, 3), 4)
    assert made.capacity.shards <= made.capacity.requests


def test_a_pilot_measures_a_rate_and_stores_nothing(bench, monkeypatch):
    monkeypatch.setattr("permafrost.scaling.estimate.PILOT_SECONDS", 0.1)
    (made,) = estimate(ExtractionRequest("pairs", bench.of_pairs()), 1, 0.0, NoProgress())
    assert made.pilot
    assert made.rate > 0
    assert not list((bench.folder / "cache").glob("*/*/*.h5"))


def test_a_sample_stands_for_all_texts(bench, monkeypatch):
    whole = estimate(ExtractionRequest("pairs", bench.of_pairs()), 1, 9.0, NoProgress())[0]
    monkeypatch.setattr("permafrost.scaling.estimate.SAMPLE_TEXTS", 40)
    sampled = estimate(ExtractionRequest("pairs", bench.of_pairs()), 1, 9.0, NoProgress())[0]
    assert sampled.sampled <= 40 < whole.sampled
    assert sampled.tokens == pytest.approx(whole.tokens, rel=0.3)
    assert sampled.capacity.texts == whole.capacity.texts


def test_capacity_is_arithmetic():
    capacity = Capacity(
        texts=10, tokens=70, columns={"mean": (0, 1), "tokens": (1,)}, width=8, stored_dtype="float16", shard_bytes=999
    )
    assert capacity.bytes_by_view == {"mean": 10 * 2 * 16, "tokens": 70 * 16 + 70 * 12 + 11 * 8}
    assert capacity.bytes == 320 + 2048 + 10 * 20
    assert capacity.shards == 3


def test_the_capacity_plan_of_the_guide_is_that_of_the_arithmetic():
    guide = (Path(__file__).parents[3] / "docs" / "guide" / "scale.md").read_text()
    models = {"MiniLM": (384, 7), "SmolLM2-135M": (576, 31), "GPT-2-medium": (1024, 25)}
    for row in capacity_plan(10**9, models):
        assert f"| {' | '.join(f'{v:,}' if isinstance(v, int) else str(v) for v in row.values())} |" in guide
    for rate in (6_600, 100_000, 1_000_000):
        each = [f"{hours(20 * 10**9, rate, workers):,.1f}" for workers in (1, 8, 64)]
        assert f"| {rate:,} | {' | '.join(each)} |" in guide


REFUSED: list[tuple[list[str], str]] = [
    (["--shard", "3/3"], "the workers of 3 are 0 to 2"),
    (["--shard", "1/0"], "at least one worker"),
    (["--shard", "a/b"], "expected I/N"),
    (["--shard", "auto"], "RANK and WORLD_SIZE"),
    (["--shard", "0/2", "--workers", "2"], "leave out --workers"),
    (["--shard", "0/2", "--ray", "local"], "leave out --workers and --ray"),
    (["--workers", "-1"], "at least 1"),
    (["--rate", "5"], "--rate is for --estimate"),
    (["--estimate", "--rate", "-1"], "--rate must be"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_options_that_do_not_go_together_are_refused_in_one_line(words, message, capsys, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert run_guarded(lambda: app(["extract", "quickstart", *words], standalone_mode=False)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_command_prints_one_object(bench, capsys):
    settings = [word for each in bench.of_pairs("extract.batch_tokens=64") for word in ("--set", each)]
    command = ["extract", "pairs", *settings, "--json", "--quiet"]

    def run(*words: str) -> Any:
        assert run_guarded(lambda: app([*command, *words], standalone_mode=False)) == 0
        return json.loads(capsys.readouterr().out)

    made = run("--estimate", "--rate", "100", "--workers", "2")["estimates"]
    assert [each["workers"] for each in made] == [2]
    first, second = run("--shard", "0/2"), run("--shard", "1/2")
    assert (first["shard"], second["shard"], second["missing"]) == ("0/2", "1/2", 0)
    assert first["missing"] == second["texts_run"] > 0
    assert first["texts_run"] + second["texts_run"] == made[0]["texts_distinct"]
    assert run()["texts_run"] == 0
    assert Path(first["stores"][0]).is_dir()
