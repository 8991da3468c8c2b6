"""Dropout of a model: where its probabilities are, and which of them are of attention weights."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

STEP = 1e-7
"""Difference of the probabilities by which dropouts are told apart."""


class _SeenRates(TorchFunctionMode):
    """Records the dropout probabilities of a forward pass over one text."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.hidden, self.attention = set[float](), set[float]()
        self._scores = (tokens, tokens)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``function``; note the probability if it drops something."""
        kwargs = kwargs or {}
        if function is nn.functional.scaled_dot_product_attention:
            self.attention.add(kwargs.get("dropout_p", 0.0))
        elif function is nn.functional.dropout:
            values: Tensor = kwargs["input"] if "input" in kwargs else args[0]
            rate = kwargs["p"] if "p" in kwargs else args[1]
            (self.attention if values.shape[-2:] == self._scores else self.hidden).add(rate)
        return function(*args, **kwargs)


def set_dropout(model: nn.Module, hidden: float, attention: float, run: Callable[[], object], tokens: int) -> None:
    """Set other dropout probabilities than the configuration's: of hidden states, and of attention weights.

    Args:
        run: run the model on one text.
        tokens: number of its tokens, another one than any width.
    """
    slots = list(_slots(model.modules()))
    before = [getattr(owner, name) for owner, name in slots]
    rates = [number * STEP for number in range(1, len(slots) + 1)]
    training = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _SeenRates(tokens) as seen:
        for (owner, name), rate in zip(slots, rates, strict=True):
            setattr(owner, name, rate)
        model.train()
        run()
    for module, mode in training.items():
        module.training = mode
    for (owner, name), old, rate in zip(slots, before, rates, strict=True):
        is_used = rate in seen.hidden or isinstance(owner, nn.Dropout)
        setattr(owner, name, attention if rate in seen.attention else hidden if is_used else old)


def _slots(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """Yield owner and name of each attribute that may be a dropout probability; that of whole layers is none."""
    for module in modules:
        if isinstance(module, nn.Dropout):
            yield module, "p"
        for name, value in vars(module).items():
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and "drop" in name
                and "layer" not in name
            ):
                yield module, name
