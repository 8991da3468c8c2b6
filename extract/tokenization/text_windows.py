"""Windows of texts of one segment: which tokens of a text run together, and in which window each token counts.

A window is what lies around the text (template and special tokens), and a stretch of the text's own tokens that begins
and ends where one of a second segment would (:mod:`permafrost.extract.tokenization.windows`). Each token counts once:
one that several windows hold, in the window whose nearer end is farthest from it, the earliest if equal, as the "max
context" of the SQuAD scripts of BERT (Devlin et al., 2019); what lies before the text in its first window, and what
lies behind it in its last.
"""

from dataclasses import dataclass

import numpy as np

from permafrost.data.ragged import Counts, concatenate_ranges, offsets_from_lengths


@dataclass(frozen=True, eq=False, kw_only=True)
class TextWindows:
    """Windows of several texts; a text that fits is one window of all of its tokens."""

    offsets: Counts
    """``[text + 1]``: text ``i`` has the windows ``offsets[i]:offsets[i + 1]``."""

    ranges: Counts
    """``[window, 2]``: the stretch of the text's tokens that only some windows hold, end excluded. The tokens before
    the first stretch of a text, and those behind the last, are in every window."""

    @property
    def counts(self) -> Counts:
        """``[text]``: number of windows."""
        return np.diff(self.offsets)

    @property
    def texts(self) -> Counts:
        """``[window]``: the text of each window."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def select(self, texts: Counts) -> "TextWindows":
        """Return the windows of some texts, in the order given."""
        counts = self.counts[texts]
        return TextWindows(
            offsets=offsets_from_lengths(counts), ranges=self.ranges[concatenate_ranges(self.offsets[texts], counts)]
        )

    def pieces(self, lengths: Counts) -> tuple[Counts, Counts]:
        """Return where each window's tokens are in its text: first token and number, ``[window, 3]`` each.

        The three pieces are what lies before the text, the stretch, and what lies behind the text.

        Args:
            lengths: ``[text]``, number of tokens.
        """
        start, stop = self.ranges.T
        before = start[self.offsets[:-1]][self.texts]
        end = stop[self.offsets[1:] - 1][self.texts]
        starts = np.stack([np.zeros_like(start), start, end], 1)
        return starts, np.stack([before, stop - start, lengths[self.texts] - end], 1)

    def counted(self, lengths: Counts) -> Counts:
        """Return the range of its text's tokens that count in each window, ``[window, 2]``, end excluded.

        Args:
            lengths: ``[text]``, number of tokens.
        """
        start, stop = self.ranges.T
        borders = (start[1:] + stop[:-1] + 1) // 2
        low, high = np.append(0, borders), np.append(borders, 0)
        low[self.offsets[:-1]], high[self.offsets[1:] - 1] = 0, lengths
        return np.stack([low, high], 1)
