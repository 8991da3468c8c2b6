"""Lazy array of latents: one view of some layers of some texts, read from the store when it is used."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from permafrost.data.latents.html import facts_html, layers_text
from permafrost.data.latents.selection import select
from permafrost.data.latents.sources import LatentSource
from permafrost.data.latents.tables import layer_position, to_dataframe, to_xarray
from permafrost.data.store.block import Latents
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import key_name
from permafrost.data.text import Text

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


MOST_TEXTS = 3
"""Texts that a notebook shows."""


class LatentArray(NDArrayOperatorsMixin):
    """Array ``[layer, text, width]`` that reads of the store what is indexed, and nothing before.

    Indexing follows numpy and returns numpy arrays. numpy takes the whole array for one of its own
    (``np.asarray``, ``np.from_dlpack``), as do torch and jax by DLPack (``torch.from_dlpack``); arithmetic, and
    methods such as ``mean`` or ``astype``, read it first. Each of these reads the values anew.
    """

    def __init__(
        self,
        source: LatentSource,
        view: str,
        layers: Sequence[int],
        texts: Sequence[Text] | Keys | Callable[[], Sequence[Text] | Keys],
    ) -> None:
        """Read nothing yet.

        Args:
            texts: of the source, in its order, or their keys if they are not known; or a function that finds them.
        """
        self._source, self._given = source, texts
        self.view, self.layers = view, tuple(layers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of layers and texts, and the width."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values; float32 if the store has bfloat16, which numpy lacks."""
        return self._source.dtype

    @cached_property
    def _names(self) -> Sequence[Text] | Keys:
        return self._given() if callable(self._given) else self._given

    @property
    def texts(self) -> Sequence[Text] | None:
        """``[text]``, the texts; None if the store did not keep them."""
        return None if isinstance(self._names, np.ndarray) else self._names

    @property
    def ndim(self) -> int:
        """Number of axes: 3."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all values in memory, once they are read."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Latents]:
        return (self[layer] for layer in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source, self.view, self.layers, self._names)

    def __repr__(self) -> str:
        layers, texts, width = self.shape
        return (
            f"LatentArray({self.view}: {layers} layers, {texts:,} texts, width {width}; {self.dtype}, "
            f"{self._source.origin})"
        )

    def _repr_html_(self) -> str:
        return facts_html("LatentArray", self._facts)

    def _facts(self) -> dict[str, object]:
        """What the array is and where from; no latents and no kept texts are read."""
        layers, texts, width = self.shape
        facts: dict[str, object] = {"view": self.view, "layers": f"{layers:,}: {layers_text(self.layers)}"}
        facts |= {"texts": texts, "width": width, "dtype": f"{self.dtype}; {self.nbytes:,} bytes once read"}
        if not callable(self._given) and not isinstance(self._given, np.ndarray):  # an array of keys
            facts |= {f"text {number}": text for number, text in enumerate(self._given[:MOST_TEXTS])}
        return facts | {"from": self._source.origin}

    def __getitem__(self, key: Any) -> Any:
        selection = select(key, self.shape)
        return self._source.read(selection.layers, selection.texts)[selection.index]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("latents are read into a new array: copy=False is not possible.")
        values: NDArray[Any] = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(value) if isinstance(value, LatentArray) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __dlpack__(self, **options: Any) -> Any:
        return np.asarray(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # kDLCPU, known without reading

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):  # no protocol that hands out the memory of a copy
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(np.asarray(self), name)

    def dataframe(self, layer: int | None = None) -> "pd.DataFrame":
        """Return one layer as a table: a row for each text, indexed by the texts, and a column for each dimension.

        Args:
            layer: the layer by its number in the backbone, -1 for the last one here; None if there is only one.

        Raises:
            SpecError: there is no such layer, or it is not said which of several.
        """
        values = self[layer_position(layer, self.layers)]
        return to_dataframe(values, self.text_names(), "key" if self.texts is None else "text")

    def xarray(self) -> "xr.DataArray":
        """Return the values as an array of xarray with the dimensions layer, text and dimension.

        Raises:
            InputError: xarray is not installed.
        """
        return to_xarray(np.asarray(self), self.layers, self.text_names(), self.view)

    def text_names(self) -> list[str]:
        """Return what tables call the texts: the texts, or their keys in hex if the texts are not known."""
        if isinstance(self._names, np.ndarray):
            return list(map(key_name, self._names))
        return list(map(str, self._names))
