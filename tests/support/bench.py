"""A small experiment to test with: made-up pairs, a tiny backbone, and the command line in this process or another."""

import contextlib
import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from permafrost.cli.exit_codes import run_guarded
from permafrost.cli.main import app
from tests.support.models.backbones import WORDS

ROOT = Path(__file__).parents[2]
FILES = {"recipe.toml", "record.json", "probe.safetensors", "figures", "report.html"}
FILES |= {"metrics.csv", "predictions.csv", "training.csv", "latents.csv"}
COLUMNS = [
    "variant", "against", "backbone", "corpus", "view", "layer", "subset", "control", "task", "split", "metric",
    "value", "low", "high", "p", "n", "seed",
]  # fmt: skip
SPLITS = ["train"] * 40 + ["validation"] * 15 + ["test"] * 15

Row = tuple[str, str, float, str]


def pairs(seed: int = 0) -> list[Row]:
    """Pairs of two to five words and the share of words they have in common; the last of each split is a twin."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for index, split in enumerate(SPLITS):
        first = list(rng.choice(WORDS, rng.integers(2, 6), replace=False))
        kept = first[: rng.integers(0, len(first) + 1)]
        second = (kept + list(rng.choice(WORDS, 5, replace=False)))[: rng.integers(2, 6)]
        if index + 1 == len(SPLITS) or SPLITS[index + 1] != split:
            second = first
        shared = len(set(first) & set(second)) / len(set(first) | set(second))
        rows.append((" ".join(first), " ".join(second), round(shared, 2), split))
    return rows


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A csv file, with the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class Bench:
    """A folder with cache, runs and corpora of its own, and a tiny backbone."""

    folder: Path
    backbone: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def settings(self, *more: str) -> list[str]:
        """Overrides that make any recipe small; later ones win."""
        return [
            f"plan.backbone={self.backbone}",
            "plan.max_tokens=32",
            "plan.compute_dtype=float32",
            f"extract.cache={self.folder / 'cache'}",
            "device=cpu",
            "train.epochs=3",
            "train.seeds=0",
            "pretraining.train.epochs=2",
            *more,
        ]

    def of_pairs(self, *more: str, rows: Sequence[Sequence[Any]] | None = None) -> list[str]:
        """Overrides for scored pairs of our own, which are written first."""
        path = write(
            self.folder / "pairs.csv", ["first", "second", "score", "split"], pairs() if rows is None else rows
        )
        return self.settings(f"corpus.path={path}", "corpus.columns=first,second,score", *more)

    def of_topics(self, *more: str, sides: int = 1) -> list[str]:
        """Overrides for one text or two with a class: whether the pair they come from has much in common."""
        names = ["sentence"] if sides == 1 else ["first", "second"]
        rows = [(*row[:sides], "same" if row[2] > 0.4 else "other", row[3]) for row in pairs()]
        path = write(self.folder / f"topics{sides}.csv", [*names, "label", "split"], rows)
        return self.settings(f"corpus.path={path}", f"corpus.columns={','.join(names)},label", *more)

    def of_named(self, *more: str) -> list[str]:
        """Overrides for the named corpora, of which small ones are written; ``PERMAFROST_DATA`` is to be the folder."""
        for split in ("train", "validation", "test"):
            rows = [row[:3] for row in pairs() if row[3] == split]
            write(self.folder / "stsb" / f"{split}.csv", ["sentence1", "sentence2", "score"], rows)
            labels = ("entailment", "neutral", "contradiction")
            fields = [{"premise": row[0], "hypothesis": row[1], "label": labels[at % 3]} for at, row in enumerate(rows)]
            self._write_gz(f"snli/{split}.jsonl.gz", map(json.dumps, fields))
        self._write_gz("genericskb/sentences.txt.gz", ["sentence", *(row[0] for row in pairs(seed=7))])
        return self.settings(*more)

    def of_other_texts(self, *more: str) -> list[str]:
        """Overrides for an encoder that is pretrained on sentences of our own."""
        path = write(self.folder / "sentences.csv", ["text"], [row[:1] for row in pairs(seed=7)])
        corpus = (f"pretraining.corpus.{key}" for key in ("name=", f"path={path}", "columns=text", "target=none"))
        return ["pretraining.task=autoencoder", *corpus, *more]

    def _write_gz(self, name: str, lines: Iterable[str]) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(gzip.compress("\n".join(lines).encode()))

    def command(self, *words: str, settings: Iterable[str] = ()) -> tuple[int, str, str]:
        """The command line in this process: exit code, stdout, stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_guarded(lambda: app(self._line(words, settings), standalone_mode=False))
        return code, out.getvalue(), err.getvalue()

    def process(self, *words: str, settings: Iterable[str] = (), before: str = "") -> "subprocess.Popen[str]":
        """The command line as a process of its own; ``before`` runs first in it."""
        line = ["pipeline.py", *self._line(words, settings)]
        heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background shell has it ignored
        program = (
            f"import resource, signal, sys\n{heard}\n{before}\nsys.argv = {line!r}\n"
            "from permafrost.cli.main import main\nmain()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _line(self, words: Sequence[str], settings: Iterable[str]) -> list[str]:
        verbs = ("run", "train", "pretrain", "ablate", "study")
        runs = ["--runs", str(self.runs)] if words[0] in verbs else []
        return [*words, *runs, *(word for setting in settings for word in ("--set", setting))]
