"""Schemas of the tables of a run folder: the columns of each csv file."""

from permafrost.probes.config.names import RECIPE
from permafrost.probes.results.files import Schema

SCHEMAS: dict[str, Schema] = {
    "metrics": Schema(
        ("variant", "against", "backbone", "corpus", "view", "subset", "control", "task", "split", "metric"),
        ("layer", "value", "low", "high", "p", "n", "seed"),
    ),
    "predictions": Schema(("target",), ("seed",)),
    "training": Schema(("variant", "phase"), ("seed", "epoch", "loss", "value"), ("task",), ("weight",)),
    "autoencoder": Schema(("variant", "plan", "view"), ("seed", "layer", "norm", "loss", "unexplained")),
    "latents": Schema(("plan", "view", "method", "label", "text"), ("layer", "x", "y", "z")),
    "trials": Schema(("state",), ("number", "value", "seconds")),
    "intermediate": Schema((), ("trial", "step", "value")),
    "importances": Schema(("parameter",), ("importance",)),
    "breakdown": Schema(("variant", "split", "kind", "group", "metric"), ("value", "low", "high", "n")),
    "epochs": Schema(("variant", "task", "metric"), ("seed", "epoch", "value")),
    "conflicts": Schema(("variant", "first", "second"), ("seed", "epoch", "cosine", "conflict")),
    "frozen": Schema(("variant", "component"), ("seed", "epoch")),
    "confusion": Schema(("variant", "target", "label"), ("n",)),
    "losses": Schema((), ("step", "loss")),
    "cosines": Schema(("backbone",), ("first", "second", "cosine")),
    "sentences": Schema(("text",), ("sentence",)),
    "maps": Schema(("map", "backbone", "method"), ("sentence", "x", "y", "z")),
}
"""Table name -> schema; the file is ``<name>.csv``."""

TASK_TABLES = ("predictions", "breakdown", "confusion")
"""Tables in the folder of one task of a multi-task run."""

NEEDED = {
    "run": ("metrics.csv",),
    "multitask": ("metrics.csv",),
    "layers": ("metrics.csv",),
    "ablation": ("metrics.csv",),
    "study": ("trials.csv",),
    "similarity": ("cosines.csv", "sentences.csv", "maps.csv"),
    "pretraining": ("losses.csv", "metrics.csv", RECIPE),
}
"""Experiment, as the record names it -> files that every finished run of it has."""
