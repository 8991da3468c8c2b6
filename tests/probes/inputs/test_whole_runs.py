"""A run whose latents do not fit into train.memory is the run that it would be in memory."""

import pytest

from permafrost.data.progress import NoProgress
from tests.support.bench import Bench

TABLES = ("metrics.csv", "predictions.csv", "training.csv", "latents.csv", "autoencoder.csv")


class Notes(NoProgress):
    """The notes of a command."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.slow
def test_a_run_from_disk_has_the_figures_of_one_from_memory(tmp_path, tiny):
    from permafrost import api

    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_pairs('probe.inputs=["mean","max:1..2"]', 'plan.views=["mean","max"]')
    settings += bench.of_other_texts("variants=[]", "probe.encoder=linear")
    notes, tables = Notes(), list[dict[str, bytes]]()
    for name, memory in (("memory", "auto"), ("disk", "50KB")):
        run = api.run("pairs", [*settings, f"train.memory={memory}"], bench.runs, name=name, progress=notes)
        tables.append({table: (run.path / table).read_bytes() for table in TABLES})
    assert tables[0] == tables[1]
    told = [line for line in notes.lines if line.startswith("training reads latents from disk: ")]
    assert len(told) == 2  # of the pairs, and of the sentences of the pretraining
    assert not list((tmp_path / "cache").glob(".*"))
    again = api.run("pairs", [*settings, "train.memory=1MB"], bench.runs, name="disk", progress=notes)
    assert again.path.name == "disk"
    assert "disk is done: the same recipe" in notes.lines[-1]


OWN = '[probe]\nlayers = [-1]\nencoder = "none"\nmixer = "last"\ncenter = false\n[train]\nbatch_rows = 8\n'
TAGS = ("corpus.name=samples-tags", "plan.views=tokens")
FINETUNED = ("finetune.cut=1", "train.rates={backbone=0.002}")


@pytest.mark.slow
@pytest.mark.parametrize("more", [TAGS, (*TAGS, *FINETUNED), ("corpus.name=samples-topics", *FINETUNED)])
def test_a_run_on_token_states_from_disk_has_the_figures_of_one_from_memory(more, tmp_path, tiny):
    from permafrost import api

    bench, notes, tables = Bench(tmp_path, tiny("bert")), Notes(), list[dict[str, bytes]]()
    (tmp_path / "own.toml").write_text(OWN, "utf-8")
    for name, memory in (("memory", "auto"), ("disk", "60KB")):
        settings = bench.settings(*more, f"train.memory={memory}")
        run = api.run(str(tmp_path / "own.toml"), settings, bench.runs, name=name, progress=notes)
        tables.append({table: (run.path / table).read_bytes() for table in TABLES[:3]})
    assert tables[0] == tables[1]
    assert len([line for line in notes.lines if line.startswith("training reads latents from disk: ")]) == 1
    assert not list((tmp_path / "cache").glob(".*"))


def test_memory_that_is_no_size_or_less_than_a_batch_is_one_line(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    for memory, problem in (
        ("much", "train.memory 'much': expected a size such as 500MB, 20GB or 1000000."),
        ("2KB", "train.memory = 2KB is less than one batch of 32 rows takes, "),
    ):
        code, _, err = bench.command("run", "pairs", settings=[*bench.of_pairs(), f"train.memory={memory}"])
        assert code == 2
        assert problem in " ".join(err.split())
