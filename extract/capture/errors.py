"""Error of the self-check."""

import torch

from permafrost.data.errors import MachineError
from permafrost.data.machine import package_version


class SelfCheckError(MachineError):
    """Latents that differ from those of each text alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f'self-check: {reason}. These latents cannot be trusted and are not kept. Try extract.device = "cpu" or '
            'plan.compute_dtype = "float32"; if it stays, report this message: torch '
            f"{torch.__version__}, transformers {package_version('transformers')}."
        )
