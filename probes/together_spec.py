"""The settings of a training of several tasks together."""

from dataclasses import dataclass
from typing import Literal

from data.spec import SpecError


@dataclass(frozen=True)
class TogetherSpec:
    """How several tasks are trained."""

    batches: Literal["apart", "joint", "turns", "proportion", "temperature"] = "apart"
    """apart trains every layer alone on every task. The others train all tasks together on the blocks of [upper], each
    with a head of its own: joint takes a batch of every task in each step and adds their losses up as [balancing] says
    (a task with fewer rows begins anew); turns takes one task after the other; proportion shuffles all of their
    batches; temperature draws a task for each step, by its number of batches to the power of 1 / temperature."""

    temperature: float = 2.0
    """At 1 tasks are drawn by their batches; the higher, the more alike."""

    tasks: tuple[str, ...] = ()
    """Which of the tasks; empty takes all. A variant with one of them shows what it comes to alone."""

    keep: Literal["each", "one"] = "each"
    """Which state of the shared blocks is kept: each task's own, of the epoch that is its best; or one for all, of the
    epoch with the best mean of their metrics."""

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise SpecError(f"temperature must be 1 or more, got {self.temperature}.")
        if len(set(self.tasks)) < len(self.tasks):
            raise SpecError(f"tasks names one twice: {list(self.tasks)}.")
