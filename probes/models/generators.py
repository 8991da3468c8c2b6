"""Random generators of the device of a training, from which modules draw."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def forked_generators(device: torch.device) -> Iterator[None]:
    """Restore afterwards the generators that modules draw from on the CPU and on a device."""
    generators = {id(generator): generator for generator in (torch.default_generator, default_generator(device))}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def default_generator(device: torch.device) -> torch.Generator:
    """Return the generator that modules without one of their own draw from, such as ``nn.Dropout``."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    if device.type == "mps":
        generator: torch.Generator = torch.mps._get_default_mps_generator()
        return generator
    return torch.default_generator
