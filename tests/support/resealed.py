"""A run folder that was changed on purpose: its record is made to fit, so that what is behind the digests is tested."""

import json
from pathlib import Path
from typing import Any

from permafrost.data.digests import DIGEST, DIGESTS, digests_of_files, with_digests
from permafrost.data.language.record import RECORD
from permafrost.probes.results.run_folder import write_record


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
