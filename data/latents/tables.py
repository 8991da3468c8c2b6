"""Tables of latents: a pandas table of one layer, and an array of xarray with names on its axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.errors import InputError
from permafrost.data.spec import SpecError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def layer_position(layer: int | None, layers: Sequence[int]) -> int:
    """Return the position of a layer among ``layers``, by its number or from the end; None is the only one.

    Raises:
        SpecError: there is no such layer, or it is not said which of several.
    """
    known = ", ".join(map(str, layers))
    if layer is None and len(layers) == 1:
        return 0
    if layer is None:
        raise SpecError(f"dataframe() shows one layer, and there are {len(layers)}: set layer to one of {known}.")
    if layer in layers:
        return layers.index(layer)
    if isinstance(layer, int | np.integer) and -len(layers) <= layer < 0:
        return len(layers) + layer
    raise SpecError(f"there is no layer {layer}: set layer to one of {known}.")


def to_dataframe(values: NDArray[Any], names: Sequence[str], index_name: str) -> "pd.DataFrame":
    """Return ``[text, width]`` as a table with a row for each text."""
    import pandas as pd

    columns = pd.RangeIndex(values.shape[1], name="dimension")
    return pd.DataFrame(values, index=pd.Index(names, name=index_name), columns=columns)


def to_xarray(values: NDArray[Any], layers: Sequence[int], names: Sequence[str], view: str) -> "xr.DataArray":
    """Return ``[layer, text, width]`` as an array of xarray; raise an :class:`InputError` if it is not installed."""
    try:
        import xarray as xr
    except ImportError as error:
        raise InputError("xarray() needs the package xarray: pip install 'permafrost[xarray]'.") from error
    coordinates = {"layer": list(layers), "text": np.array(names, object)}
    return xr.DataArray(values, coordinates, ("layer", "text", "dimension"), view)
