"""Every balancer against equal weights, on a made-up pair of tasks whose losses are 100 times apart.

    python -m benchmarks.training.balancing

Both targets are sums of tanh features of the same inputs, some of which the two tasks have in common, and noise; the
first is in units ten times the second's. One hidden layer serves both, with fewer units than the two have features, so
they compete for it. Every seed draws features, rows and initial weights anew, the same for every arm. Every arm has the
same grid of learning rates, of which the best by the mean validation R2 of both tasks and all seeds is kept; test rows
are scored after that. What a balancer learns moves at its own default rate. "apart" trains a network of that size for
each task, which is what sharing is measured against.

Cosines are those of the two tasks' gradients by what they share, taken every tenth step of every arm and left out of
its seconds. A difference from equal weights is paired by seed; its 95 % interval is Student's.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks.machine import describe, parse_options
from permafrost.probes.balancing.gradients import gradient_cosines
from permafrost.probes.balancing.weighting import BALANCERS, make_balancer
from permafrost.probes.config.multitask import BalancingSpec

UNITS = {"large": 10.0, "small": 1.0}
RATES = (0.01, 0.03, 0.1, 0.2)
FIXED = {"large": 0.01, "small": 1.0}
APART = "apart"
WIDTH, OWN, COMMON, HIDDEN = 16, 6, 3, 10
"""Of the inputs; features that one task has to itself; features of both; units of the layer that serves both."""

BATCH, MEASURED_EVERY = 64, 10
ROWS = {"train": 1024, "validation": 1024, "test": 4096}
NOISE = 0.3


class Pair(nn.Module):
    """The shared layer, a head for each task, and the rows of one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shared = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(HIDDEN, 1) for task in UNITS})
        features = torch.randn(WIDTH, 2 * OWN + COMMON) * 2 / math.sqrt(WIDTH)
        reads = {"large": slice(0, OWN + COMMON), "small": slice(OWN, None)}
        signs = torch.where(torch.rand(2, OWN + COMMON) < 0.5, -1.0, 1.0)
        self.x = {split: torch.randn(rows, WIDTH) for split, rows in ROWS.items()}
        self.y: dict[str, dict[str, Tensor]] = {split: {} for split in ROWS}
        for (task, unit), sign in zip(UNITS.items(), signs, strict=True):
            for split, x in self.x.items():
                plain = torch.tanh(x @ features)[:, reads[task]] @ sign / math.sqrt((OWN + COMMON) / 2)
                self.y[split][task] = unit * (plain + NOISE * torch.randn(len(x)))

    def losses(self, split: str, rows: Tensor | slice, tasks: Mapping[str, str]) -> dict[str, Tensor]:
        """Mean squared error of each task."""
        code = self.shared(self.x[split][rows])
        return {task: (self.heads[task](code)[:, 0] - self.y[split][task][rows]).square().mean() for task in tasks}


@dataclass(kw_only=True)
class Outcome:
    """Of one training: figures by task, and what went on in it."""

    losses: dict[str, dict[str, float]] = field(default_factory=lambda: {split: {} for split in ROWS})
    explained: dict[str, dict[str, float]] = field(default_factory=lambda: {split: {} for split in ROWS})
    weights: dict[str, float] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)
    seconds: float = 0.0


def trained(balancer: str, tasks: Mapping[str, str], seed: int, rate: float, steps: int, outcome: Outcome) -> None:
    """Train the tasks on one shared layer and add what came of it to the outcome."""
    pair = Pair(seed)
    draws = torch.Generator().manual_seed(seed)
    shared = list(pair.shared.parameters())
    spec = BalancingSpec(balancer=balancer, weights={task: FIXED[task] for task in tasks})
    balance = make_balancer(spec, tasks, shared, True, torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW([{"params": list(pair.parameters()), "lr": rate}, *balance.groups()])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for step in range(steps):
        rows = torch.randint(ROWS["train"], (BATCH,), generator=draws)
        if step % MEASURED_EVERY == 0:
            outcome.cosines += gradient_cosines(pair.losses("train", rows, tasks), shared).values()
        started = time.perf_counter()
        optimizer.zero_grad()
        outcome.weights |= balance.backward(pair.losses("train", rows, tasks), shared).weights
        optimizer.step()
        schedule.step()
        outcome.seconds += time.perf_counter() - started
    with torch.no_grad():
        for split in ROWS:
            for task, loss in pair.losses(split, slice(None), tasks).items():
                outcome.losses[split][task] = loss.item()
                outcome.explained[split][task] = 1 - (loss / pair.y[split][task].var(correction=0)).item()


def of_arm(arm: str, seed: int, rate: float, steps: int) -> Outcome:
    """One training of both tasks, or one of each."""
    outcome = Outcome()
    for tasks in [[task] for task in UNITS] if arm == APART else [list(UNITS)]:
        trained("equal" if arm == APART else arm, dict.fromkeys(tasks, "mse"), seed, rate, steps, outcome)
    return outcome


def best_rate(by_rate: Mapping[float, list[Outcome]]) -> float:
    """The learning rate with the greatest mean validation R2."""

    def explained(rate: float) -> np.floating:
        return np.mean([list(outcome.explained["validation"].values()) for outcome in by_rate[rate]])

    return max(by_rate, key=explained)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    return f"{np.mean(values):.{digits}f} ±{np.std(values, ddof=1):.{digits}f}"


def line_of(arm: str, rate: float, outcomes: list[Outcome]) -> str:
    """A row of the table."""
    cells = [f"{arm:>12}{rate:>6}"]
    for task, digits in (("large", 2), ("small", 4)):
        cells.append(f"{spread([outcome.losses['validation'][task] for outcome in outcomes], digits):>17}")
    cells += [f"{spread([outcome.explained['test'][task] for outcome in outcomes], 3):>15}" for task in UNITS]
    cells += [f"{np.mean([outcome.weights[task] for outcome in outcomes]):9.3f}" for task in UNITS]
    cosines = np.array([cosine for outcome in outcomes for cosine in outcome.cosines])
    cells.append(f"{cosines.mean():9.2f}{(cosines < 0).mean():10.2f}" if len(cosines) else " " * 19)
    return "".join(cells) + f"{spread([outcome.seconds for outcome in outcomes], 2):>13}"


def verdict(arm: str, outcomes: list[Outcome], equal: list[Outcome]) -> str:
    """What an arm does to each task and to their mean, beside equal weights."""
    ours, theirs = ([list(outcome.explained["test"].values()) for outcome in some] for some in (outcomes, equal))
    by_seed = np.subtract(ours, theirs)  # [seed, task]
    clauses = []
    for what, differences in zip((*UNITS, "mean"), (*by_seed.T, by_seed.mean(1)), strict=True):
        mean = differences.mean()
        half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
        word = "not told apart" if abs(mean) <= half else "better" if mean > 0 else "worse"
        clauses.append(f"{what} {mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f}) {word}")
    return f"{arm:>12}  {'; '.join(clauses)}"


def main() -> None:
    """Print the table, and below it what each balancer does to either task."""
    options = parse_options(__doc__, seeds=6, steps=1000)
    torch.set_num_threads(1)  # faster for layers this small
    print(describe("cpu"))
    print(f"{ROWS['train']:,} training rows, {options.steps} joint steps of {BATCH}, {options.seeds} seeds;", end=" ")
    print(f"learning rate of {', '.join(map(str, RATES))};")
    print(f"fixed weighs {FIXED['large']} : {FIXED['small']}; mean ± standard deviation")
    arms = (*BALANCERS, APART)
    outcomes_of: dict[str, dict[float, list[Outcome]]] = {arm: {rate: [] for rate in RATES} for arm in arms}
    for seed in range(options.seeds):
        for rate in RATES:
            for arm, by_rate in outcomes_of.items():
                by_rate[rate].append(of_arm(arm, seed, rate, options.steps))
    print(f"{'':18}{'validation loss':>34}{'test R2':>30}{'weights at end':>18}{'gradients':>19}")
    print(f"{'':12}{'rate':>6}{'large':>17}{'small':>17}{'large':>15}{'small':>15}{'large':>9}{'small':>9}", end="")
    print(f"{'cosine':>9}{'conflict':>10}{'seconds':>13}")
    kept = {arm: (rate := best_rate(by_rate), by_rate[rate]) for arm, by_rate in outcomes_of.items()}
    for arm, (rate, outcomes) in kept.items():
        print(line_of(arm, rate, outcomes))
    print("test R2 beside equal weights:")
    for arm, (_, outcomes) in kept.items():
        if arm != "equal":
            print(verdict(arm, outcomes, kept["equal"][1]))


if __name__ == "__main__":
    main()
