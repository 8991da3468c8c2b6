"""Results that the commands return: of a run or an ablation, a study, or a comparison of sentences.

A notebook shows them as HTML, which the interface makes: the layers below it neither draw nor load what draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # pandas takes half a second to load, and commands that are refused do without
    import pandas as pd


_render: Callable[[Any], str] | None = None


def set_renderer(render: Callable[[Any], str]) -> None:
    """Set what makes HTML of a result; the interface does it when it is imported."""
    global _render
    _render = render


class Result:
    """Base of results: a notebook shows them as HTML."""

    def _repr_html_(self) -> str | None:
        return _render(self) if _render else None


@dataclass(frozen=True, kw_only=True)
class RunResult(Result):
    """Result of a run, or of an ablation: its folder, metrics and counts."""

    path: Path
    """The run folder."""

    seconds: float
    texts: int
    """Number of texts in the corpus's rows, repeats counted."""

    texts_distinct: int
    """Number of different texts."""

    texts_run: int
    """Number of texts that a backbone encoded; 0 if all were cached."""

    selected: str
    """The variant selected on validation; empty if layers are compared, not variants."""

    parameters: dict[str, int]
    """Variant -> number of trained parameters, for one seed."""

    backbone_parameters: dict[str, int]
    """Variant -> number of parameters of the backbones that it reads."""

    metrics: list[dict[str, Any]] = field(repr=False)
    """The rows of ``metrics.csv``."""


@dataclass(frozen=True, kw_only=True)
class StudyResult(Result):
    """Result of a study: its folder and its best trial."""

    study: str
    folder: Path
    trials: int
    """Number of complete or pruned trials, of all sessions."""

    refused: int
    """Number of trials whose settings could not be trained."""

    number: int
    """Number of the best trial."""

    value: float
    """Validation metric of the best trial."""

    params: dict[str, Any]
    """Searched settings of the best trial, dotted key -> value."""

    recipe: Path
    """Recipe file of the best trial, with the seeds of ``study.seeds``."""

    seconds: float


class StudyRun(NamedTuple):
    """A study, and the run of its best trial."""

    study: StudyResult
    best: RunResult

    def _repr_html_(self) -> str | None:
        return "".join(result._repr_html_() or "" for result in self) or None


@dataclass(frozen=True, kw_only=True)
class SimilarityResult(Result):
    """Cosine similarities of sentences."""

    path: Path
    """The run folder."""

    cosines: "pd.DataFrame" = field(repr=False)
    """Columns ``backbone, first, second, cosine``: each pair once, ``first < second``, sentences counted from 1."""

    tables: "dict[str, pd.DataFrame]" = field(repr=False)
    """Backbone -> symmetric ``[sentence, sentence]``, ones on its diagonal."""

    texts: tuple[str, ...]
    backbones: tuple[str, ...]
    """Backbones that were available."""

    refused: dict[str, str]
    """Unavailable backbone -> reason."""

    texts_run: int
    """Number of texts that a backbone encoded; 0 if all were cached."""

    seconds: float
