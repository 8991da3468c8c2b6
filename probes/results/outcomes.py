"""What the verbs return: the results of a run, an ablation, a study or a comparison of sentences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did."""

    path: Path
    """The run folder."""

    seconds: float
    texts: int
    """Texts that the corpus's rows hold, repeats counted."""

    texts_distinct: int
    texts_run: int
    """Texts that went through a backbone; 0 when all was cached."""

    selected: str
    """The variant chosen on validation; empty where a run trains layers on several tasks."""

    parameters: dict[str, int]
    """Numbers that each variant learnt, with one seed."""

    backbone_parameters: dict[str, int]
    """Numbers of the backbones that each variant reads."""

    metrics: list[dict[str, Any]]
    """The rows of ``metrics.csv``."""

    variants: list[dict[str, Any]] = field(default_factory=list)
    """The rows of ``variants.csv``, where tasks learnt together."""


@dataclass(frozen=True, kw_only=True)
class AblationResult:
    """What an ablation did."""

    path: Path
    """The run folder."""

    seconds: float
    texts: int
    texts_distinct: int
    texts_run: int
    metrics: list[dict[str, Any]]
    """The rows of ``ablation.csv``."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to."""

    study: str
    folder: Path
    trials: int
    """Trials that finished, complete or pruned, in all sessions."""

    refused: int
    """Trials whose settings could not be trained."""

    number: int
    """The best trial."""

    value: float
    params: dict[str, Any]
    """Its settings: dotted key -> value."""

    recipe: Path
    """The best trial as a recipe, with the seeds it is to be trained with."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class SimilarityResult:
    """Cosine similarities of sentences."""

    path: Path
    """The run folder."""

    cosines: "pd.DataFrame"
    """``backbone, first, second, cosine``: each pair once, ``first < second``, sentences counted from 1."""

    tables: "dict[str, pd.DataFrame]"
    """Backbone -> symmetric ``[sentence, sentence]``, ones on its diagonal."""

    texts: tuple[str, ...]
    backbones: tuple[str, ...]
    """Those that could be had."""

    refused: dict[str, str]
    """Backbone -> why it could not be had."""

    texts_run: int
    """Texts that went through a backbone; 0 when all was cached."""

    seconds: float
