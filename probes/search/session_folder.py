"""Folder of a session for what its workers share; sessions of several hosts that see one file system have one each."""

import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from permafrost.data.atomic import file_lock
from permafrost.data.errors import InputError


class StudyRunningError(InputError):
    """A study that another process runs."""


@contextmanager
def own_folder(folder: Path, name: str, for_many: bool) -> Iterator[Path]:
    """Make an empty folder that no other session uses, and remove it afterwards.

    Args:
        folder: folder of the study.
        name: name of the study.
        for_many: whether sessions of several hosts, which may see the same folder, run the study at once.

    Raises:
        StudyRunningError: another session runs the study, which is for one at a time.
    """
    host = f"-{re.sub(r'[^0-9A-Za-z.]', '_', platform.node())}-" if for_many else ""
    for slot in count():
        own = f"{host}{slot}" if for_many else ""
        with file_lock(folder / f"lock{own}", wait=False) as free:
            if free:
                path = folder / f"shared{own}"
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(parents=True)
                try:
                    yield path
                finally:
                    shutil.rmtree(path, ignore_errors=True)
                return
        if not for_many:
            raise StudyRunningError(f"study '{name}' is running already: wait or stop it; --dashboard shows it.")
