"""Formatting of results for the terminal and the page: durations, sizes, shares and numbers."""

import math
import re


def format_duration(seconds: float) -> str:
    """Format a duration, e.g. ``4.2 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def unbroken_duration(seconds: float) -> str:
    """Format a duration whose numbers stand on the line of their units."""
    return re.sub(r"(?<=\d) ", "\u00a0", format_duration(seconds))


def format_size(count: float) -> str:
    """Format a number of bytes, e.g. ``740 MiB`` or ``1.3 GiB``."""
    mebibytes = count / 2**20
    return f"{mebibytes:,.0f}\u00a0MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f}\u00a0GiB"


def percent(share: float) -> str:
    """Format a share, e.g. ``2.27 %``; a smaller one than a hundredth of a percent as ``<0.01 %``."""
    if 0 < share < 1e-4:
        return "<0.01\u00a0%"
    return f"{100 * share:.3g}\u00a0%" if share < 1 else f"{100 * share:,.0f}\u00a0%"


def decimals(value: float, places: int) -> str:
    """Format a number with ``places`` decimals; a dash if it is missing."""
    return "–" if math.isnan(value) else f"{value:,.{places}f}"


def format_p(p: float) -> str:
    """Format a p-value; a dash if it is missing."""
    if math.isnan(p):
        return "–"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.001 else "<\u00a00.001"


def metric_title(metric: object) -> str:
    """Return the name of a metric as people write it."""
    return re.sub(r"\bf1\b", "F1", str(metric).replace("_", " "))
