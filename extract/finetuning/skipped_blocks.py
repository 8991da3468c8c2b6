"""Skipped blocks: replacements of the blocks of a model that are not run, so that its forward pass can be run above."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from permafrost.extract.architecture.discover import hidden_states


@dataclass(frozen=True)
class BlockCall:
    """Call of a block in the forward pass of the whole model."""

    block: nn.Module
    returned: int | None
    """Number of values that it returned together; None if it returned hidden states alone."""


class SkippedBlock(nn.Module):
    """Replacement of a block that is not run: returns the states that it is given, or what the first block returned."""

    def __init__(self, call: BlockCall, repeats: bool) -> None:
        """Keep the settings of the block, such as the type of its attention, which the model asks for.

        Args:
            repeats: whether it returns :attr:`output`.
        """
        super().__init__()
        self.__dict__.update({key: value for key, value in vars(call.block).items() if not key.startswith("_")})
        self._returned, self._repeats = call.returned, repeats
        self.output: Any = None
        """What the first block returned in this forward pass."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what a block returns, with the hidden states among the arguments."""
        if self._repeats:
            return self.output
        states = hidden_states([*args, kwargs])
        return states if self._returned is None else (states, *[None] * (self._returned - 1))


@contextmanager
def recorded_calls(blocks: Sequence[nn.Module]) -> Iterator[list[BlockCall]]:
    """Record the calls of blocks in order."""
    calls: list[BlockCall] = []

    def leave(block: nn.Module, arguments: Any, output: Any) -> None:
        calls.append(BlockCall(block, len(output) if isinstance(output, tuple | list) else None))

    handles = [block.register_forward_hook(leave) for block in blocks]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def skip_blocks(model: nn.Module, calls: Sequence[BlockCall], kept: range, keep_first: bool) -> list[nn.Module]:
    """Replace, in place, the blocks of a model that no call in a range runs.

    Args:
        kept: of the calls.
        keep_first: keep the block of the first call too; replaced ones repeat its output.

    Returns:
        the distinct blocks of the model now.
    """
    run = {calls[number].block for number in (*kept, *range(keep_first))}
    paths = {module: path for path, module in model.named_modules()}
    blocks: dict[nn.Module, nn.Module] = {}
    for call in calls:
        if call.block not in run and call.block not in blocks:
            blocks[call.block] = SkippedBlock(call, repeats=keep_first)
            model.set_submodule(paths[call.block], blocks[call.block], strict=True)
        blocks.setdefault(call.block, call.block)
    return list(blocks.values())


def with_states(
    positional: tuple[Any, ...], named: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a block with other hidden states."""
    old = hidden_states([*positional, named])
    return (
        tuple(states if value is old else value for value in positional),
        {name: states if value is old else value for name, value in named.items()},
    )
