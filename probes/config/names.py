"""TODO: probes/config/names.py."""

import re

PROBE = "probe"
"""The component of a training of one task."""

UNTRAINED = "raw"
"""What names of the untrained reference begin with."""

RANDOM_TARGETS = "random targets"
"""What an ablation calls its control on shuffled targets."""

PROBABILITY = "probability_"
"""What the columns of the probabilities of classes begin with; they are in the order of the corpus's labels."""

TASK_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
"""What a recipe may call a task; its folder and its figures are named by it."""

RECORD, RECIPE = "record.json", "recipe.toml"

CORRELATIONS = ("pearson", "spearman")
"""Metrics of scores that are correlations; undefined where a prediction is constant."""
