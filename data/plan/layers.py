"""Selection of layers: all, a list, one, or a range; negative numbers count from the last."""

import re
from collections.abc import Sequence

from permafrost.data.spec import SpecError

LAYER_PATTERN = re.compile(r"all|(?P<first>-?\d+)(?:\.\.(?P<last>-?\d+))?")
"""Selection of layers in a recipe: ``all``, an index, or a range such as ``1..-1``."""


def check_layers(wanted: tuple[int, ...] | str) -> None:
    """Raise a :class:`SpecError` if ``wanted`` is not a valid selection of layers."""
    if isinstance(wanted, str) and not LAYER_PATTERN.fullmatch(wanted):
        raise SpecError(f"layers must be all, a list, or a range as 1..-1, got '{wanted}'.")
    if not wanted:
        raise SpecError("layers must name at least one.")
    if not isinstance(wanted, str) and len(set(wanted)) < len(wanted):
        raise SpecError(f"layers names one twice: {list(wanted)}.")


def resolve_layers(wanted: tuple[int, ...] | str, known: Sequence[int]) -> tuple[int, ...]:
    """Return the selected layers as sorted indices.

    Args:
        wanted: ``all``, a list, a single layer, or a range ``first..last`` that includes both ends.
        known: existing layers, ascending; negative indices in ``wanted`` count from its end.

    Raises:
        SpecError: a layer does not exist or is named twice, or a range is descending.
    """
    if wanted == "all":
        return tuple(known)
    if isinstance(wanted, str):
        match = LAYER_PATTERN.fullmatch(wanted)
        assert match
        first = _resolve_layer(int(match["first"]), known)
        last = _resolve_layer(int(match["last"]), known) if match["last"] else first
        if first > last:
            raise SpecError(f"the layers {wanted} go from {first} down to {last}.")
        return tuple(layer for layer in known if first <= layer <= last)
    resolved = sorted(_resolve_layer(layer, known) for layer in wanted)
    if len(set(resolved)) < len(resolved):
        raise SpecError(f"layers names one twice: {list(wanted)}.")
    return tuple(resolved)


def _resolve_layer(layer: int, known: Sequence[int]) -> int:
    if layer < 0 and -layer <= len(known):
        return known[layer]
    if layer not in known:
        consecutive = len(known) == known[-1] - known[0] + 1
        legal = f"{known[0]} to {known[-1]}" if consecutive else ", ".join(map(str, known))
        raise SpecError(f"layer {layer} is out of range: there are layers {legal}.")
    return layer
