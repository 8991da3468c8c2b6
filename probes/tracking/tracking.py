"""Tracking: hears the events of a run, as the log of events does, and tells them to the trackers of its recipe.

A tracker that fails is left out with a note; nothing that a tracker does ends a training or changes its result.
"""

import json
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import Terminated, first_line
from permafrost.data.progress import Progress, Receive
from permafrost.data.spec import to_toml
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.read_result import read_metrics
from permafrost.probes.results.run_folder import RunError, RunFolder
from permafrost.probes.tracking.registry import TRACKERS
from permafrost.probes.tracking.series import WHOLE, Parameter, Series, Status, TrackedRun, Tracker, series_name
from permafrost.probes.tracking.tensorboard import FOLDER
from permafrost.probes.tracking.values import FinalMetrics, epoch_values, parameters_of

TOKEN_FILE = "tracking.json"  # noqa: S105  no password
"""File that tells the process which continues a run what trackers know it by."""


class Tracking:
    """The trackers of one run, a context that ends them; they begin with :meth:`start`, or the first training."""

    def __init__(self, name: str, kind: str, recipe: Recipe, folder: Callable[[], Path], progress: Progress) -> None:
        """Begin nothing yet.

        Args:
            name: name of the run, without its number if it will get one.
            kind: ``experiment`` in the record.
            recipe: the resolved recipe of the run.
            folder: returns the folder of what is kept while the run trains; called once a training begins.
            progress: of the run.
        """
        self._name, self._kind, self._recipe, self._folder = name, kind, recipe, folder
        self._inner = progress
        self.progress: Progress = _TrackedProgress(progress, self.receive) if recipe.train.track else progress
        """Progress whose events reach the trackers too."""

        self._trackers: dict[str, Tracker] | None = None
        self._open: dict[str, Mapping[str, Any]] = {}
        """Series that have begun and not ended -> columns that name them."""

    def receive(self, name: str, **facts: Any) -> None:
        """Tell the trackers an event that concerns them."""
        trial = {"trial": facts["trial"]} if "trial" in facts else {}
        match name:
            case "resumed":
                for columns in facts["members"]:
                    self._begin(dict(columns) | trial, {})
            case "epoch":
                for columns, values in epoch_values(facts):
                    series = self._begin(dict(columns) | trial, {})
                    self._tell(lambda tracker: tracker.log(series, facts["epoch"], values))  # noqa: B023
            case "trial" if facts["state"] == "running":
                self._begin(trial, facts["params"])
            case "trial":
                value = {} if facts.get("value") is None else {"value": facts["value"]}
                status: Status = "finished" if facts["state"] in ("complete", "pruned") else "failed"
                self._finish(self._begin(trial, {}), value, {"state": facts["state"]}, status)
            case "measured":
                self._finish_run(Path(facts["run"]), facts["selected"])
            case "searched":
                self._settle(Path(facts["run"]))
                best = {"best_trial": str(facts["number"]), "run_folder": str(facts["run"])}
                self._finish(WHOLE, {"best_value": facts["value"]}, best, "finished")

    def folders(self) -> dict[str, Path]:
        """Return what the run folder gets of the trackers, name of a folder -> a folder to copy."""
        path = self._folder() / FOLDER if self._trackers is not None else None
        return {FOLDER: path} if path and path.is_dir() else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the series that are still open."""
        status: Status = "killed" if isinstance(error, KeyboardInterrupt | Terminated) else "failed"
        for name in [*filter(None, self._open), *([WHOLE] if WHOLE in self._open else [])]:
            self._finish(name, {}, {}, status if error else "finished")

    def _finish_run(self, path: Path, selected: str) -> None:
        """End all series with the figures of the run folder."""
        self.start()
        self._settle(path)
        final = FinalMetrics(read_metrics(RunFolder(path, RunError)), self._recipe, self._kind)
        tags = {"run_folder": str(path)}
        for name, columns in list(self._open.items()):
            if name != WHOLE:
                self._finish(name, final.of_training(columns), tags, "finished")
        tags |= {"selected": selected} if selected else {}
        self._finish(WHOLE, final.of_run(selected), tags, "finished")

    def _begin(self, columns: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Begin the series of a training if it has not begun, and return its name."""
        name = series_name(columns, self._recipe.plan.backbone)
        if name not in self._open:
            self.start()
            recipe = self._recipe.variant_recipes().get(columns.get("variant", ""), self._recipe)
            searched: dict[str, Parameter] = {
                key: value if isinstance(value, str | int | float) else json.dumps(value)
                for key, value in params.items()
            }
            series = Series(name=name, parameters=parameters_of(recipe) | searched | dict(columns), tags=self._tags)
            self._open[name] = columns
            self._tell(lambda tracker: tracker.begin(series))
        return name

    def start(self) -> None:
        """Begin the series of the run as a whole, with all trackers, if the recipe names any and it has not begun."""
        if self._trackers is not None or not self._recipe.train.track:
            return
        self._trackers = {}
        self._open[WHOLE] = {}
        folder, recipe = self._folder(), to_toml(self._recipe)
        for name in self._recipe.train.track:
            with _Guard(name, self._trackers, self._inner):
                run = TrackedRun(name=self._name, kind=self._kind, token=_token(folder), folder=folder, recipe=recipe)
                self._trackers[name] = TRACKERS[name](run)
        series = Series(name=WHOLE, parameters=parameters_of(self._recipe), tags=self._tags)
        self._tell(lambda tracker: tracker.begin(series))

    @property
    def _tags(self) -> dict[str, str]:
        return {"backbone": self._recipe.plan.backbone, "run": self._name, "experiment": self._kind}

    def _settle(self, path: Path) -> None:
        self._tell(lambda tracker: tracker.settle(path))

    def _finish(self, name: str, values: Mapping[str, float], tags: Mapping[str, str], status: Status) -> None:
        if self._open.pop(name, None) is not None:
            self._tell(lambda tracker: tracker.finish(name, values, tags, status))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        """Tell every tracker something; one that fails is left out from then on."""
        trackers = self._trackers or {}
        for name, tracker in list(trackers.items()):
            with _Guard(name, trackers, self._inner):
                what(tracker)


class _Guard(AbstractContextManager["_Guard"]):
    """Context in which a tracker works: its warnings are not shown, and its error leaves it out, with a note."""

    def __init__(self, name: str, trackers: dict[str, Tracker], progress: Progress) -> None:
        self._name, self._trackers, self._progress = name, trackers, progress
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> "_Guard":
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._warnings.__exit__(None, None, None)
        if not isinstance(error, Exception):
            return False
        self._trackers.pop(self._name, None)
        self._progress.note(
            f"{self._name} no longer follows this run ({type(error).__name__}: {first_line(error)}); the run goes on."
        )
        return True


class _TrackedProgress:
    """A :class:`Progress` whose events reach trackers too."""

    def __init__(self, progress: Progress, receive: Receive) -> None:
        self._progress, self._receive = progress, receive

    def note(self, message: str) -> None:
        """Show one line of text."""
        self._progress.note(message)

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar."""
        return self._progress.bar(label, total)

    def event(self, name: str, **facts: Any) -> None:
        """Record an event, and tell it to the trackers."""
        self._progress.event(name, **facts)
        self._receive(name, **facts)


def _token(folder: Path) -> str:
    """Return what trackers know a run by: that of the process before if there was one."""
    path = folder / TOKEN_FILE
    if path.is_file():
        return str(json.loads(path.read_text("utf-8"))["token"])
    token = uuid.uuid4().hex[:16]
    write_atomically(path, json.dumps({"token": token}).encode())
    return token
