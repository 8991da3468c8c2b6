"""Schemas of the tables of a run folder: the columns of each csv file."""

import re

from permafrost.data.corpora.records import Kind
from permafrost.probes.results.files import Schema

SCHEMAS: dict[str, Schema] = {
    "metrics": Schema(
        ("variant", "backbone", "view", "task", "split", "metric"), ("layer", "value", "low", "high", "n", "seed")
    ),
    "predictions": Schema(("target",), ("seed",)),
    "training": Schema(("variant", "phase"), ("seed", "epoch", "loss", "value"), ("task",), ("weight",)),
    "autoencoder": Schema(("variant", "plan", "view"), ("seed", "layer", "norm", "loss", "unexplained")),
    "latents": Schema(("plan", "view", "method", "label", "text"), ("layer", "x", "y", "z")),
    "ablation": Schema(
        ("kind", "name", "layers", "control", "split", "metric"),
        ("value", "low", "high", "p", "n", "parameters", "seed"),
    ),
    "trials": Schema(("state",), ("number", "value", "seconds")),
    "intermediate": Schema((), ("trial", "step", "value")),
    "importances": Schema(("parameter",), ("importance",)),
    "breakdown": Schema(("variant", "split", "kind", "group", "metric"), ("value", "low", "high", "n")),
    "layers": Schema(
        ("task", "corpus", "control", "split", "metric"),
        ("layer", "value", "low", "high", "n", "parameters", "seconds"),
    ),
    "variants": Schema(("variant",), ("trained", "parameters", "saved", "seconds", "memory")),
    "epochs": Schema(("variant", "task", "metric"), ("seed", "epoch", "value")),
    "conflicts": Schema(("variant", "first", "second"), ("seed", "epoch", "cosine", "conflict")),
    "frozen": Schema(("variant", "component"), ("seed", "epoch")),
    "confusion": Schema(("variant", "target", "label"), ("n",)),
    "comparisons": Schema(("task", "split", "metric", "variant", "against"), ("difference", "low", "high", "p", "n")),
}
"""Table name -> schema; the file is ``<name>.csv``."""

PREDICTED: dict[str, tuple[Kind, Schema]] = {
    "answer": (
        "answers", Schema(("question", "context", "answer"), ("start", "end", "score", "exact_match", "f1"))
    ),
    "word": ("tags", Schema(("sentence", "word", "label"))),
    "label": ("class", Schema()),
    "score": ("score", Schema((), ("target", "score"))),
}  # fmt: skip
"""Column that identifies the kind of predictions -> kind of the labels, and schema of ``predictions.csv``."""

TAG = re.compile(r"O|[BI]-.+", re.DOTALL)
"""An IOB2 tag."""

RESULTS = ("metrics", "ablation", "trials", "layers")
"""Tables of which every finished run has at least one."""
