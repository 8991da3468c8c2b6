"""Error of the self-check."""

from importlib.metadata import version

import torch

from permafrost.data.errors import MachineError


class SelfCheckError(MachineError):
    """Latents that differ from those of each text alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f'self-check: {reason}. These latents cannot be trusted and are not kept. Try extract.device = "cpu" or '
            'plan.compute_dtype = "float32"; if it stays, report this message: torch '
            f"{torch.__version__}, transformers {version('transformers')}."
        )
