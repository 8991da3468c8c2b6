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
    from permafrost.batches.run_batch import run_batch as batch
    from permafrost.data.plugin_registry import register
    from permafrost.data.plugins import Head, Loss, Metric, Pooling, Reader
    from permafrost.display.choose import show_progress
    from permafrost.evaluation import evaluate
    from permafrost.exporting import export_latents
    from permafrost.inspection import backbone, latents, look
    from permafrost.inspection import open_store as open  # noqa: A004  pf.open, as gzip.open

__all__ = [
    "Head",
    "Loss",
    "Metric",
    "Pooling",
    "Reader",
    "ablate",
    "backbone",
    "batch",
    "evaluate",
    "export_latents",
    "latents",
    "load",
    "look",
    "open",
    "pretrain",
    "register",
    "report",
    "run",
    "show_progress",
    "similarity",
    "study",
    "train",
]

ELSEWHERE = {
    **{part: f"data.plugins.{part}" for part in ("Head", "Loss", "Metric", "Pooling", "Reader")},
    "backbone": "inspection.backbone",
    "batch": "batches.run_batch.run_batch",
    "evaluate": "evaluation.evaluate",
    "export_latents": "exporting.export_latents",
    "latents": "inspection.latents",
    "look": "inspection.look",
    "open": "inspection.open_store",
    "register": "data.plugin_registry.register",
    "show_progress": "display.choose.show_progress",
}
"""Name -> module and function, if it is not one of :mod:`permafrost.api` with this name."""

if not (Path(__file__).parent / "data").exists():  # a checkout, where data, extract and probes lie beside this folder
    __path__.append(str(Path(__file__).parent.parent))


from permafrost.probes.results.outcomes import set_renderer  # noqa: E402


def _render(result: Any) -> str:
    return str(importlib.import_module("permafrost.display.html").result_html(result))


set_renderer(_render)


def __getattr__(name: str) -> Any:
    if name in __all__:
        module, _, function = ELSEWHERE.get(name, f"api.{name}").rpartition(".")
        return getattr(importlib.import_module(f"permafrost.{module}"), function)
    raise AttributeError(f"module 'permafrost' has no attribute '{name}'")
