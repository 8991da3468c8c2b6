"""Names that several sub-packages share: components, controls, files of a run folder, prefixes of its columns."""

import re

PROBE = "probe"
"""Component name of the probe in the training of a single task."""

UNTRAINED = "raw"
"""Prefix of the variant names of the untrained reference."""

RANDOM_TARGETS = "random targets"
"""Name of the ablation control that trains on shuffled targets."""

PROBABILITY = "probability_"
"""Prefix of the columns of class probabilities; they follow the order of the corpus's labels."""

TASK_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
"""A valid name of a task; the task's folder and its rows in the tables carry it."""

RECORD, RECIPE = "record.json", "recipe.toml"
"""Files of a run folder: the record of the run, and its recipe."""

BEST, JOURNAL = "best.toml", "journal.log"
"""Files in the folder of a study: the recipe of its best trial, and the journal of its trials."""

CORRELATIONS = ("pearson", "spearman")
"""Metrics of scores that are correlations; undefined if the predictions or the targets are constant."""
