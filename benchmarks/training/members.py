"""An ablation's members side by side in one program against one after another, on latents of MiniLM's shape.

    python -m benchmarks.training.members

Members are the subsets of seven layers that an ablation trains (each alone, without each, the first, the last), with
three seeds each: 72. Latents, pairs and scores are random: the time does not hang on what they hold. "ours" is what
ablate does: members under 50,000 parameters side by side, larger ones one after another. Both arms give the same
figures, and the largest difference of the validation metric is printed.
"""

import time

import numpy as np
import torch

from benchmarks.machine import describe, parse_options
from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.probes.config.ablation import subsets
from permafrost.probes.config.columns import Column
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.variants import members as members_module
from permafrost.probes.variants.members import MemberConfig
from tests.support.trainings import member_config, train_all

ARMS = {"together": 1 << 62, "apart": 0}
PROBES = {
    "softmax weights alone": ProbeSpec(encoder="none"),
    "low rank 8": ProbeSpec(encoder="lowrank", rank=8),
    "linear, full width": ProbeSpec(encoder="linear"),
}


def experiment_of(rows: int, layers: int, width: int) -> tuple[Corpus, ProbeInputs]:
    """Random latents, and pairs whose score hangs on them a little."""
    rng = np.random.default_rng(0)
    texts = rows * 2
    values = torch.from_numpy(rng.normal(size=(layers, texts, width)).astype(np.float32))
    sides = rng.integers(0, texts, (rows, 2))
    held = max(2, rows // 10)
    splits = {
        "train": Rows(sides[held:], rng.random(rows - held)),
        "validation": Rows(sides[:held], rng.random(held)),
    }
    corpus = Corpus(
        name="random",
        texts=tuple(map(str, range(texts))),
        splits=splits,
        labels=(),
        score_range=(0.0, 1.0),
        kind="score",
    )
    return corpus, PooledInputs(
        values=values, columns=tuple(Column("", "mean", layer) for layer in range(layers)), widths=(width,) * layers
    )


def members_of(inputs: ProbeInputs, corpus: Corpus, spec: ProbeSpec, epochs: int, seeds: int) -> list[MemberConfig]:
    """Every distinct subset with every seed."""
    kinds = ("single", "without", "prefix", "suffix")
    wanted = [subset.layer_positions for kind in kinds for subset in subsets(kind, inputs.columns)]
    recipe = Recipe(probe=spec, train=TrainSpec(epochs=epochs, batch_rows=128))
    return [
        member_config(recipe, inputs, corpus, seed, positions, "member")
        for positions in dict.fromkeys(wanted)
        for seed in range(seeds)
    ]


def seconds(arm: str, members: list[MemberConfig]) -> tuple[float, list[float]]:
    """Time and validation metrics of one arm."""
    members_module.MAX_STACKED_PARAMETERS = ARMS[arm]
    started = time.perf_counter()
    trained = train_all(members)
    return time.perf_counter() - started, [one.history.best_value for one in trained]


def main() -> None:
    """Print a line per probe."""
    options = parse_options(__doc__, rows=3000, epochs=2, rounds=3, seeds=3)
    small = members_module.MAX_STACKED_PARAMETERS
    corpus, inputs = experiment_of(options.rows, 7, 384)
    print(describe("cpu"))
    print(f"{options.rows:,} pairs, {options.epochs} epochs, {options.rounds} rounds,", end=" ")
    print("arms interleaved; seconds (min-max)")
    print(f"{'probe':>24}{'members':>9}{'largest':>12}{'apart':>20}{'together':>20}{'apart / together':>18}", end="")
    print(f"{'ours':>10}{'differ':>10}")
    for name, spec in PROBES.items():
        members = members_of(inputs, corpus, spec, options.epochs, options.seeds)
        largest = max(
            sum(part.numel() for part in members_module.initial_probe(member).parameters()) for member in members
        )
        took: dict[str, list[float]] = {arm: [] for arm in ARMS}
        values: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for arm, times in took.items():
                one, values[arm] = seconds(arm, members)
                times.append(one)
        shown = {arm: f"{np.median(times):.1f} ({min(times):.1f}-{max(times):.1f})" for arm, times in took.items()}
        ratio = np.median(took["apart"]) / np.median(took["together"])
        differ = np.abs(np.subtract(values["apart"], values["together"])).max()
        ours = "together" if largest <= small else "apart"
        print(f"{name:>24}{len(members):9}{largest:12,}{shown['apart']:>20}{shown['together']:>20}", end="")
        print(f"{ratio:18.2f}{ours:>10}{differ:10.1e}")


if __name__ == "__main__":
    main()
