"""The trackers by name, and the check that what a recipe names is installed; nothing here imports a tracker."""

from collections.abc import Callable
from importlib.util import find_spec

from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.tracking.mlflow import MLflow
from permafrost.probes.tracking.series import TrackedRun, Tracker
from permafrost.probes.tracking.tensorboard import TensorBoard
from permafrost.probes.tracking.wandb import WeightsAndBiases

TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Name in ``train.track``, which is also that of the package and of the extra -> the tracker."""


def check_trackers(recipe: Recipe) -> None:
    """Raise a :class:`SpecError` if a tracker of a recipe is not installed."""
    for name in recipe.train.track:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without an origin it is a folder of this name
            raise SpecError(f"train.track names {name!r}, which is not installed: pip install 'permafrost[{name}]'")
