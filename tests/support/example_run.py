"""A finished run made up from nothing: every table a run folder can hold, with texts that would like to be markup."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from permafrost.probes.metrics.projection import project
from permafrost.probes.results.metric_row import COLUMNS
from permafrost.probes.results.run_folder import write_record
from permafrost.probes.tasks.registry import TASKS

EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'></script>{{ 7*7 }} $x^2$ <a href='http://evil.example/'>a</a>"
LAYERS = 7
VARIANTS = {"last": 0.71, "mix": 0.78, "mix <b>deep</b> & wide": 0.83}
SELECTED = "mix <b>deep</b> & wide"


def metrics(classes: bool = False) -> pd.DataFrame:
    """Raw by layer on three splits, three variants with two seeds."""
    rows = []
    names = ("accuracy", "macro_f1") if classes else ("pearson", "spearman")
    for split in ("train", "validation", "test"):
        for metric in names:
            if not classes:
                for view in ("mean", "last"):
                    for layer in range(LAYERS):
                        value = 0.45 + 0.2 * np.sin(layer / 3) + 0.05 * (view == "mean")
                        rows.append(("raw", view, layer, split, metric, value, value - 0.04, value + 0.03, 300, None))
            for name, value in VARIANTS.items():
                rows += [
                    (name, "mean", None, split, metric, value + d, None, None, 300, s)
                    for s, d in ((0, 0.01), (1, -0.01))
                ]
                rows.append((name, "mean", None, split, metric, value, value - 0.02, value + 0.02, 300, None))
    if not classes:
        rows += [(name, "mean", None, "test", "mae", 0.4, 0.3, 0.5, 300, None) for name in VARIANTS]
    columns = ["variant", "view", "layer", "split", "metric", "value", "low", "high", "n", "seed"]
    counts = [(name, "mean", None, "", "trained_parameters", 516_110, None, None, None, None) for name in VARIANTS]
    frame = long_table(pd.DataFrame([*rows, *counts], columns=columns), corpus="stsb", task="stsb")
    return frame.assign(task=frame["task"].where(frame["split"] != "", ""))


def long_table(frame: pd.DataFrame, **about: Any) -> pd.DataFrame:
    """Rows with all columns of ``metrics.csv``; those that they do not have are ``about``, or empty."""
    texts = dict.fromkeys(("variant", "against", "corpus", "view", "subset", "control", "task", "split", "metric"), "")
    numbers = dict.fromkeys(("layer", "value", "low", "high", "p", "n", "seed"))
    for name, value in (texts | numbers | {"backbone": "all-MiniLM-L6-v2"} | about).items():
        if name not in frame:
            frame[name] = value
    frame[["low", "high", "p"]] = frame[["low", "high", "p"]].astype(float)
    return frame[COLUMNS].astype({"layer": "Int64", "n": "Int64", "seed": "Int64"})


def texts(rows: int) -> list[str]:
    """Sentences; the first is hostile."""
    return [
        EVIL,
        "NA",
        *(f'A man plays the flute number {row}, "quietly".\r\nIn two lines.' for row in range(rows - 2)),
    ]


def predictions(classes: bool = False, rows: int = 120) -> pd.DataFrame:
    """Pairs with scores, or sentences with classes, of two seeds."""
    rng = np.random.default_rng(0)
    frames = []
    gold = rng.uniform(0, 5, rows).round(2)
    for seed in (0, 1):
        if classes:
            names = np.array(["negative", "<i>neutral</i>", "positive"])
            target = np.digitize(gold, [1.7, 3.4])
            predicted = np.where(rng.random(rows) < 0.8, target, rng.integers(0, 3, rows))
            odds = np.full((rows, 3), 0.1) + 0.7 * np.eye(3)[predicted]
            frame = pd.DataFrame({"sentence": texts(rows), "target": names[target], "label": names[predicted]})
            frames.append(frame.assign(**{f"probability_{n}": odds[:, i] for i, n in enumerate(names)}, seed=seed))
        else:
            score = np.clip(gold + rng.normal(0, 0.7, rows), 0, 5)
            score[0], gold[0] = 5, 0
            both = {"sentence1": texts(rows), "sentence2": texts(rows)[::-1]}
            frames.append(pd.DataFrame({**both, "target": gold, "score": score, "raw": score / 5, "seed": seed}))
    return pd.concat(frames)


def training() -> pd.DataFrame:
    """Two seeds of each variant, the chosen one pretrained."""
    rows = []
    for variant, top in VARIANTS.items():
        for seed in (0, 1):
            if variant == SELECTED:
                rows += [(variant, seed, "pretraining", e, 1 / e, None) for e in range(1, 9)]
            rows += [(variant, seed, "training", e, -np.log(e) - seed / 9, top - 0.2 / e) for e in range(1, 13)]
    return pd.DataFrame(rows, columns=["variant", "seed", "phase", "epoch", "loss", "value"])


def autoencoder() -> pd.DataFrame:
    rows = [
        (SELECTED, seed, "", "mean", layer, 1 + layer**2, 0.1 * layer**2, 0.4 - 0.03 * layer)
        for seed in (0, 1) for layer in range(LAYERS)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["variant", "seed", "plan", "view", "layer", "norm", "loss", "unexplained"])


def latents(classes: bool = False, points: int = 60) -> pd.DataFrame:
    """Two layers, projected."""
    rng = np.random.default_rng(0)
    frames = []
    for layer in (0, LAYERS - 1):
        frame = project(rng.normal(size=(points, 16)).astype(np.float32) + 3 * rng.integers(0, 2, (points, 1)))
        label = [("<i>neutral</i>", "positive")[row % 2] if classes else f"{row / 12:.2f}" for row in frame.index]
        about = {"plan": "", "view": "mean", "layer": layer, "label": label}
        frames.append(frame.assign(**about, text=[texts(points)[row] for row in frame.index]))
    return pd.concat(frames)[["plan", "view", "layer", "method", "x", "y", "z", "label", "text"]]


def calibration() -> pd.DataFrame:
    """Log loss and calibration error before and after a temperature."""
    rows = [
        (SELECTED, "test", stage, temperature, metric, value, value - 0.02, value + 0.02, 120)
        for stage, temperature, shift in (("uncalibrated", 1.0, 0.1), ("calibrated", 1.3, 0.0))
        for metric, value in (("log_loss", 0.8 + shift), ("ece", 0.05 + shift))
    ]
    columns = ["variant", "split", "stage", "temperature", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def reliability() -> pd.DataFrame:
    """A few bins of confidence of two stages."""
    rows = [
        (SELECTED, "test", stage, confidence, confidence - shift, 10 + index)
        for stage, shift in (("uncalibrated", 0.15), ("calibrated", 0.02))
        for index, confidence in enumerate((0.4, 0.6, 0.9))
    ]
    return pd.DataFrame(rows, columns=["variant", "split", "stage", "confidence", "accuracy", "n"])


def evaluation() -> tuple[pd.DataFrame, dict[str, Any]]:
    """Metrics and record of an evaluation of two runs on two data sets."""
    rows, about = [], {}
    for index, (run, data) in enumerate((run, data) for run in ("sst-1", "<b>nli</b>-2") for data in ("a.csv", EVIL)):
        rows.append((run, data, "test", "accuracy", 0.6 + 0.05 * index, 0.5, 0.9, None, 120, ""))
        rows.append((f"raw ({run})", data, "test", "accuracy", 0.4, 0.3, 0.5, None, 120, ""))
        about[f"{index + 1}-pair"] = {
            "run": run, "task": "", "data": data, "split": "test", "variant": "mix", "metric": "accuracy", "rows": 120,
            "left_out": index,
        }  # fmt: skip
    rows.append(("<b>nli</b>-2", "a.csv", "test", "accuracy", 0.1, 0.02, 0.2, 0.01, 120, "sst-1"))
    columns = ["variant", "corpus", "split", "metric", "value", "low", "high", "p", "n", "against"]
    named = record(True) | {"experiment": "evaluation", "selected": "", "evaluations": about}
    named |= {"tasks": {name: task_record("class") for name in about}, "probes": {}}
    return long_table(pd.DataFrame(rows, columns=columns)), named


def write_evaluation(folder: Path) -> Path:
    """The folder of an evaluation; of one pair, predictions and groups."""
    measured, named = evaluation()
    write_tables(folder, {"metrics": measured}, named)
    pair = folder / "tasks" / "1-pair"
    pair.mkdir(parents=True)
    tables = {"predictions": predictions(True), "breakdown": breakdown_of(["mix"], ("class",))}
    for name, table in (tables | {"calibration": calibration(), "reliability": reliability()}).items():
        table.to_csv(pair / f"{name}.csv", index=False, lineterminator="\n")
    write_record(folder, named)
    return folder


def write_evaluation_of_one(folder: Path) -> Path:
    """The folder of an evaluation of one run on one data set."""
    measured, named = evaluation()
    about = named["evaluations"]["1-pair"]
    own = (measured["corpus"] == about["data"]) & measured["variant"].str.contains(about["run"])
    variants = measured["variant"].replace({about["run"]: about["variant"]})
    measured = measured[own].assign(variant=variants, task="sentiment")
    named |= {"evaluations": {"1-pair": about}, "selected": about["variant"]}
    named |= {"tasks": {"probe": task_record("class")}, "metric": about["metric"]}
    tables = {"metrics": measured, "predictions": predictions(True), "breakdown": breakdown_of(["mix"], ("class",))}
    return write_tables(folder, tables | {"calibration": calibration(), "reliability": reliability()}, named)


SPLITS = {"": ("test", "train"), "untrained": ("test",), "random targets": ("train",)}
"""Where an ablation measures what."""

GROUPS = {
    "class": (["negative", "<i>neutral</i>", "positive"], ["precision", "recall", "f1"]),
    "label": (["late", "<i>refund</i>"], ["precision", "recall", "f1"]),
    "entity type": (["PER", "<b>LOC</b>"], ["precision", "recall", "f1"]),
    "pattern": (["negation", "no negation"], ["accuracy", "share_of_rows", "share_of_mistakes"]),
    "question word": (["what", "how many/how much", "other"], ["exact_match", "f1"]),
}


def breakdown() -> pd.DataFrame:
    """Every kind of group on two splits; the last group of each has no interval."""
    rows = []
    for split in ("validation", "test"):
        for kind, (groups, named) in GROUPS.items():
            for index, group in enumerate(groups):
                for column, metric in enumerate(named):
                    value = 0.4 + 0.1 * index + 0.05 * column
                    ends = (None, None) if index + 1 == len(groups) else (value - 0.03, value + 0.02)
                    rows.append((SELECTED, split, kind, group, metric, value, *ends, 100 - 40 * index))
    columns = ["variant", "split", "kind", "group", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def by_layer() -> pd.DataFrame:
    """Two tasks, every layer alone and all together, with controls."""
    rows = []
    for task, corpus, metric in (("ner <b>", "conll", "f1"), ("nli", "snli", "accuracy")):
        for control, where in SPLITS.items():
            for layer in (*range(LAYERS), None):
                about = (task, corpus, layer, "all" if layer is None else f"single {layer}", control)
                for split in where:
                    value = 0.3 + 0.05 * (layer or 0) + 0.2 * (control == "") + 0.1 * (split == "train")
                    rows.append((*about, split, metric, value, value - 0.02, value + 0.02, 300))
                    rows.append((*about, split, "another", 0.1, 0.0, 0.2, 300))
                rows.append((*about, "", "trained_parameters", 2000, None, None, None))
    columns = ["task", "corpus", "layer", "subset", "control", "split", "metric", "value", "low", "high", "n"]
    return long_table(pd.DataFrame(rows, columns=columns), variant="probe")


TAGGED = [
    # words, gold tags, predicted tags
    ("Anna met Bo Lind in Old Town .", "B-PER O B-PER I-PER O B-LOC I-LOC O", "B-PER O B-PER I-PER O B-LOC O O"),
    ("Lind went home , said Reuters .", "B-PER O O O O B-ORG O", "B-LOC O O O O O O"),
    ("<b>Oslo</b> is cold .", "B-LOC O O O", "B-LOC O O O"),
    ("Nobody saw Acme .", "O O O O", "O O B-ORG O"),
    ("It rained .", "O O O", "O O O"),
]


def tagged() -> pd.DataFrame:
    """Sentences with entities, a line a word, of two seeds; the second is always right."""
    rows = []
    for seed in (0, 1):
        for number, sentence in enumerate(TAGGED, 1):
            for word, gold, predicted in zip(*(column.split() for column in sentence), strict=True):
                rows.append((number, word, gold, gold if seed else predicted, seed))
    return pd.DataFrame(rows, columns=["sentence", "word", "target", "label", "seed"])


def label_sets() -> pd.DataFrame:
    """Messages with sets of two labels, of one seed: two are right, one of them without a label."""
    rows = [
        ("right", "late", "late", 0.8, 0.2),
        ("nothing", "", "", 0.1, 0.3),
        ("one too many", "late", "late, refund", 0.9, 0.7),
        ("one for another", "refund", "late", 0.6, 0.4),
        ("both are missed", "late, refund", "", 0.3, 0.1),
    ]
    columns = ["sentence", "target", "labels", "probability_late", "probability_refund"]
    return pd.DataFrame(rows, columns=columns).assign(seed=0)


CONTEXT = (
    f"The Nile is 6,650 km long. {EVIL} "
    + "It flows north through many lands. " * 20
    + "It ends near Cairo, at the sea."
)


def answered() -> pd.DataFrame:
    """Questions on one context: right, overlapping, elsewhere, unanswered."""
    questions = [
        ("How long is the Nile?", "6,650 km", "6,650 km", 3.0, 1, 1.0),
        ("Where does it end?", "near Cairo", "Cairo, at the sea", 1.0, 0, 0.3333),
        ("What flows?", "The Nile", "the sea", 2.0, 0, 0.5),
        ("Who <i>lives</i> there?", "many lands", "", -1.0, 0, 0.0),
    ]
    rows = []
    for question, gold, answer, score, exact, f1 in questions:
        start = CONTEXT.find(answer) if answer else 0
        rows.append((question, CONTEXT, gold, answer, start, start + len(answer), score, exact, f1, 0))
    columns = ["question", "context", "target", "answer", "start", "end", "score", "exact_match", "f1", "seed"]
    return pd.DataFrame(rows, columns=columns)


def ranking() -> pd.DataFrame:
    """Two queries with three passages each: one has its relevant passage first, the other last."""
    rows = [
        ("How long is the Nile?", "6,650 km", 2.0, 0.9, 1, 0),
        ("How long is the Nile?", CONTEXT, 1.0, 0.5, 2, 0),
        ("How long is the Nile?", "The sea is deep.", 0.0, 0.1, 3, 0),
        ("Who <i>lives</i> there?", "many", 0.0, 0.9, 1, 0),
        ("Who <i>lives</i> there?", "few", 0.0, 0.8, 2, 0),
        ("Who <i>lives</i> there?", "Crocodiles <b>do</b>.", 1.0, 0.3, 3, 0),
    ]
    return pd.DataFrame(rows, columns=["query", "passage", "target", "score", "rank", "seed"])


def ablation() -> pd.DataFrame:
    """Every kind of subset, two views and two backbones, with controls and differences to the last layer."""
    rows = []
    layers = range(LAYERS)
    subsets = ["all", *(f"single {k}" for k in layers), *(f"prefix 0-{k}" for k in layers)]
    subsets += [f"suffix {k}-{LAYERS - 1}" for k in layers]
    subsets += ["greedy " + ",".join(map(str, range(k + 1))) for k in layers]
    subsets += [f"without layer {layer}" for layer in layers]
    subsets += ["view mean", "view last"]
    for backbone in ("all-MiniLM-L6-v2", "another"):
        for index, subset in enumerate(subsets if backbone != "another" else ["all", "single 6"]):
            for control, top in (("", 0.7), ("untrained", 0.4), ("random targets", 0.1)):
                value = top + 0.002 * index
                layer = int(subset.split()[1]) if subset.startswith("single") else None
                about = (backbone, layer, subset, control)
                rows.append((*about, "", "", "trained_parameters", 385, None, None, None, None, None))
                for split in SPLITS[control]:
                    on = (*about, "", split, "pearson")
                    rows.append((*on, value, value - 0.03, value + 0.03, None, 300, None))
                    rows.append((*on, None, None, None, None, 300, 0))
                    difference = (*about, "single 6", split, "pearson")
                    rows.append((*difference, value - 0.714, value - 0.73, value - 0.7, 0.01, 300, None))
    columns = ["backbone", "layer", "subset", "control", "against", "split", "metric", "value", "low", "high", "p"]
    return long_table(pd.DataFrame(rows, columns=[*columns, "n", "seed"]), variant="probe", corpus="stsb", task="stsb")


def study() -> dict[str, pd.DataFrame]:
    """Twelve trials, some pruned and one failed."""
    rng = np.random.default_rng(0)
    states = ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "FAIL", "COMPLETE"] * 2
    value = [0.6 + 0.02 * k + 0.05 * rng.random() if state == "COMPLETE" else None for k, state in enumerate(states)]
    trials = {"number": range(12), "state": states, "value": value, "seconds": 3.5, "train.learning_rate": 0.001}
    steps = [(trial, step, 0.5 + 0.02 * step + 0.01 * trial) for trial in range(12) for step in range(1, 6)]
    return {
        "trials": pd.DataFrame({**trials, "unexplained": rng.random(12)}),
        "intermediate": pd.DataFrame(steps, columns=["trial", "step", "value"]),
        "importances": pd.DataFrame({"parameter": ["train.learning_rate", "probe.code"], "importance": [0.7, 0.3]}),
    }


def together(
    tasks: Mapping[str, str], variants: Sequence[str], epochs: int = 4, seeds: Sequence[int] = (0,)
) -> dict[str, pd.DataFrame]:
    """The tables of a run that trains tasks together: the values of a variant are those of the ones before, and 0.02.

    Args:
        tasks: name -> what it is: class, tags, answers or score.
        variants: the first two train every other task only.
    """
    metric_rows, trained, followed, compared = [], [], [], []
    for task_index, (task, kind) in enumerate(tasks.items()):
        split = "test" if task_index % 2 == 0 else "validation"
        for index, variant in enumerate(["raw", *variants]):
            if index in (1, 2) and len(tasks) > 1 and len(variants) > 2 and task_index % 2 != index - 1:
                continue
            for offset, metric in enumerate(METRICS_OF[kind]):
                value = 0.6 + 0.02 * index - 0.03 * offset
                view = "tokens" if kind in ("tags", "answers") else "mean"
                about = (variant, "all-MiniLM-L6-v2", view, None, task, split, metric)
                metric_rows.append((*about, value, value - 0.015, value + 0.012, 400, None))
                if index == 0:
                    continue
                metric_rows += [(*about, value, None, None, 400, seed) for seed in seeds]
                followed += [
                    (variant, seed, task, epoch, metric, value - 0.4 * 0.5**epoch + 0.01 * seed)
                    for seed in seeds for epoch in range(epochs + 1)
                ]  # fmt: skip
            if index:
                moves = 0.1 * ("gradnorm" in variant) * (1 if task_index else -1)
                trained += [
                    (variant, seed, "training", epoch, 2 / epoch - 0.1 * seed, value, task, 1 + moves * epoch)
                    for seed in seeds for epoch in range(1, epochs + 1)
                ]  # fmt: skip
        first = METRICS_OF[kind][0]
        baselines = (variants[task_index % 2 % len(variants)], "raw")
        compared += [
            (task, split, first, variants[-1], against, *figures)
            for against, figures in zip(baselines, COMPARED, strict=True)
        ]
    about = ["variant", "seed", "phase", "epoch", "loss", "value", "task", "weight"]
    columns = ["variant", "backbone", "view", "layer", "task", "split", "metric", "value", "low", "high", "n", "seed"]
    compares = ["task", "split", "metric", "variant", "against", "value", "low", "high", "p", "n"]
    return {
        "metrics": pd.concat(
            [
                long_table(pd.DataFrame(metric_rows, columns=columns)),
                long_table(pd.DataFrame(compared, columns=compares)),
                long_table(_costs(variants)),
            ]
        ),
        "epochs": pd.DataFrame(followed, columns=["variant", "seed", "task", "epoch", "metric", "value"]),
        "training": pd.DataFrame(trained, columns=about),
        "conflicts": _conflicts(list(tasks), variants, epochs, seeds),
        "frozen": pd.DataFrame(
            [(variants[0], seed, 2 * seed, next(iter(tasks))) for seed in seeds],
            columns=["variant", "seed", "epoch", "component"],
        ),
    }


def _conflicts(tasks: Sequence[str], variants: Sequence[str], epochs: int, seeds: Sequence[int]) -> pd.DataFrame:
    rows = [
        (variant, seed, epoch, first, second, 0.2 - 0.1 * epoch + 0.01 * index, 0.1 * epoch)
        for variant in variants if "gradnorm" in variant or "pcgrad" in variant
        for seed in seeds for epoch in range(1, epochs + 1)
        for index, (first, second) in enumerate(combinations(tasks, 2))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["variant", "seed", "epoch", "first", "second", "cosine", "conflict"])


def _costs(variants: Sequence[str]) -> pd.DataFrame:
    rows = [
        (name, metric, value)
        for index, name in enumerate(variants)
        for metric, value in {
            "trained_parameters": 3_000_000 * (index + 1),
            "parameters": 22_700_000,
            "saved_parameters": 22_500_000 * (index > 1),
        }.items()
    ]
    return pd.DataFrame(rows, columns=["variant", "metric", "value"])


METRICS_OF = {
    "class": ("accuracy", "macro_f1", "f1"),
    "tags": ("f1", "precision", "recall", "accuracy"),
    "answers": ("f1", "exact_match"),
    "score": ("spearman", "pearson"),
}
COMPARED = [(-0.004, -0.012, 0.005, 0.312, 400), (0.051, 0.031, 0.07, 0.0, 400)]
"""Difference, low, high, p, rows: one that may be chance, one that is not."""


def write_together(
    folder: Path, tasks: Mapping[str, str], variants: Sequence[str], epochs: int = 4, seeds: Sequence[int] = (0,)
) -> Path:
    """A run folder of several tasks, with the folder of each."""
    about = record(True) | {"selected": variants[-1], "metric": "mean", "probes": {}, "corpus": {}}
    about |= {"experiment": "multitask", "costs": costs(variants)}
    about |= {"tasks": {task: task_record(kind) for task, kind in tasks.items()}}
    made = together(tasks, variants, epochs, seeds)
    write_tables(folder, {name: table for name, table in made.items() if len(table)}, about)
    groups = {"class": ("class", "pattern"), "tags": ("entity type",), "answers": ("question word",), "score": ()}
    predicted = {"class": predictions(True), "tags": tagged(), "answers": answered(), "score": predictions()}
    for task, kind in tasks.items():
        task_folder = folder / "tasks" / task
        task_folder.mkdir(parents=True)
        predicted[kind].to_csv(task_folder / "predictions.csv", index=False, lineterminator="\n")
        of_task = made["metrics"][made["metrics"]["task"] == task]
        names = [variant for variant in variants if variant in set(of_task["variant"])]
        tables = {"breakdown": breakdown_of(names, groups[kind])} if groups[kind] else {}
        tables |= {"confusion": confusion(names)} if kind == "class" else {}
        for name, table in tables.items():
            table.to_csv(task_folder / f"{name}.csv", index=False, lineterminator="\n")
    write_record(folder, about)
    return folder


def task_record(kind: str) -> dict[str, Any]:
    """What the record says of one task."""
    task = TASKS[kind]
    return {"kind": kind, "reference": task.reference, "numbers": list(task.numbers)}


KIND_OF_COLUMN = {
    "rank": "rank",
    "word": "tags",
    "answer": "answers",
    "labels": "labels",
    "label": "class",
    "score": "score",
}
"""Column of a prediction table -> the kind of its rows; the first that is there."""


def costs(variants: Sequence[str]) -> dict[str, dict[str, float]]:
    """What the record says of the training of each variant."""
    return {name: {"seconds": 30.5 + 40 * index, "memory": 900 * 2**20} for index, name in enumerate(variants)}


def breakdown_of(variants: Sequence[str], kinds: Sequence[str]) -> pd.DataFrame:
    """The breakdown of several variants, each by a hundredth better than the one before."""
    table = breakdown()
    table = table[table["kind"].isin(kinds)]
    return pd.concat([table.assign(variant=name, value=table["value"] + n / 100) for n, name in enumerate(variants)])


def confusion(variants: Sequence[str]) -> pd.DataFrame:
    """Of two classes: the n-th variant takes n rows of the first for the second, and none the other way."""
    rows = [
        (name, *pair, count)
        for n, name in enumerate(variants)
        for pair, count in ((("<i>no</i>", "<i>no</i>"), 40 - n), (("<i>no</i>", "yes"), n), (("yes", "yes"), 20))
        if count
    ]
    return pd.DataFrame(rows, columns=["variant", "target", "label", "n"])


def record(classes: bool = False) -> dict[str, Any]:
    inputs = [{"plan": "", "view": view, "layers": list(range(LAYERS)), "width": 384} for view in ("mean", "last")]
    probe = {"inputs": inputs, "encoder": "linear", "codes": [96] * (2 * LAYERS), "depth": 1, "mixer": "softmax"}
    probe |= {"loss": "log_variance", "parameters": 516_110, "backbone_parameters": 22_713_216}
    return {
        "versions": {"python": "3.11", "torch": "2.13.0"}, "commit": "0123abc", "host": "here",
        "machine": "x86_64, 2 threads",
        "corpus": {"name": "stsb <b>", "rows": {"train": 5749, "validation": 1500, "test": 1379}},
        "texts": 17256, "texts_distinct": 15487, "texts_run": 0, "bytes": 333_000_000, "selected": SELECTED,
        "metric": "accuracy" if classes else "pearson", "parameters": {}, "seconds": {"training": 81.2, "all": 260.0},
        "probes": {name: probe | {"pretraining": "autoencoder" if name == SELECTED else ""} for name in VARIANTS},
    }  # fmt: skip


def write_tables(folder: Path, tables: dict[str, pd.DataFrame], about: dict[str, Any], recipe: str = "") -> Path:
    """A run folder of these tables; unless ``about`` has tasks, its record says of which kind the predictions are."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe or f'summary = "{EVIL}"\n', "utf-8")
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    kinds = [kind for column, kind in KIND_OF_COLUMN.items() if column in tables.get("predictions", ())]
    tasks = {"probe": task_record(kinds[0])} if kinds else {}
    write_record(folder, {"experiment": "run", "tasks": tasks} | about)
    return folder


def write_layers(folder: Path) -> Path:
    """A run folder of every task by every layer."""
    about = {"experiment": "layers", "costs": {task: {"seconds": 12.5} for task in ("ner <b>", "nli")}}
    return write_tables(folder, {"metrics": by_layer()}, about)


def every_table(classes: bool = False) -> dict[str, pd.DataFrame]:
    """All tables that one run or another has."""
    tables = {"metrics": metrics(classes), "predictions": predictions(classes), "training": training()}
    tables |= {"autoencoder": autoencoder(), "latents": latents(classes), "breakdown": breakdown()}
    tables |= {"calibration": calibration(), "reliability": reliability()} if classes else {}
    return tables | study() | {"losses": losses()}


def losses() -> pd.DataFrame:
    """The losses of a pretraining."""
    return pd.DataFrame({"step": range(1, 41), "loss": [5 / step for step in range(1, 41)]})


def example(folder: Path, experiment: str = "run", classes: bool = False) -> Path:
    """A run folder of an experiment, with every table that it may have."""
    tables = every_table(classes)
    needed = {
        "ablation": {"metrics": ablation()},
        "study": {name: tables[name] for name in study()},
        "pretraining": {"metrics": metrics(classes), "losses": losses()},
    }
    return write_tables(folder, needed.get(experiment, tables), record(classes) | {"experiment": experiment})
