"""Folders that are damaged or changed on purpose, and what their readers make of it: flipped bits, new records."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from permafrost.data.digests import DIGEST, DIGESTS, digests_of_files, with_digests
from permafrost.data.errors import PermafrostError
from permafrost.data.language.record import RECORD
from permafrost.probes.results.run_folder import write_record
from permafrost.probes.runs.load import load_tasks


def flipped(folder: Path, times: int, seed: int = 0) -> Iterator[tuple[Path, int]]:
    """A file in which one bit differs, and which bit; put right before the next. All files are as likely."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for turn in range(times):
        path = files[turn] if turn < len(files) < times else rng.choice(files)
        content = path.read_bytes()
        bit = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        yield path, bit
        path.write_bytes(content)


def loaded(folder: Path) -> str:
    """All that answers depend on, of every task of a run, as text."""
    lines = []
    for task, run in load_tasks(folder).items():
        weights = {name: value.numpy().tobytes().hex() for name, value in run.probe.state_dict().items()}
        calibration = run.calibration and [array.tobytes().hex() for array in vars(run.calibration).values()]
        targets = (run.columns, run.labels, run.score_range, run.kind, run.texts_per_row, run.digests)
        lines.append(repr((task, run.recipe, dict(run.identities), weights, calibration, targets)))
    return "\n".join(lines)


def outcomes(folder: Path, times: int, *readers: Callable[[Path], str]) -> Counter[str]:
    """How often a reader refused a flipped bit and how often it read the same; anything else fails."""
    right = [read(folder) for read in readers]
    counted: Counter[str] = Counter()
    for path, bit in flipped(folder, times):
        for read, expected in zip(readers, right, strict=True):
            outcome = attempted(read, folder)
            if isinstance(outcome, PermafrostError):
                assert path.name in str(outcome), (path, bit, str(outcome))
                assert "\n" not in str(outcome)
                assert outcome.exit_code == (2 if "of another version" in str(outcome) else 3), str(outcome)
                counted[f"{read.__name__} refused"] += 1
            else:
                assert outcome == expected, (path, bit)
                counted[f"{read.__name__} same"] += 1
    assert [read(folder) for read in readers] == right
    return counted


def attempted(read: Callable[[Path], str], folder: Path) -> str | PermafrostError:
    """What is read of a folder, or why it is not."""
    try:
        return read(folder)
    except PermafrostError as error:
        return error


def resigned(model: Path, about: dict[str, Any]) -> None:
    """Have the record of a pretrained model say that it and the model's files are as they are now."""
    digests = digests_of_files(model, (path.name for path in model.iterdir() if path.name != RECORD))
    (model / RECORD).write_text(json.dumps(with_digests(about, digests)), "utf-8")


def resealed(folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Have a run and each of its tasks say that their files are as they are now.

    Args:
        about: what the record is to say in the place of what it says.
    """
    for record in [*folder.glob("tasks/*/record.json"), folder / "record.json"]:
        content = json.loads(record.read_text("utf-8"))
        if about is not None and record.parent == folder:
            content = about
        write_record(record.parent, {key: value for key, value in content.items() if key not in (DIGESTS, DIGEST)})
    return folder
