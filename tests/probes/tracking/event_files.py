"""Event files of a run as TensorBoard's own reader reads them."""

from pathlib import Path

Scalars = dict[str, dict[str, list[tuple[int, float]]]]
"""Folder below a run's event files, as TensorBoard names it -> tag -> steps and values."""


def scalars(folder: Path) -> Scalars:
    """The scalars of a run folder, or of any that has event files below ``tensorboard``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted({file.parent for file in (folder / "tensorboard").rglob("*tfevents*")}):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        found[str(path.relative_to(folder / "tensorboard"))] = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
    return found
