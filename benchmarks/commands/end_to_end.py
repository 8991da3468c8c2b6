"""``permafrost run sts`` cold, warm, and with 1 % new texts: seconds, peak memory, texts that ran.

    python -m benchmarks.commands.end_to_end

Each is a command in a process of its own; a round begins with an empty cache. The rows are those of the corpus, read
from a file, and in the last command one text in a hundred has a further word. The metrics of the warm
run are compared with those of the cold one, to the last digit.
"""

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.processes import Measured, command, measure, spread
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus

NEW = 0.01
"""Share of texts that are changed."""

COLUMNS = "first,second,score"


def write_pairs(path: Path, corpus: Corpus, texts: Sequence[Any]) -> None:
    """Write the scored pairs of a corpus, with other texts in the place of its own."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS.split(","), "split"])
        for split, rows in corpus.splits.items():
            for (first, second), score in zip(rows.texts, rows.targets, strict=True):
                writer.writerow([texts[first], texts[second], float(score), split])


def changed(texts: Sequence[Any]) -> list[str]:
    """The texts, one in a hundred with a further word."""
    given = [str(text) for text in texts]
    for index in np.random.default_rng(0).choice(len(given), max(1, round(NEW * len(given))), replace=False):
        given[index] += " today"
    return given


def run(data: Path, cache: Path, options: argparse.Namespace) -> Measured:
    """Run the recipe on a file."""
    settings = [f"extract.cache={cache / 'cache'}", f"plan.backbone={options.backbone}", *options.set]
    words = [word for setting in settings for word in ("--set", setting)]
    words += [word for name in options.only.split(",") if name for word in ("--only", name)]
    words += ["--runs", str(cache / "runs"), "--data", str(data), "--columns", COLUMNS, "--target", "score"]
    return measure(command, "run", options.recipe, *words)


def main() -> None:
    """Print a line per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="sts")
    parser.add_argument("--corpus", default="stsb", help="of scored pairs")
    parser.add_argument("--only", default="two-views", help="variants, with commas; empty for all")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    corpus = load_corpus(CorpusSpec(name=options.corpus))
    print(describe("cpu"))
    arms: dict[str, list[Measured]] = {"cold": [], "warm": [], "1 % new": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            old, new = Path(name) / "pairs.csv", Path(name) / "changed.csv"
            write_pairs(old, corpus, [str(text) for text in corpus.texts])
            write_pairs(new, corpus, changed(corpus.texts))
            for rounds, data in zip(arms.values(), (old, old, new), strict=True):
                rounds.append(run(data, Path(name), options))
    rows = sum(len(split) for split in corpus.splits.values())
    print(f"run {options.recipe}, {options.only or 'all variants'}, {options.backbone}; {rows:,} pairs of ", end="")
    print(f"{options.corpus}; {options.rounds} rounds, commands in turn; median (lowest-highest)")
    print(f"{'':10}{'seconds':>24}{'CPU seconds':>24}{'texts run':>12}{'peak MB':>20}{'metrics':>10}")
    for arm, rounds in arms.items():
        seconds, cpu = [one.seconds for one in rounds], [one.cpu_seconds for one in rounds]
        ran = "/".join(map(str, sorted({one.result["texts_run"] for one in rounds})))
        same = all(
            one.result["metrics"] == cold.result["metrics"] for one, cold in zip(rounds, arms["cold"], strict=True)
        )
        print(f"{arm:10}{spread(seconds, '.1f'):>24}{spread(cpu, '.1f'):>24}{ran:>12}", end="")
        print(f"{spread([one.peak / 1e6 for one in rounds], '.0f'):>20}", end="")
        print({"cold": "", "warm": f"{'equal' if same else 'NOT EQUAL':>10}"}.get(arm, ""))


if __name__ == "__main__":
    main()
