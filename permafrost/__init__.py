"""permafrost: frozen language models, their hidden states cached by layer, small probes trained on them.

    import permafrost as pf

    result = pf.run("sts", ["plan.backbone=minilm"])
    pf.load(result.path).predict([("A dog runs.", "A dog is running.")])

This package holds the interface and the command line; it may import every other one. Start reading at ``api.py``.
Stage one alone is ``permafrost.api.extract``; ``permafrost.extract`` is the sub-package.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from permafrost.api import ablate, load, pretrain, report, run, similarity, study, train
    from permafrost.evaluation import evaluate
    from permafrost.inspection import backbone, latents, look

__all__ = [
    "ablate",
    "backbone",
    "evaluate",
    "latents",
    "load",
    "look",
    "pretrain",
    "report",
    "run",
    "similarity",
    "study",
    "train",
]

MODULES = {"evaluate": "evaluation", "backbone": "inspection", "latents": "inspection", "look": "inspection"}
"""Name -> the module that has it, for those that ``api`` has not."""

if not (Path(__file__).parent / "data").exists():  # a checkout, where data, extract and probes lie beside this folder
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = MODULES.get(name, "api")
        return getattr(importlib.import_module(f"permafrost.{module}"), name)
    raise AttributeError(f"module 'permafrost' has no attribute '{name}'")
