"""Number of distinct texts of a stream, in memory that does not grow: by the smallest of their digests.

Of digests that are evenly spread over 64 bits, the k-th smallest tells how many there are; the estimate has a standard
error of one part in the square root of k.
Source: Bar-Yossef et al., "Counting distinct elements in a data stream" (2002).
"""

import numpy as np
import xxhash
from numpy.typing import NDArray

MOST_EXACT = 1 << 16
"""Number of digests that are kept: so many distinct texts are counted exactly, more within about 0.4 %."""


class DistinctCount:
    """Count of the distinct texts among those added."""

    def __init__(self, kept: int = MOST_EXACT) -> None:
        self.is_exact = True
        self._kept, self._added = kept, list[int]()
        self._smallest: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def add(self, text: str) -> None:
        """Count a text."""
        self._added.append(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))
        if len(self._added) >= self._kept:
            self._merge()

    @property
    def count(self) -> int:
        """Number of distinct texts; an estimate if :attr:`is_exact` is false."""
        self._merge()
        if self.is_exact:
            return len(self._smallest)
        return round((self._kept - 1) * 2.0**64 / float(self._smallest[-1]))

    def __str__(self) -> str:
        count = self.count
        return f"{count:,}" if self.is_exact else f"about {count:,}"

    def _merge(self) -> None:
        smallest = np.unique(np.concatenate([self._smallest, np.array(self._added, np.uint64)]))
        self.is_exact = self.is_exact and len(smallest) <= self._kept
        self._smallest, self._added = smallest[: self._kept], []
