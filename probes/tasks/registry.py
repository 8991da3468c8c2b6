"""Registry of the kinds of tasks."""

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.probes.tasks.answers import Answering
from permafrost.probes.tasks.base import Task
from permafrost.probes.tasks.classes import Classification
from permafrost.probes.tasks.labels import MultiLabel
from permafrost.probes.tasks.scores import Similarity
from permafrost.probes.tasks.tagging import Tagging

TASKS: dict[str, Task] = {
    task.kind: task for task in (Similarity(), Classification(), MultiLabel(), Tagging(), Answering())
}
"""Kind of target -> task."""


def task_of(corpus: Corpus) -> Task:
    """Return the task of a corpus.

    Raises:
        CorpusError: the corpus has no targets, no training or validation rows, or nothing to learn.
    """
    if corpus.kind not in TASKS:
        kinds = f"{', '.join(list(TASKS)[:-1])} or {list(TASKS)[-1]}"
        raise CorpusError(f"{corpus.name}: it has no targets to learn; set corpus.target to {kinds}.")
    for split in ("train", corpus.selection_split):
        corpus.split(split)
    TASKS[corpus.kind].check(corpus)
    return TASKS[corpus.kind]
