"""A finished run that predicts new texts and is evaluated on labelled data; its backbone may lie elsewhere now."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from permafrost.data.progress import ProgressOption
from permafrost.display.choose import display_of
from permafrost.display.html import folder_html
from permafrost.named_runs import IfDone
from permafrost.probes.prediction.predictor import Predictor
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.load import load_tasks
from permafrost.stages import make_extractor, with_backbone, with_device

if TYPE_CHECKING:
    from permafrost.user_data import Data


class FinishedRun(Predictor):
    """Predictor of a finished run that can be evaluated too."""

    def __init__(self, path: Path, task: str = "", backbone: str = "", device: str = "") -> None:
        """Read a run folder; arguments as of :func:`permafrost.api.load`."""
        self.path, self._task, self._backbone, self._device = path, task, backbone, device
        tasks = load_tasks(path, task).items()
        runs = {name: with_backbone(with_device(run, device), backbone) for name, run in tasks}
        super().__init__(runs, make_extractor, display_of)

    def __repr__(self) -> str:
        return f"FinishedRun({self.path}: {', '.join(self.tasks)})"

    def _repr_html_(self) -> str:
        return folder_html(self.path, repr(self))

    def evaluate(
        self,
        data: "Data | Sequence[Data]" = None,
        *,
        columns: Sequence[str] = (),
        target: str = "",
        split: str = "",
        label_map: Mapping[str, str] | Iterable[str] = (),
        overrides: Iterable[str] = (),
        folder: Path | str = "runs",
        progress: ProgressOption = None,
        name: str = "",
        if_done: IfDone = "skip",
    ) -> RunResult:
        """Evaluate the run on labelled data and write a run folder; as :func:`permafrost.evaluation.evaluate`."""
        from permafrost.evaluation import evaluate

        return evaluate(
            self.path,
            data,
            columns=columns,
            target=target,
            split=split,
            label_map=label_map,
            task=self._task,
            backbone=self._backbone,
            overrides=[*([f"device={self._device}"] if self._device else []), *overrides],
            folder=folder,
            progress=progress,
            name=name,
            if_done=if_done,
        )
