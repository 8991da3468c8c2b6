"""End of a study: of the sessions that ran its trials, one writes the tables and trains the best trial again."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import StudyElsewhere


@contextmanager
def end_of_study(
    trial_log: TrialLog, name: str, folder: Path, before: Mapping[str, Any], again: bool
) -> Iterator[StudyElsewhere | None]:
    """Hold the right to write the end of a study, or yield who holds it, or has written it.

    An end counts as written once the context has ended without an error; until then, any session may begin it anew if
    the one that wrote it died. It is written again in the folder where it was written, as that of any study is if its
    command is repeated, and after further trials.

    Args:
        trial_log: the study, which has enough trials.
        name: its name.
        folder: its folder here.
        before: what was known of the end when this session began.
        again: write it here too if it was written elsewhere before this session began.
    """
    place = {"host": platform.node(), "folder": str(folder.resolve())}
    with trial_log.writing_end() as free:
        end = trial_log.read_end()
        written = bool(end.get("written")) and end["trials"] >= trial_log.finished
        elsewhere = not again and any(end.get(key) != value for key, value in place.items())
        if not free or (written and (end != before or elsewhere)):
            host, at = (str(end.get(key, "another session")) for key in place)
            yield StudyElsewhere(name, trial_log.finished, host, at, written and free)
            return
        facts = place | {"trials": trial_log.finished}
        trial_log.record_end(**facts, written=False)
        yield None
        trial_log.record_end(**facts, written=True)
