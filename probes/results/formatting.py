"""Formatting of results for the screen: metrics with intervals, durations, sizes."""

from collections.abc import Mapping, Sequence
from typing import Any


def reported_split(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the split to show: test if it was measured, else validation."""
    return "test" if any(row["split"] == "test" for row in rows) else "validation"


def format_metric(row: Mapping[str, Any]) -> str:
    """Format a metric with its interval, e.g. ``0.8418 [0.821, 0.861]``."""
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""
    return f"{row['value']:.4f}{interval}"


def format_duration(seconds: float) -> str:
    """Format a duration, e.g. ``4.2 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def format_size(count: float) -> str:
    """Format a number of bytes, e.g. ``740 MiB`` or ``1.3 GiB``."""
    mebibytes = count / 2**20
    return f"{mebibytes:,.0f}\u00a0MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f}\u00a0GiB"
