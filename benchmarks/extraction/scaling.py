"""Time a text and peak memory of ``permafrost extract`` against the number of texts.

    python -m benchmarks.extraction.scaling --backbone FOLDER

FOLDER is a small causal model. The texts are distinct short sentences made of a few words and a number, of which many
begin alike; a larger corpus begins with the smaller one. Each size is a command in a process of its own with an empty
cache, sizes in turn. Seconds are those of stage one, with loading, reading of the file, self-check and writing; CPU
seconds and the peak are those of the whole process. "a further text" is the difference of the medians to the size
before, divided by the difference of the texts.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from benchmarks.processes import Measured, command, measure, spread

ADJECTIVES = ("big", "small", "red", "happy", "sad", "old", "little", "green", "funny", "quiet")
NOUNS = (
    "dog",
    "cat",
    "bird",
    "girl",
    "boy",
    "tree",
    "house",
    "river",
    "king",
    "friend",
    "car",
    "ball",
    "box",
    "mother",
)
NOUNS += ("sun", "moon", "garden", "fish", "apple", "bear")
VERBS = ("saw", "found", "liked", "took", "made", "gave", "lost", "kept", "drew", "bought", "followed", "watched")


def write_texts(path: Path, count: int) -> None:
    """Write distinct sentences, one a line."""
    rng, seen = random.Random(0), set[str]()
    with path.open("w") as file:
        while len(seen) < count:
            first, second = (f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" for _ in range(2))
            sentence = f"The {first} {rng.choice(VERBS)} a {second} and the {rng.choice(NOUNS)} "
            sentence += f"{rng.choice(VERBS)} it {rng.randint(1, 9999)}."
            if sentence not in seen:
                seen.add(sentence)
                file.write(sentence + "\n")


def run(path: Path, backbone: str, layer: int, settings: list[str]) -> Measured:
    """Extract one layer of every text into an empty cache."""
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        places = [f"plan.layers={layer}", f"extract.cache={cache}", *settings]
        words = [word for setting in places for word in ("--set", setting)]
        return measure(command, "extract", "pairs", "--data", str(path), "--backbone", backbone, *words)


def lines(found: dict[int, list[Measured]]) -> list[str]:
    """One line a size."""
    shown, before = [], (0, np.zeros(2))
    for texts, rounds in found.items():
        spent = np.array([(one.result["seconds"], one.cpu_seconds) for one in rounds])  # [round, wall or CPU]
        medians = np.median(spent, axis=0)
        further = 1e6 * (medians - before[1]) / (texts - before[0])
        wall, cpu = (spread(1e6 * column / texts, ".0f") for column in spent.T)
        line = f"{texts:10,}{spread(spent[:, 0], '.1f'):>24}{wall:>20}{cpu:>20}{further[0]:10.0f}{further[1]:8.0f}"
        shown.append(line + f"{spread([one.peak / 1e6 for one in rounds], '.0f'):>20}")
        before = texts, medians
    return shown


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--backbone", required=True, help="folder of a small causal model")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="settings of the command")
    parser.add_argument("--folder", type=Path, default=None, help="where files are written, and removed again")
    options = parser.parse_args()
    print(describe("cpu"))
    found: dict[int, list[Measured]] = {texts: [] for texts in sorted(options.texts)}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for texts in found:
            write_texts(Path(folder) / f"{texts}.txt", texts)
        for _ in range(options.rounds):
            for texts, rounds in found.items():
                rounds.append(run(Path(folder) / f"{texts}.txt", options.backbone, options.layer, options.set))
                assert rounds[-1].result["texts_run"] == texts
    print(f"{Path(options.backbone).name}, layer {options.layer}; {options.rounds} rounds, sizes in turn, ", end="")
    print("each in a process of its own; median (lowest-highest)")
    print(f"{'':34}{'microseconds a text':>40}{'a further text':>18}")
    print(f"{'texts':>10}{'seconds':>24}{'wall':>20}{'CPU':>20}{'wall':>10}{'CPU':>8}{'peak MB':>20}")
    for line in lines(found):
        print(line)


if __name__ == "__main__":
    main()
