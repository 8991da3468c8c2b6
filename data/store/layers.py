"""TODO: data/store/layers.py."""

import re
from collections.abc import Sequence

from permafrost.data.spec import SpecError

LAYERS = re.compile(r"all|(?P<first>-?\d+)(?:\.\.(?P<last>-?\d+))?")


def check_layers(wanted: tuple[int, ...] | str) -> None:
    """Raise a :class:`SpecError` where ``wanted`` is no way to name layers."""
    if isinstance(wanted, str) and not LAYERS.fullmatch(wanted):
        raise SpecError(f"layers must be all, a list, or a range as 1..-1, got '{wanted}'.")
    if not wanted:
        raise SpecError("layers must name at least one.")
    if not isinstance(wanted, str) and len(set(wanted)) < len(wanted):
        raise SpecError(f"layers names one twice: {list(wanted)}.")


def resolve_layers(wanted: tuple[int, ...] | str, known: Sequence[int]) -> tuple[int, ...]:
    """Sorted layer indices.

    Args:
        wanted: ``all``, a list, a layer, or a range ``first..last`` with both ends in it.
        known: the layers there are, ascending; negative ones in ``wanted`` count from its last.

    Raises:
        SpecError: a layer is not among them, one is named twice, or a range falls.
    """
    if wanted == "all":
        return tuple(known)
    if isinstance(wanted, str):
        found = LAYERS.fullmatch(wanted)
        assert found
        first = _resolve(int(found["first"]), known)
        last = _resolve(int(found["last"]), known) if found["last"] else first
        if first > last:
            raise SpecError(f"the layers {wanted} go from {first} down to {last}.")
        return tuple(layer for layer in known if first <= layer <= last)
    resolved = sorted(_resolve(layer, known) for layer in wanted)
    if len(set(resolved)) < len(resolved):
        raise SpecError(f"layers names one twice: {list(wanted)}.")
    return tuple(resolved)


def _resolve(layer: int, known: Sequence[int]) -> int:
    if layer < 0 and -layer <= len(known):
        return known[layer]
    if layer not in known:
        there = f"{known[0]} to {known[-1]}" if len(known) == known[-1] - known[0] + 1 else ", ".join(map(str, known))
        raise SpecError(f"layer {layer} is out of range: there are layers {there}.")
    return layer
