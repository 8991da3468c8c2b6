"""A finished run that predicts new texts and is evaluated on labelled data; its backbone may lie elsewhere now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.data.progress import ProgressOption
from permafrost.data.store.identity import check_same_latents
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.display.choose import display_of
from permafrost.display.html import folder_html
from permafrost.named_runs import IfDone
from permafrost.probes.prediction.items import check_items, texts_of_items
from permafrost.probes.prediction.predictor import Predictor
from permafrost.probes.prediction.stored_texts import StoredTexts
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.load import load_tasks
from permafrost.stage_one import PlannedTexts
from permafrost.stages import check_backbone, make_extractor, with_backbone, with_device

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

    def texts_to_predict(
        self, items: Mapping[str, Sequence[tuple[str, ...]]], locations: Mapping[str, Sequence[str]]
    ) -> list[PlannedTexts]:
        """Return the texts that the predictions of some tasks read; errors are those of the predictions.

        Args:
            items: task -> its items.
            locations: task -> location of each item, for messages.
        """
        planned = list[PlannedTexts]()
        for task in items:
            check_items(self.tasks[task], items[task], locations[task])
            planned += self._planned(task, texts_of_items(self.tasks[task], items[task]))
        return planned

    def texts_to_embed(self, texts: Sequence[str], task: str = "") -> list[PlannedTexts]:
        """Return the texts that the vectors of texts read, each once."""
        return self._planned(self.task_to_embed(task), list(dict.fromkeys(texts)))

    def _planned(self, task: str, texts: Sequence[Text]) -> list[PlannedTexts]:
        run = self.tasks[task]
        check_backbone(run)
        planned = list[PlannedTexts]()
        for name, columns in self.columns_by_plan(task).items():
            layers = tuple(sorted({layer for layers in columns.values() for layer in layers}))
            read: dict[str, Any] = {"views": tuple(columns), "layers": layers}
            if not run.backbone_folder:
                identity = run.identities[name]
                read |= {"compute_dtype": identity.compute_dtype, "stored_dtype": identity.stored_dtype}
            plan = replace(run.capture_plan(name), **read)

            def read_from(store: LatentStore, name: str = name, backbone: str = plan.backbone) -> None:
                if not run.backbone_folder:
                    check_same_latents(store.identity, run.identities[name], str(run.path), backbone)
                self.read_by(task, name, StoredTexts(store))

            planned.append(PlannedTexts(plan, run.recipe.extraction, texts, read_from))
        return planned

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
