"""Marks of tests that take long."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_first(cases: Iterable[Any]) -> list[Any]:
    """Return the cases of a test, of which all but the first are slow ones: a law that takes seconds to try."""
    first, *others = cases
    return [
        first,
        *(pytest.param(*(case if isinstance(case, tuple) else [case]), marks=pytest.mark.slow) for case in others),
    ]
