"""TensorBoard: event files in the folder of a run, a folder below it for each training.

Files are written without a thread of their own, and each event is on disk once it is logged: a killed run loses none.
"""

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.spec import fingerprint
from permafrost.probes.tracking.series import WHOLE, Series, Status, TrackedRun, Values

FOLDER = "tensorboard"
"""Folder of the event files, in the folder of the run."""


class TensorBoard:
    """Event files of the series of a run, which ``tensorboard --logdir runs`` shows."""

    def __init__(self, run: TrackedRun) -> None:
        self._run, self._root = run, run.folder / FOLDER
        self._names: dict[str, str] = {}
        """Series -> its folder below the root."""

        self._last: dict[str, dict[str, int]] = {}
        """Series -> tag -> last step."""

        self._file = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"

    def begin(self, series: Series) -> None:
        """Begin a series, with its parameters as hyperparameters and text."""
        if series.name in self._names:
            return
        self._names[series.name] = self._folder_name(series.name)
        self._last[series.name] = dict(_last_steps(self._root / self._names[series.name]))
        from tensorboard.plugins.hparams import metadata
        from torch.utils.tensorboard import summary

        if series.name == WHOLE:
            self._add_texts(series.name, {"recipe": f"```toml\n{self._run.recipe}\n```"} | dict(series.tags))
            return
        self._add_texts(series.name, {"parameters": _table(series.parameters)} | dict(series.tags))
        if metadata.SESSION_START_INFO_TAG not in self._last[series.name]:
            _, start, _ = summary.hparams(dict(series.parameters), {})
            self._write(series.name, [(0, start)])

    def log(self, name: str, step: int, values: Values) -> None:
        """Log metrics after an epoch."""
        from torch.utils.tensorboard.summary import scalar

        last = self._last[name]
        new = {tag: value for tag, value in values.items() if last.get(tag, -1) < step}
        self._write(name, [(step, scalar(tag, value)) for tag, value in new.items()])
        last.update(dict.fromkeys(new, step))

    def settle(self, path: Path) -> None:
        """Go on in the run folder, which has a copy of what was written."""
        if path != self._run.folder:
            self._root = path / FOLDER

    def finish(self, name: str, values: Values, tags: Mapping[str, str], status: Status) -> None:
        """End a series, with its final metrics at its last epoch."""
        if status != "killed":
            self.log(name, max([0, *self._last[name].values()]), values)
            self._add_texts(name, tags)

    def _add_texts(self, name: str, texts: Mapping[str, str]) -> None:
        from torch.utils.tensorboard.summary import text

        last = self._last[name]
        new = {tag: value for tag, value in texts.items() if f"{tag}/text_summary" not in last}
        self._write(name, [(0, text(tag, value)) for tag, value in new.items()])
        last.update({f"{tag}/text_summary": 0 for tag in new})

    def _write(self, name: str, summaries: Iterable[tuple[int, Any]]) -> None:
        """Append summaries, each with its step, to the file of this process."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self._root / self._names[name] / self._file
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            writer = RecordWriter(file)
            if not file.tell():
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for step, summary in summaries:
                writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())

    def _folder_name(self, name: str) -> str:
        """Return the folder of a series, which no other has."""
        folder = re.sub(r"[^\w.+=-]+", "_", name)
        return f"{folder}-{fingerprint(name)[:6]}" if folder in self._names.values() else folder


def _last_steps(folder: Path) -> Iterable[tuple[str, int]]:
    """Yield tag and step of everything in the event files of a folder, steps of a tag in ascending order."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found: dict[str, int] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag] = max(found.get(value.tag, 0), event.step)
    return found.items()


def _table(parameters: Mapping[str, Any]) -> str:
    return "\n".join(["| parameter | value |", "| --- | --- |", *(f"| {key} | {v} |" for key, v in parameters.items())])
