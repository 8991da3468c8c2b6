"""Blocks of a request: how many texts are laid out in packs, run and committed together.

Nothing of a block outlives it, so a request of any number of texts takes the memory of one block.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from permafrost.data.progress import Eta, Progress
from permafrost.data.text import Text

NOTHING_RUN = "Nothing was run."
"""End of the message of a request that is refused before its first text runs."""


class TextBlock(NamedTuple):
    """Distinct texts that run together."""

    texts: list[Text]
    """In order of first appearance in the block; earlier blocks may have had some of them."""

    read: int
    """Number of texts that were read for it, repeated ones included."""

    is_last: bool


def text_blocks(texts: Iterable[Text], block_texts: int) -> Iterator[TextBlock]:
    """Yield blocks of at most ``block_texts`` distinct texts; a single one, without texts, if there are none."""
    block = dict[Text, None]()
    read = 0
    for text in texts:
        if len(block) == block_texts and text not in block:
            yield TextBlock(_taken(block), read, is_last=False)
            read = 0
        block[text] = None
        read += 1
    yield TextBlock(_taken(block), read, is_last=True)


def _taken(block: dict[Text, None]) -> list[Text]:
    """Return the texts of a block, and empty it: the generator is to hold none of them while they run."""
    texts = list(block)
    block.clear()
    return texts


class BlockProgress:
    """Progress of a request: one bar over all of its blocks. A request of one block has the bar of its run alone."""

    def __init__(self, progress: Progress, total: int | None, block: TextBlock, label: str) -> None:
        """Start with nothing done.

        Args:
            total: number of texts, repeated ones included; None if it is not known, and the bar then counts them.
            block: the first one.
            label: of the bar.
        """
        self.total, self.texts, self.read = total, 0, 0
        """Number of distinct texts in each of the blocks that are done, summed; and of texts read for them."""

        self._stack, self._advanced = ExitStack(), 0
        self._advance: Callable[[int], None] | None = None
        self._eta = Eta(progress, total) if total is not None and not block.is_last else None
        if not block.is_last:
            self._advance = self._stack.enter_context(progress.bar(label, total))

    def __enter__(self) -> "BlockProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def advance(self) -> Callable[[int], None] | None:
        """Function to call with the number of texts that a pack has run; None if a run is to show a bar itself."""
        return self._count if self._advance else None

    @property
    def what_is_safe(self) -> str:
        """A sentence for the message of an error in the block that runs."""
        if not self.texts:
            return NOTHING_RUN
        return (
            f"Nothing of this block was run; the {self.texts:,} texts of the blocks before it are stored, and the same "
            "command goes on from there."
        )

    def finish(self, block: TextBlock) -> None:
        """Count a block as done."""
        self.texts += len(block.texts)
        self.read += block.read
        if self._advance:
            self._advance(max(0, block.read - self._advanced))
        if self._eta:
            self._eta.advance(block.read)
        self._advanced = 0

    def _count(self, texts: int) -> None:
        assert self._advance
        self._advanced += texts
        self._advance(texts)
