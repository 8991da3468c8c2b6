"""In tests and the programs they start: the folders of a checkout are no packages of their own."""

import sys
from importlib.abc import MetaPathFinder

BANNED = ("data", "extract", "probes")


class Refusal(MetaPathFinder):
    """Raises where a top-level package is imported under the name of its folder."""

    def find_spec(self, fullname, path=None, target=None):
        """Never finds anything; refuses a banned name."""
        if fullname in BANNED:
            raise ImportError(f"import permafrost.{fullname}, not {fullname}: it would be a second copy of it")


def refuse_top_level_packages() -> None:
    """Refuse them from now on; once is enough."""
    if not any(isinstance(finder, Refusal) for finder in sys.meta_path):
        sys.meta_path.insert(0, Refusal())


refuse_top_level_packages()
