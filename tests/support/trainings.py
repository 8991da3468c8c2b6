"""Members, probes and scorers made from a corpus and a recipe alone, without a workspace."""

from collections.abc import Sequence

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import NoProgress
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import MemberLayout
from permafrost.probes.objectives.heads import HEADS
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import TASKS, Problem, make_problem
from permafrost.probes.variants.members import MemberConfig, TrainedMember, stackable_groups
from permafrost.probes.variants.train_group import train_group


class ToyWorkspace:
    """What a training asks of a workspace, of one corpus and its latents, which are there already."""

    def __init__(self, inputs: ProbeInputs, corpus: Corpus) -> None:
        self._inputs, self._corpus = inputs, corpus
        self.progress, self.unfinished = NoProgress(), None

    def problem(self, recipe: Recipe) -> Problem:
        return make_problem(recipe, self._corpus)

    def inputs(self, recipe: Recipe, spec: CorpusSpec) -> ProbeInputs:
        return self._inputs


def member_config(
    recipe: Recipe,
    inputs: ProbeInputs,
    corpus: Corpus,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    variant: str = "toy",
) -> MemberConfig:
    """A member that reads some layers of its inputs, by default all of them."""
    return MemberConfig(
        variant=variant,
        recipe=recipe,
        problem=make_problem(recipe, corpus),
        inputs=inputs,
        layers=tuple(range(len(inputs.columns)) if layers is None else layers),
        seed=seed,
    )


def train_all(configs: Sequence[MemberConfig]) -> list[TrainedMember]:
    """The trained members, in the order of their configs; small ones of equal shape are trained in one program."""
    trained: dict[int, TrainedMember] = {}
    for group in stackable_groups(configs):
        members = train_group({PROBE: group}, group[0].config.recipe).members[PROBE]
        trained |= {id(untrained.config): member for untrained, member in zip(group, members, strict=True)}
    return [trained[id(config)] for config in configs]


def build(spec: ProbeSpec, kind: str, label_count: int, texts_per_row: int, layout: MemberLayout) -> Probe:
    """The probe with the head that a kind of task has by default, or that the spec names."""
    return HEADS[TASKS[kind].head(spec, texts_per_row)](spec, layout, texts_per_row, label_count)


def scorer_of(corpus: Corpus, split: str) -> Scorer:
    """The scorer of a split, also of a corpus that cannot be trained on."""
    return TASKS[corpus.kind].scorer(corpus, split)


def problem_of(corpus: Corpus) -> Problem:
    """The problem of a corpus that may have nothing to learn; all that is not named is the task's default."""
    task = TASKS[corpus.kind]
    return Problem(corpus=corpus, task=task, head=task.heads[0], loss=task.loss, metric=task.metric)
